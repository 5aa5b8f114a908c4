"""Formulas that read along another axis than they write, by the last rule: square tiles, few channels, any size."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax

from dscc.schedule.rules.fallback import Fallback


def values(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype("float32")


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((1, 3, 7, 33), (0, 2, 3, 1)),
        ((2, 5, 9, 3), (0, 3, 1, 2)),
        ((1, 2, 4, 4), (0, 2, 3, 1)),
        ((2, 24, 5, 7), (0, 2, 3, 1)),
        ((2, 5, 7, 24), (0, 3, 1, 2)),
        ((2, 17, 3, 20), (0, 2, 1, 3)),
        ((2, 17, 3, 20), (0, 2, 3, 1)),
        ((33, 50), (1, 0)),
        ((2, 8, 8), (0, 2, 1)),
        ((3, 5, 5), (0, 2, 1)),
        ((10, 12), (1, 0)),
        ((3, 20, 40), (2, 1, 0)),
    ],
)
@pytest.mark.parametrize("symbolic", [False, True])
def test_permuted_axes(compile_one, shape, axes, symbolic):
    names = tuple(f"d{i}" for i in range(len(shape)))
    run = compile_one(
        Fallback(), {"x": names if symbolic else shape}, lambda bb, x: relax.op.permute_dims(x, list(axes))
    )
    x = values(*shape)
    np.testing.assert_array_equal(run(x), x.transpose(axes))


@pytest.mark.parametrize("channels", [2, 3, 8, 16, 30])
def test_images_of_any_size(compile_one, channels):
    to_last = compile_one(
        Fallback(), {"x": ("n", channels, "h", "w")}, lambda bb, x: relax.op.permute_dims(x, [0, 2, 3, 1])
    )
    to_first = compile_one(
        Fallback(), {"x": ("n", "h", "w", channels)}, lambda bb, x: relax.op.permute_dims(x, [0, 3, 1, 2])
    )
    for n, h, w in [(1, 1, 1), (2, 3, 5), (1, 4, 4), (1, 9, 11)]:
        x = values(n, channels, h, w)
        np.testing.assert_array_equal(to_last(x), x.transpose(0, 2, 3, 1))
        y = values(n, h, w, channels)
        np.testing.assert_array_equal(to_first(y), y.transpose(0, 3, 1, 2))


def test_arithmetic_on_both_sides_of_a_turn(compile_one):
    def body(bb, x, y, scale):
        turned = bb.emit(relax.op.permute_dims(bb.emit(relax.op.nn.relu(x)), [1, 0]))
        return relax.op.add(bb.emit(relax.op.multiply(turned, scale)), y)

    run = compile_one(Fallback(), {"x": ("n", 40), "y": (40, "n"), "scale": (40, 1)}, body)
    for n in (1, 15, 16, 35):
        x, y, scale = values(n, 40), values(40, n) + 1, values(40, 1)
        np.testing.assert_allclose(run(x, y, scale), np.maximum(x, 0).T * scale + y, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3, 8, 16])
def test_a_triangle_that_is_turned_depends_on_where_an_element_lies(compile_one, channels):
    def body(bb, x):
        return relax.op.permute_dims(bb.emit(relax.op.tril(x, 1)), [0, 2, 3, 1])

    run = compile_one(Fallback(), {"x": (2, channels, 20, 17)}, body)
    x = values(2, channels, 20, 17)
    np.testing.assert_array_equal(run(x), np.tril(x, 1).transpose(0, 2, 3, 1))
