"""Convolutions against NumPy, with symbolic extents and sizes around every vector and tile."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tvm import te, tirx
from tvm.relax import op

from dscc.schedule.code import index
from dscc.schedule.convolution import Axis
from dscc.schedule.rules.conv import Conv
from dscc.schedule.taps import Taps

RULE = Conv()
RNG = np.random.default_rng(5)


def normal(*shape):
    return RNG.standard_normal(shape).astype("float32")


def reference(x, w, stride=1, pads=(0, 0, 0, 0), dilation=1, groups=1):
    """x: (n, h, w, c), w: (o, kh, kw, c / groups) -> (n, h', w', o)"""
    top, left, bottom, right = pads
    x = np.pad(x.astype("float64"), ((0, 0), (top, bottom), (left, right), (0, 0)))
    outputs, rows, columns, inputs = w.shape
    tall = (x.shape[1] - (rows - 1) * dilation - 1) // stride + 1
    wide = (x.shape[2] - (columns - 1) * dilation - 1) // stride + 1
    out = np.zeros((x.shape[0], tall, wide, outputs))
    each = outputs // groups
    for ry in range(rows):
        for rx in range(columns):
            y0, x0 = ry * dilation, rx * dilation
            part = x[:, y0 : y0 + tall * stride : stride, x0 : x0 + wide * stride : stride]
            for g in range(groups):
                data = part[:, :tall, :wide, g * inputs : (g + 1) * inputs]
                out[..., g * each : (g + 1) * each] += data @ w[g * each : (g + 1) * each, ry, rx].T
    return out


def convolve(**attrs):
    layouts = {"data_layout": "NHWC", "kernel_layout": "OHWI", "out_layout": "NHWC"}
    return lambda bb, x, w, b: op.nn.relu(op.add(bb.normalize(op.nn.conv2d(x, w, **layouts, **attrs)), b))


CASES = {
    "first layer": {"channels": 3, "outputs": 16, "kernel": 3, "stride": 2, "pads": (1, 1, 1, 1)},
    "same": {"channels": 8, "outputs": 24, "kernel": 3, "pads": (1, 1, 1, 1)},
    "one filter": {"channels": 16, "outputs": 1, "kernel": 3, "pads": (1, 1, 1, 1)},
    "one channel": {"channels": 1, "outputs": 8, "kernel": 3, "pads": (1, 1, 1, 1)},
    "uneven padding": {"channels": 5, "outputs": 7, "kernel": 3, "stride": 2, "pads": (0, 1, 2, 1)},
    "dilated groups": {"channels": 8, "outputs": 12, "kernel": 3, "pads": (2, 2, 2, 2), "dilation": 2, "groups": 2},
    "large window": {"channels": 16, "outputs": 96, "kernel": 5, "stride": 2, "pads": (2, 2, 2, 2)},
    "groups of one channel": {"channels": 4, "outputs": 8, "kernel": 3, "pads": (1, 1, 1, 1), "groups": 4},
    "no padding": {"channels": 6, "outputs": 20, "kernel": 2},
    "taps far apart": {"channels": 8, "outputs": 24, "kernel": 3, "pads": (12, 12, 12, 12), "dilation": 12},
    "taps before": {"channels": 5, "outputs": 7, "kernel": 5, "pads": (40, 23, 1, 20), "dilation": 10, "stride": 2},
    "taps behind": {"channels": 4, "outputs": 6, "kernel": 3, "pads": (1, 4, 37, 30), "dilation": 17, "groups": 2},
    "taps on edges": {"channels": 40, "outputs": 24, "kernel": 3, "pads": (1, 1, 1, 1)},
    "taps on far edges": {
        "channels": 40,
        "outputs": 20,
        "kernel": 5,
        "pads": (6, 3, 9, 14),
        "dilation": 3,
        "stride": 2,
    },
    "taps on edges of groups": {
        "channels": 96,
        "outputs": 18,
        "kernel": 3,
        "pads": (6, 6, 6, 6),
        "dilation": 6,
        "groups": 2,
    },
    "taps around": {"channels": 3, "outputs": 9, "kernel": 2, "pads": (20, 20, 20, 20), "dilation": 40},
}


def run_case(compile_packed, shape, sizes, *, channels, outputs, kernel, **window):
    groups, stride = window.get("groups", 1), window.get("stride", 1)
    weights = (outputs, kernel, kernel, channels // groups)
    attrs = {
        "strides": (stride, stride),
        "padding": window.get("pads", (0, 0, 0, 0)),
        "dilation": (window.get("dilation", 1),) * 2,
        "groups": groups,
    }
    shapes = {"x": (*shape, channels), "w": weights, "b": (outputs,)}
    run = compile_packed(RULE, shapes, convolve(**attrs), ["w", "b"])
    w, b = normal(*weights), normal(outputs)
    for size in sizes:
        x = normal(*size, channels)
        want = np.maximum(reference(x, w, **window) + b, 0)
        got = run(x, w, b, shape=want.shape)
        assert np.abs(got - want).max() <= 1e-5 * max(1.0, np.abs(want).max())


@pytest.mark.parametrize("case", CASES)
def test_symbolic_extents(compile_packed, case):
    sizes = [(1, 13, 19), (1, 7, 5), (2, 9, 17), (1, 33, 40)]
    run_case(compile_packed, ("n", "h", "w"), sizes, **CASES[case])


KNOWN = ["first layer", "uneven padding", "dilated groups", "no padding", *(case for case in CASES if "taps" in case)]


@pytest.mark.parametrize("case", KNOWN)
def test_known_extents(compile_packed, case):
    run_case(compile_packed, ("n", 13, 19), [(1, 13, 19), (3, 13, 19)], **CASES[case])


@pytest.mark.parametrize("width", [1, 3, 7, 30])
def test_widths_around_the_tile(compile_packed, width):
    run_case(compile_packed, (1, 5, width), [(1, 5, width)], **CASES["same"])


@pytest.mark.parametrize("left", [3, 4, 6])
def test_padding_that_is_all_that_a_row_of_windows_reads(compile_packed, left):
    """A stride of 3 or 5 skips the one column of the image: more was filled with padding than there is room for."""
    for stride in (3, 5):
        window = {"channels": 16, "outputs": 24, "kernel": 3, "stride": stride, "pads": (1, left, 1, 0)}
        for shape in [(1, 4, 1), ("n", "h", "w")]:
            run_case(compile_packed, shape, [(1, 4, 1)], **window)


def test_weights_larger_than_the_cache_are_taken_in_parts(compile_packed):
    large = {"channels": 512, "outputs": 40, "kernel": 3, "pads": (1, 1, 1, 1)}
    run_case(compile_packed, (1, 7, 7), [(1, 7, 7)], **large)
    run_case(compile_packed, ("n", "h", "w"), [(1, 17, 7), (2, 3, 20)], **large)
    far = large | {"pads": (12, 12, 12, 12), "dilation": 12}
    run_case(compile_packed, ("n", "h", "w"), [(1, 17, 7), (2, 3, 20), (1, 14, 13)], **far)


@pytest.mark.parametrize("case", CASES)
def test_weights_that_are_no_constants(compile_any, case):
    window = dict(CASES[case])
    channels, outputs, kernel = (window.pop(name) for name in ("channels", "outputs", "kernel"))
    groups, stride = window.get("groups", 1), window.get("stride", 1)
    weights = (outputs, kernel, kernel, channels // groups)
    attrs = {"strides": (stride, stride), "padding": window.get("pads", (0, 0, 0, 0)), "groups": groups}
    attrs["dilation"] = (window.get("dilation", 1),) * 2
    shapes = {"x": ("n", "h", "w", channels), "w": weights, "b": (outputs,)}
    run = compile_any(RULE, shapes, convolve(**attrs))
    for size in [(1, 13, 19), (2, 7, 6)]:
        x, w, b = normal(*size, channels), normal(*weights), normal(outputs)
        want = np.maximum(reference(x, w, **window) + b, 0)
        assert np.abs(run(x, w, b) - want).max() <= 1e-5 * max(1.0, np.abs(want).max())


def test_residual_and_activation(compile_packed):
    def body(bb, x, w, r):
        layouts = {"data_layout": "NHWC", "kernel_layout": "OHWI", "out_layout": "NHWC"}
        y = op.add(bb.normalize(op.nn.conv2d(x, w, padding=(1, 1), **layouts)), r)
        return op.nn.silu(bb.normalize(y))

    shapes = {"x": ("n", "h", "w", 8), "w": (24, 3, 3, 8), "r": ("n", "h", "w", 24)}
    run = compile_packed(RULE, shapes, body, ["w"])
    w = normal(24, 3, 3, 8)
    for size in [(1, 4, 4), (2, 3, 17)]:
        x, r = normal(*size, 8), normal(*size, 24)
        y = reference(x, w, pads=(1, 1, 1, 1)) + r
        want = y / (1 + np.exp(-y))
        assert np.abs(run(x, w, r, shape=want.shape) - want).max() <= 1e-5 * np.abs(want).max()


def test_the_function_before_the_padding_is_applied_while_it_is_copied(compile_packed):
    def body(bb, x, w):
        def compute(x, w):
            n, h, wide, c = x.shape
            y = te.compute(x.shape, lambda *i: te.max(x(*i), 0.0))
            padded = te.compute(
                (n, h + 2, wide + 2, c),
                lambda b, i, j, k: te.if_then_else(
                    te.all(i >= 1, i < h + 1, j >= 1, j < wide + 1), y[b, i - 1, j - 1, k], 0.0
                ),
            )
            ry, rx, rc = (te.reduce_axis((0, extent)) for extent in w.shape[1:])
            return te.compute(
                (n, h, wide, w.shape[0]),
                lambda b, i, j, f: te.sum(padded[b, i + ry, j + rx, rc] * w[f, ry, rx, rc], [ry, rx, rc]),
            )

        return bb.call_te(compute, x, w)

    run = compile_packed(RULE, {"x": ("n", 6, 9, 5), "w": (16, 3, 3, 5)}, body, ["w"])
    x, w = normal(2, 6, 9, 5), normal(16, 3, 3, 5)
    want = reference(np.maximum(x, 0), w, pads=(1, 1, 1, 1))
    assert np.abs(run(x, w, shape=want.shape) - want).max() <= 1e-5 * np.abs(want).max()


def test_how_much_of_a_window_lies_on_padding():
    """Of 3 x 3 taps on 7 pixels: one of three in the first row and in the last."""
    axis = Axis(out=index(7), size=index(7), before=1, kernel=3, stride=1, dilation=1, padded=True)
    assert Taps.idle(axis) == pytest.approx(2 / 21)
    assert Taps.idle(dataclasses.replace(axis, before=0, out=index(5))) == 0
    assert Taps.idle(dataclasses.replace(axis, size=tirx.Var("n", "int64"))) is None
