"""Winograd's convolutions against NumPy, with symbolic extents and sizes around every tile."""

from __future__ import annotations

import numpy as np
import pytest
from tvm.relax import op

from dscc.schedule.rules.winograd import Winograd
from dscc.schedule.winograd import IN, OUT, _weight_matrix, data_transform, result_transform

RULE = Winograd()
RNG = np.random.default_rng(11)


def normal(*shape):
    return RNG.standard_normal(shape).astype("float32")


def reference(x, w, pads):
    """x: (n, h, w, c), w: (o, 3, 3, c) -> (n, h', w', o)"""
    top, left, bottom, right = pads
    x = np.pad(x.astype("float64"), ((0, 0), (top, bottom), (left, right), (0, 0)))
    tall, wide = x.shape[1] - 2, x.shape[2] - 2
    out = np.zeros((x.shape[0], tall, wide, w.shape[0]))
    for ry in range(3):
        for rx in range(3):
            out += x[:, ry : ry + tall, rx : rx + wide] @ w[:, ry, rx].T.astype("float64")
    return out


def test_transforms_compute_a_convolution():
    rng = np.random.default_rng(1)
    d, w = rng.standard_normal(IN), rng.standard_normal(3)
    product = _weight_matrix() @ w * np.array(data_transform(list(d), lambda value: value))
    want = [d[i : i + 3] @ w for i in range(OUT)]
    np.testing.assert_allclose(result_transform(list(product), lambda value: value), want, rtol=1e-12, atol=1e-12)


def run_case(compile_packed, shape, sizes, inputs, outputs, pads=(1, 1, 1, 1)):
    def body(bb, x, w, b):
        layouts = {"data_layout": "NHWC", "kernel_layout": "OHWI", "out_layout": "NHWC"}
        return op.nn.relu(op.add(bb.normalize(op.nn.conv2d(x, w, padding=pads, **layouts)), b))

    shapes = {"x": (*shape, inputs), "w": (outputs, 3, 3, inputs), "b": (outputs,)}
    run = compile_packed(RULE, shapes, body, ["w", "b"])
    w, b = normal(outputs, 3, 3, inputs), normal(outputs)
    for size in sizes:
        x = normal(*size, inputs)
        want = np.maximum(reference(x, w, pads) + b, 0)
        got = run(x, w, b, shape=want.shape)
        assert np.abs(got - want).max() <= 1e-5 * max(1.0, np.abs(want).max())


@pytest.mark.parametrize("channels", [(16, 16), (17, 40), (64, 96), (130, 21)], ids=str)
def test_symbolic_extents(compile_packed, channels):
    run_case(compile_packed, ("n", "h", "w"), [(1, 13, 19), (1, 1, 1), (2, 9, 17), (1, 33, 40)], *channels)


@pytest.mark.parametrize("size", [(12, 12), (13, 18), (9, 31), (40, 5)], ids=str)
def test_known_extents(compile_packed, size):
    run_case(compile_packed, ("n", *size), [(1, *size), (3, *size)], 24, 48)
    run_case(compile_packed, (2, *size), [(2, *size)], 32, 200)


@pytest.mark.parametrize("pads", [(0, 0, 0, 0), (2, 2, 2, 2), (0, 1, 2, 0)], ids=str)
def test_padding(compile_packed, pads):
    run_case(compile_packed, ("n", "h", "w"), [(1, 8, 6), (2, 5, 21)], 16, 32, pads)
    run_case(compile_packed, (1, 14, 21), [(1, 14, 21)], 16, 32, pads)


def test_many_channels_leave_one_row_of_tiles_a_task(compile_packed):
    run_case(compile_packed, ("n", "h", "w"), [(1, 17, 7), (2, 3, 40)], 512, 40)


def test_weights_that_would_be_read_for_too_few_pixels_are_left_alone(compile_packed):
    for size in [(1, 7, 7), ("n", "h", "w")]:
        with pytest.raises(AssertionError, match="refused"):
            run_case(compile_packed, size, [], 512, 512)


def test_an_open_size_that_follows_from_another_is_taken_for_one_of_an_image(compile_packed):
    """As many pixels as (h - 2) (w - 2) has for h = w = 224 are worth weights of four times the bytes."""
    run_case(compile_packed, ("n", "h", "w"), [(1, 5, 7), (1, 14, 3)], 512, 512, (0, 0, 0, 0))
