"""Attention against NumPy, at lengths around every block and tile, for the rules of processors and of devices.

A file that imports these tests has the fixtures `compiled` and `compiled_for_all`, which take the shapes and the body.
"""

from __future__ import annotations

import numpy as np
import pytest
from tvm.relax import op

RNG = np.random.default_rng(3)


def normal(*shape):
    return RNG.standard_normal(shape).astype("float32")


def attention(q, k, v, bias=0.0, scale=None, causal=None):
    q, k, v = (x.astype("float64").transpose(0, 2, 1, 3) for x in (q, k, v))
    scores = q @ k.swapaxes(2, 3) * (scale or 1 / np.sqrt(q.shape[-1])) + bias
    if causal:
        offset = abs(q.shape[2] - k.shape[2]) if causal == "BottomRight" else 0
        seen = np.arange(k.shape[2]) <= np.arange(q.shape[2])[:, None] + offset
        scores = np.where(seen, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return (weights / weights.sum(-1, keepdims=True) @ v).transpose(0, 2, 1, 3)


def close(got, want):
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= 3e-6 * max(1.0, np.abs(want).max())


@pytest.mark.parametrize(("size", "value_size"), [(64, 64), (5, 3), (24, 20)])
def test_symbolic_lengths(compiled_for_all, size, value_size):
    shapes = {"q": ("b", "s", 3, size), "k": ("b", "t", 3, size), "v": ("b", "t", 3, value_size)}
    run = compiled_for_all(shapes, lambda bb, q, k, v: op.nn.attention(q, k, v))
    for queries, keys in ((1, 1), (1, 9), (5, 3), (15, 7), (16, 8), (17, 64), (33, 65), (70, 71), (9, 200)):
        q, k, v = normal(2, queries, 3, size), 3 * normal(2, keys, 3, size), normal(2, keys, 3, value_size)
        close(run(q, k, v), attention(q, k, v))


@pytest.mark.parametrize("causal", ["TopLeft", "BottomRight"])
def test_causal(compiled, causal):
    shapes = {"q": ("b", "s", 2, 16), "k": ("b", "t", 2, 16), "v": ("b", "t", 2, 16)}
    run = compiled(shapes, lambda bb, q, k, v: op.nn.attention(q, k, v, causal_mask=causal, scale=0.3))
    for queries, keys in ((1, 1), (1, 40), (40, 40), (130, 130), (20, 90), (90, 20)):
        q, k, v = normal(1, queries, 2, 16), normal(1, keys, 2, 16), normal(1, keys, 2, 16)
        close(run(q, k, v), attention(q, k, v, scale=0.3, causal=causal))


@pytest.mark.parametrize("shape", [("b", 1, 1, "t"), ("b", 2, "s", "t"), (1, 2, "s", "t")])
def test_bias_is_broadcast(compiled, shape):
    shapes = {"q": ("b", "s", 2, 16), "k": ("b", "t", 2, 16), "v": ("b", "t", 2, 16), "bias": shape}
    run = compiled(shapes, lambda bb, q, k, v, bias: op.nn.attention(q, k, v, bias))
    for queries, keys in ((1, 1), (17, 33), (20, 90)):
        q, k, v = normal(3, queries, 2, 16), normal(3, keys, 2, 16), normal(3, keys, 2, 16)
        bias = normal(*({"b": 3, "s": queries, "t": keys}.get(d, d) for d in shape))
        close(run(q, k, v, bias), attention(q, k, v, bias))


@pytest.mark.parametrize("masked", [-np.inf, -3.4028235e38])
def test_masked_keys_in_front(compiled, masked):
    """The first blocks of keys are all masked: what they leave behind must not reach the result."""
    shapes = {"q": ("b", "s", 2, 16), "k": ("b", "t", 2, 16), "v": ("b", "t", 2, 16), "bias": ("b", 1, 1, "t")}
    run = compiled(shapes, lambda bb, q, k, v, bias: op.nn.attention(q, k, v, bias))
    q, k, v = normal(2, 20, 2, 16), normal(2, 200, 2, 16), normal(2, 200, 2, 16)
    bias = np.zeros((2, 1, 1, 200), "float32")
    bias[0, ..., :150] = bias[1, ..., 7:] = masked
    close(run(q, k, v, bias), attention(q, k, v, bias))


@pytest.mark.parametrize("heads", [(3, 3), (2, 1), (8, 2), (7, 1), (10, 2)])
@pytest.mark.parametrize("causal", [None, "BottomRight"])
def test_a_few_queries_over_a_cache(compiled_for_all, heads, causal):
    """As in decoding: heads share keys, and the keys are many or one more or less than what is taken at once."""
    number, groups = heads
    shapes = {"q": ("b", "s", number, 32), "k": ("b", "t", groups, 32), "v": ("b", "t", groups, 48)}
    shapes |= {"bias": ("b", 1, "s", "t")}
    run = compiled_for_all(shapes, lambda bb, q, k, v, bias: op.nn.attention(q, k, v, bias, causal_mask=causal))
    for queries, keys in ((1, 1), (1, 15), (1, 16), (1, 17), (2, 63), (3, 64), (4, 65), (5, 20), (1, 200)):
        q, bias = normal(2, queries, number, 32), normal(2, 1, queries, keys)
        k, v = 3 * normal(2, keys, groups, 32), normal(2, keys, groups, 48)
        wide = [np.repeat(x, number // groups, axis=2) for x in (k, v)]
        close(run(q, k, v, bias), attention(q, *wide, bias, causal=causal))
