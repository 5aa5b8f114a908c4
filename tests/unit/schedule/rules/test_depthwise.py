"""Depthwise convolutions: numbers over widths around the tile, strides, dilations, padding, symbolic sizes."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax

from dscc.schedule.rules.depthwise import Depthwise


def reference(x, weight, stride, padding, dilation):
    """x: (n, h, w, c); weight: (c, kh, kw, 1)."""
    _, rows, columns, _ = weight.shape
    top, left, bottom, right = padding
    x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0))).astype("float64")
    high = (x.shape[1] - (rows - 1) * dilation - 1) // stride + 1
    wide = (x.shape[2] - (columns - 1) * dilation - 1) // stride + 1
    total = 0.0
    for i in range(rows):
        for j in range(columns):
            y0, x0 = i * dilation, j * dilation
            part = x[:, y0 : y0 + (high - 1) * stride + 1 : stride, x0 : x0 + (wide - 1) * stride + 1 : stride]
            total = total + part * weight[:, i, j, 0]
    return total


def convolution(stride, padding, dilation, channels):
    def body(bb, x, w, bias):
        out = bb.emit(
            relax.op.nn.conv2d(
                x, w, stride, padding, dilation, channels, data_layout="NHWC", kernel_layout="OHWI", out_layout="NHWC"
            )
        )
        return relax.op.nn.relu(bb.emit(relax.op.add(out, bias)))

    return body


def check(run, shape, kernel, stride, padding, dilation):
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape).astype("float32")
    weight = rng.standard_normal((shape[3], kernel, kernel, 1)).astype("float32")
    bias = rng.standard_normal(shape[3]).astype("float32")
    want = np.maximum(reference(x, weight, stride, padding, dilation) + bias, 0)
    np.testing.assert_allclose(run(x, weight, bias, shape=want.shape), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "padding", "dilation"),
    [
        ((1, 7, 7, 32), 3, 1, (1, 1, 1, 1), 1),
        ((2, 14, 13, 19), 3, 1, (1, 1, 1, 1), 1),
        ((1, 9, 40, 16), 3, 2, (1, 1, 1, 1), 1),
        ((1, 9, 41, 16), 3, 2, (0, 0, 1, 1), 1),
        ((1, 12, 37, 5), 5, 1, (2, 2, 2, 2), 1),
        ((1, 12, 30, 8), 3, 1, (4, 4, 4, 4), 4),
        ((1, 3, 1, 1), 3, 1, (1, 1, 1, 1), 1),
        ((1, 11, 29, 24), 3, 1, (0, 0, 0, 0), 1),
    ],
)
def test_fixed_sizes(compile_packed, shape, kernel, stride, padding, dilation):
    shapes = {"x": shape, "w": (shape[3], kernel, kernel, 1), "bias": (shape[3],)}
    run = compile_packed(Depthwise(), shapes, convolution(stride, padding, dilation, shape[3]), ["w"])
    check(run, shape, kernel, stride, padding, dilation)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1)])
def test_symbolic_sizes(compile_packed, kernel, stride):
    edge = (kernel // 2,) * 4
    shapes = {"x": ("n", "h", "w", 19), "w": (19, kernel, kernel, 1), "bias": (19,)}
    run = compile_packed(Depthwise(), shapes, convolution(stride, edge, 1, 19), ["w"])
    for n, h, w in [(1, 1, 1), (1, 2, 3), (2, 5, 7), (1, 6, 8), (1, 9, 9), (2, 10, 33), (1, 70, 26)]:
        check(run, (n, h, w, 19), kernel, stride, edge, 1)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"),
    [(7, 1, (3, 3, 3, 3), 1), (9, 1, (4, 4, 4, 4), 1), (9, 2, (4, 3, 5, 4), 1), (8, 1, (0, 0, 0, 0), 1),
     (7, 2, (6, 6, 6, 6), 2), (11, 3, (12, 1, 0, 30), 1), (8, 5, (0, 20, 0, 0), 1)],
)  # fmt: skip
@pytest.mark.parametrize("channels", [3, 19, 64])
def test_large_windows(compile_packed, kernel, stride, padding, dilation, channels):
    """Of open sizes, and of known ones."""
    body = convolution(stride, padding, dilation, channels)
    shapes = {"x": ("n", "h", "w", channels), "w": (channels, kernel, kernel, 1), "bias": (channels,)}
    run = compile_packed(Depthwise(), shapes, body, ["w"])
    for n, h, w in [(1, 16, 16), (2, 13, 19), (1, 21, 14), (1, 70, 26), *([(1, 14, 1)] if padding[1] >= 7 else [])]:
        check(run, (n, h, w, channels), kernel, stride, padding, dilation)
    fixed = compile_packed(Depthwise(), {**shapes, "x": (2, 14, 17, channels)}, body, ["w"])
    check(fixed, (2, 14, 17, channels), kernel, stride, padding, dilation)


def test_many_taps_along_one_axis(compile_packed):
    """As in the convolution modules of speech recognition."""

    def body(bb, x, w):
        return relax.op.nn.conv2d(
            x, w, 1, (0, 31, 0, 31), 1, 24, data_layout="NHWC", kernel_layout="OHWI", out_layout="NHWC"
        )

    run = compile_packed(Depthwise(), {"x": (1, 1, "t", 24), "w": (24, 1, 63, 1)}, body, ["w"])
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((24, 1, 63, 1)).astype("float32")
    for length in (1, 30, 257, 3000):
        x = rng.standard_normal((1, 1, length, 24)).astype("float32")
        want = reference(x, weight, 1, (0, 31, 0, 31), 1)
        np.testing.assert_allclose(run(x, weight, shape=want.shape), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("chosen", [{"channels": "inside"}, {"tile": 2, "l2_parts": 16}], ids=["channels", "sizes"])
@pytest.mark.parametrize("stride", [1, 2])
def test_what_a_tuner_may_choose(compile_packed, chosen, stride):
    edge = (1, 1, 1, 1)
    weight = {"w": (40, 3, 3, 1), "bias": (40,)}
    run = compile_packed(
        Depthwise(), {"x": ("n", "h", "w", 40), **weight}, convolution(stride, edge, 1, 40), ["w"], chosen
    )
    for n, h, w in [(1, 1, 1), (2, 5, 7), (1, 70, 26)]:
        check(run, (n, h, w, 40), 3, stride, edge, 1)
    run = compile_packed(Depthwise(), {"x": (2, 9, 41, 40), **weight}, convolution(stride, edge, 1, 40), ["w"], chosen)
    check(run, (2, 9, 41, 40), 3, stride, edge, 1)


def test_weights_that_are_no_constants(compile_one):
    shapes = {"x": (1, 8, 8, 20), "w": (20, 3, 3, 1), "bias": (20,)}
    run = compile_one(Depthwise(), shapes, convolution(1, (1, 1, 1, 1), 1, 20))
    check(lambda *arrays, shape: run(*arrays), (1, 8, 8, 20), 3, 1, (1, 1, 1, 1), 1)


def test_a_long_epilogue(compile_packed):
    def body(bb, x, w):
        out = relax.op.nn.conv2d(x, w, 1, 1, 1, 16, data_layout="NHWC", kernel_layout="OHWI", out_layout="NHWC")
        out = bb.emit(out)
        return relax.op.multiply(out, bb.emit(relax.op.sigmoid(out)))

    run = compile_packed(Depthwise(), {"x": (1, 9, 9, 16), "w": (16, 3, 3, 1)}, body, ["w"])
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((1, 9, 9, 16)).astype("float32"), rng.standard_normal((16, 3, 3, 1)).astype("float32")
    want = reference(x, w, 1, (1, 1, 1, 1), 1)
    np.testing.assert_allclose(run(x, w, shape=want.shape), want / (1 + np.exp(-want)), rtol=1e-4, atol=1e-5)
