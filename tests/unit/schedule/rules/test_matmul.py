"""Matrix products against NumPy, at sizes around every vector, panel and tile."""

from __future__ import annotations

import math

import numpy as np
import pytest
from tvm.relax import op

from dscc.schedule.rules.matmul import Matmul

RULE = Matmul()
RNG = np.random.default_rng(3)


def normal(*shape):
    return RNG.standard_normal(shape).astype("float32")


def close(got, want):
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= 2e-6 * max(1.0, np.abs(want).max()) * math.sqrt(want.size)


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


@pytest.mark.parametrize("depth,columns", [(5, 1), (7, 3), (16, 4), (3, 13), (64, 17), (31, 40), (8, 100)])
def test_symbolic_rows_with_bias_residual_and_gelu(compile_packed, depth, columns):
    run = compile_packed(
        RULE,
        {"x": ("b", "s", depth), "w": (depth, columns), "bias": (columns,), "r": ("b", "s", columns)},
        lambda bb, x, w, bias, r: op.nn.gelu(bb.normalize(op.add(op.add(op.matmul(x, w), bias), r))),
        ["w", "bias"],
    )
    w, bias = normal(depth, columns), normal(columns)
    for batch, rows in [(1, 1), (1, 3), (3, 1), (1, 5), (2, 3), (1, 7), (3, 7), (1, 64), (2, 33)]:
        x, r = normal(batch, rows, depth), normal(batch, rows, columns)
        close(run(x, w, bias, r, shape=r.shape), gelu(x @ w + bias + r))


@pytest.mark.parametrize("rows", [1, 5, 13, 197])
def test_known_rows(compile_packed, rows):
    run = compile_packed(RULE, {"x": (rows, 40), "w": (40, 72)}, lambda bb, x, w: op.matmul(x, w), ["w"])
    x, w = normal(rows, 40), normal(40, 72)
    close(run(x, w, shape=(rows, 72)), x @ w)


def test_every_number_of_rows_around_a_few_tiles(compile_packed):
    run = compile_packed(RULE, {"x": ("n", 40), "w": (40, 72)}, lambda bb, x, w: op.matmul(x, w), ["w"])
    w = normal(40, 72)
    for rows in range(1, 61):
        x = normal(rows, 40)
        close(run(x, w, shape=(rows, 72)), x @ w)


def test_weights_larger_than_the_cache(compile_packed):
    run = compile_packed(RULE, {"x": ("n", 700), "w": (700, 450)}, lambda bb, x, w: op.matmul(x, w), ["w"])
    w = normal(700, 450)
    for rows in (1, 33, 150):
        x = normal(rows, 700)
        close(run(x, w, shape=(rows, 450)), x @ w)


def test_residual_that_is_broadcast_over_some_of_the_rows(compile_packed):
    run = compile_packed(
        RULE,
        {"x": ("b", 3, "s", 8), "w": (8, 20), "r": ("b", 1, "s", 1)},
        lambda bb, x, w, r: op.add(op.matmul(x, w), r),
        ["w"],
    )
    w = normal(8, 20)
    for batch, rows in [(1, 1), (2, 1), (2, 9)]:
        x, r = normal(batch, 3, rows, 8), normal(batch, 1, rows, 1)
        close(run(x, w, r, shape=(batch, 3, rows, 20)), x @ w + r)


@pytest.mark.parametrize("rows,depth,columns", [(1, 9, 33), (2, 3, 16), (13, 70, 48), (29, 3, 5)])
def test_both_operands_computed(compile_one, rows, depth, columns):
    run = compile_one(
        RULE,
        {"a": ("b", 3, rows, depth), "b": ("b", 3, depth, columns)},
        lambda bb, a, b: op.nn.relu(op.matmul(a, b)),
    )
    a, b = normal(2, 3, rows, depth), normal(2, 3, depth, columns)
    close(run(a, b), np.maximum(a @ b, 0))


@pytest.mark.parametrize("depth", [227, 228, 454, 457, 911, 1820, 1823])
def test_a_deep_panel_is_filled_in_pieces(compile_any, depth):
    run = compile_any(RULE, {"x": ("n", depth), "w": (depth, 100)}, lambda bb, x, w: op.nn.relu(op.matmul(x, w)))
    w = normal(depth, 100)
    for rows in (1, 7, 150):
        x = normal(rows, depth)
        close(run(x, w), np.maximum(x @ w, 0))


@pytest.mark.parametrize("depth,columns", [(9000, 100), (9001, 100), (9001, 20)])
def test_a_deep_packed_panel_is_read_in_pieces(compile_packed, depth, columns):
    """Sums of so many products in one run are wrong in the sixth digit."""
    for rows, given in ((("n",), (1, 4, 6, 50)), ((13,), (13,))):
        run = compile_packed(
            RULE,
            {"x": (*rows, depth), "w": (depth, columns), "b": (columns,)},
            lambda bb, x, w, b: op.nn.relu(bb.normalize(op.add(op.matmul(x, w), b))),
            ["w", "b"],
        )
        w, b = normal(depth, columns), normal(columns)
        for count in given:
            x = normal(count, depth)
            want = np.maximum(x.astype("float64") @ w + b, 0)
            assert np.abs(run(x, w, b, shape=want.shape) - want).max() <= 1e-6 * want.max()


def test_one_by_one_convolution_is_a_product(compile_packed):
    run = compile_packed(
        RULE,
        {"x": ("n", "h", "w", 8), "k": (24, 1, 1, 8), "r": ("n", "h", "w", 24)},
        lambda bb, x, k, r: op.nn.relu(
            op.add(op.nn.conv2d(x, k, data_layout="NHWC", kernel_layout="OHWI", out_layout="NHWC"), r)
        ),
        ["k"],
    )
    k = normal(24, 1, 1, 8)
    for shape in [(1, 1, 1), (1, 5, 1), (2, 3, 7)]:
        x, r = normal(*shape, 8), normal(*shape, 24)
        close(run(x, k, r, shape=(*shape, 24)), np.maximum(x @ k[:, 0, 0].T + r, 0))
