"""Attention in the `com.microsoft` domain, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dscc

from .contrib import Array, compare, model, random

B, S, HEADS, SIZE = 2, 5, 2, 8
HIDDEN = HEADS * SIZE


def masks(kind: str, batch: int = B, queries: int = S, keys: int = S) -> Array | None:
    rng = np.random.default_rng(7)
    made = {
        "": None,
        "lengths": np.array([keys, keys - 2][:batch]),
        "ends and starts": np.array([*[keys, keys - 1][:batch], *[1, 2][:batch]]),
        "keys": rng.integers(0, 2, (batch, keys)),
        "queries": rng.integers(0, 2, (batch, queries, keys)),
        "packed": np.array([3, 4, 0, 3, 7, 0, 3, 7][: 3 * batch + 2]),
    }[kind]
    return None if made is None else made.astype(np.int32)


OPEN_MASK: dict[str, tuple[Any, ...]] = {
    "": (),
    "lengths": ("n",),
    "ends and starts": (2 * B,),
    "keys": ("n", "t"),
    "queries": ("n", "s", "t"),
}


@pytest.mark.parametrize("mask", ["", "lengths", "keys", "queries"])
@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("past", [0, 3])
def test_attention(mask: str, causal: int, past: int) -> None:
    keys = S + past
    feed = {
        "x": random(B, S, 12),
        "w": random(12, 3 * HIDDEN) / 4,
        "b": random(3 * HIDDEN),
        "m": masks(mask, keys=keys),
        "p": random(2, B, HEADS, past, SIZE) if past else None,
    }
    shapes = {"x": ("n", "s", 12), "m": OPEN_MASK[mask], "p": (2, "n", HEADS, "past", SIZE)}
    outputs = ("y", "present") if past else ("y",)
    compare(model("Attention", feed, shapes, ["w", "b"], outputs, num_heads=HEADS, unidirectional=causal), feed)


def test_attention_with_ends_and_starts() -> None:
    feed = {"x": random(B, S, 12), "w": random(12, 3 * HIDDEN), "b": random(3 * HIDDEN), "m": masks("ends and starts")}
    compare(model("Attention", feed, {}, ["w", "b"], num_heads=HEADS), feed)


def test_attention_with_values_of_another_size_and_a_bias_of_scores() -> None:
    feed = {
        "x": random(B, S, 12),
        "w": random(12, 2 * HIDDEN + 6),
        "b": random(2 * HIDDEN + 6),
        "m": None,
        "p": None,
        "a": random(1, HEADS, S, S),
    }
    shapes = {"x": ("n", "s", 12), "a": (1, HEADS, "s", "s")}
    made = model(
        "Attention", feed, shapes, ["w", "b"], num_heads=HEADS, qkv_hidden_sizes=[HIDDEN, HIDDEN, 6], scale=0.3
    )
    compare(made, feed, {**feed, "x": random(1, 3, 12), "a": random(1, HEADS, 3, 3)})


@pytest.mark.parametrize("mask", ["", "lengths"])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("past", [0, 3])
def test_quantized_attention(mask: str, signed: bool, past: int) -> None:
    kind = np.int8 if signed else np.uint8
    feed = {
        "x": random(B, S, 12, dtype=np.uint8),
        "w": random(12, 3 * HIDDEN, dtype=kind),
        "b": random(3 * HIDDEN),
        "xs": np.float32(0.01),
        "ws": random(3 * HIDDEN) * np.float32(0.01) if signed else np.float32(0.01),
        "m": masks(mask, keys=S + past),
        "xz": np.uint8(120),
        "wz": random(3 * HIDDEN, dtype=kind) if signed else kind(3),
        "p": random(2, B, HEADS, past, SIZE) if past else None,
    }
    arrays = {name: None if value is None else np.asarray(value) for name, value in feed.items()}
    shapes = {"x": ("n", "s", 12), "m": ("n",), "p": (2, "n", HEADS, "past", SIZE)}
    outputs = ("y", "present") if past else ("y",)
    made = model(
        "QAttention", arrays, shapes, ["w", "b", "xs", "ws", "xz", "wz"], outputs, num_heads=HEADS, unidirectional=1
    )
    compare(made, arrays)


@pytest.mark.parametrize("mask", ["", "lengths", "keys", "queries", "packed"])
@pytest.mark.parametrize(("bias", "more", "past"), [(0, 0, 0), (1, 1, 0), (0, 0, 3), (0, 1, 3)])
def test_multi_head_attention(mask: str, bias: int, more: int, past: int) -> None:
    keys, size = 6 + past, SIZE if past else 4
    feed = {
        "q": random(B, S, HIDDEN),
        "k": random(B, 6, HIDDEN, seed=1),
        "v": random(B, 6, HEADS * size, seed=2),
        "b": random(2 * HIDDEN + HEADS * size) if bias else None,
        "m": masks(mask, keys=keys),
        "a": random(B, 1, S, keys) if more else None,
        "pk": random(B, HEADS, past, SIZE) if past else None,
        "pv": random(B, HEADS, past, size) if past else None,
    }
    shapes: dict[str, tuple[Any, ...]] = {
        "q": ("n", "s", HIDDEN),
        "k": ("n", "l", HIDDEN),
        "v": ("n", "l", HEADS * size),
        "m": OPEN_MASK.get(mask, (3 * B + 2,)),
        "a": ("n", 1, "s", "t"),
        "pk": ("n", HEADS, "past", SIZE),
        "pv": ("n", HEADS, "past", size),
    }
    if mask == "packed":
        shapes = {}
    outputs = ("y", "k1", "v1") if past else ("y",)
    made = model("MultiHeadAttention", feed, shapes, ["b"], outputs, num_heads=HEADS, mask_filter_value=-50.0)
    compare(made, feed)


def test_multi_head_attention_over_a_cache_of_keys() -> None:
    feed = {"q": random(B, S, HIDDEN), "k": random(B, HEADS, 4, SIZE), "v": random(B, HEADS, 4, SIZE, seed=1)}
    shapes = {"q": ("n", "s", HIDDEN), "k": ("n", HEADS, "l", SIZE), "v": ("n", HEADS, "l", SIZE)}
    compare(model("MultiHeadAttention", feed, shapes, num_heads=HEADS), feed)


@pytest.mark.parametrize("keys", [3, S])
@pytest.mark.parametrize("scores", [False, True])
def test_the_first_query_sees_the_first_key_whatever_the_number_of_keys(keys: int, scores: bool) -> None:
    """Of more keys than queries onnxruntime 1.31 shows all to the last query, and only to that."""
    feed = {"q": random(B, S, HIDDEN), "k": random(B, keys, HIDDEN, seed=1), "v": random(B, keys, HIDDEN, seed=2)}
    shapes = {"q": ("n", "s", HIDDEN), "k": ("n", "l", HIDDEN), "v": ("n", "l", HIDDEN)}
    outputs = ("y", "k1", "v1", "qk") if scores else ("y",)
    made = model("MultiHeadAttention", feed, shapes, [], outputs, typed=["qk"], num_heads=HEADS, unidirectional=1)
    compare(made, feed)


@pytest.mark.parametrize("mask", ["", "keys"])
def test_multi_head_attention_gives_its_scores(mask: str) -> None:
    feed = {
        "q": random(B, S, HIDDEN),
        "k": random(B, S, HIDDEN, seed=1),
        "v": random(B, S, HIDDEN, seed=2),
        "b": None,
        "m": masks(mask),
    }
    made = model("MultiHeadAttention", feed, {}, [], ("y", "k1", "v1", "qk"), typed=["qk"], num_heads=HEADS)
    compare(made, feed)


@pytest.mark.parametrize("packed", ["qkv", "kv"])
def test_packed_heads_are_what_they_are_apart(packed: str) -> None:
    q, k, v = (random(B, S, HIDDEN, seed=seed) for seed in range(3))
    heads = [x.reshape(B, S, HEADS, 1, SIZE) for x in (q, k, v)]
    feed = {"q": np.concatenate(heads, 3)} if packed == "qkv" else {"q": q, "k": np.concatenate(heads[1:], 3)}
    together = dscc.compile(model("MultiHeadAttention", feed, num_heads=HEADS), jobs=1).load().run(None, feed)
    apart = {"q": q, "k": k, "v": v}
    want = dscc.compile(model("MultiHeadAttention", apart, num_heads=HEADS), jobs=1).load().run(None, apart)
    np.testing.assert_allclose(together[0], want[0], atol=1e-6)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("past", [0, 3])
def test_decoder_masked_attention(past: int, bias: bool) -> None:
    feed = {
        "q": random(B, 1, HIDDEN),
        "k": random(B, 1, HIDDEN, seed=1),
        "v": random(B, 1, HIDDEN, seed=2),
        "m": masks("keys", keys=past + 1),
        "a": None,
        "pk": random(B, HEADS, 6, SIZE),
        "pv": random(B, HEADS, 6, SIZE, seed=3),
        "len": np.array([past], np.int32),
        "w": None,
        "ci": None,
        "b": random(3 * HIDDEN) if bias else None,
    }
    shapes = {"pk": (B, HEADS, "room", SIZE), "pv": (B, HEADS, "room", SIZE), "m": (B, "t")}
    more = {"num_heads": HEADS, "past_present_share_buffer": 1}
    made = model("DecoderMaskedMultiHeadAttention", feed, shapes, ["b"], ("y", "k1", "v1"), **more)
    compare(made, feed)


def test_a_shared_buffer_is_refused_in_one_line() -> None:
    feed = {"x": random(1, 2, 12), "w": random(12, 3 * HIDDEN), "b": random(3 * HIDDEN)}
    with pytest.raises(dscc.DsccError, match="past and present share a buffer, which is not supported"):
        dscc.compile(model("Attention", feed, num_heads=HEADS, past_present_share_buffer=1))
