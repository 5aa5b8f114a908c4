"""Convolutions of one to three outputs against NumPy, with runs and widths around the vector."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import te
from tvm.relax import op

from dscc.schedule.decisions import Decisions
from dscc.schedule.machine import Machine
from dscc.schedule.rules.narrow import Narrow

RULE = Narrow()
RNG = np.random.default_rng(11)
LAYOUTS = {"data_layout": "NHWC", "kernel_layout": "OHWI", "out_layout": "NHWC"}


def normal(*shape):
    return RNG.standard_normal(shape).astype("float32")


def reference(x, w, stride, pads):
    top, left, bottom, right = pads
    x = np.pad(x.astype("float64"), ((0, 0), (top, bottom), (left, right), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[1:3], (1, 2))[:, :: stride[0], :: stride[1]]
    return np.einsum("nyxcij,fijc->nyxf", windows, w.astype("float64"))


def run_case(compile_packed, shape, sizes, weights, stride=(1, 1), pads=(0, 0, 0, 0)):
    def body(bb, x, w, b):
        product = bb.normalize(op.nn.conv2d(x, w, strides=stride, padding=pads, **LAYOUTS))
        return op.sigmoid(bb.normalize(op.add(product, b)))

    outputs, channels = weights[0], weights[3]
    run = compile_packed(RULE, {"x": (*shape, channels), "w": weights, "b": (outputs,)}, body, ["w", "b"])
    w, b = normal(*weights) / np.sqrt(np.prod(weights[1:])).astype("float32"), normal(outputs)
    for size in sizes:
        x = normal(*size, channels)
        want = 1 / (1 + np.exp(-reference(x, w, stride, pads) - b))
        assert np.abs(run(x, w, b, shape=want.shape) - want).max() <= 2e-6


@pytest.mark.parametrize("outputs", [1, 2, 3])
@pytest.mark.parametrize("channels", [6, 16, 17, 33])
def test_symbolic_extents(compile_packed, outputs, channels):
    sizes = [(1, 13, 19), (1, 4, 5), (2, 9, 17), (1, 33, 40)]
    run_case(compile_packed, ("n", "h", "w"), sizes, (outputs, 3, 3, channels), pads=(1, 1, 1, 1))


@pytest.mark.parametrize("width", [1, 2, 3, 15, 16, 17, 31, 64])
def test_widths_around_the_vector(compile_packed, width):
    run_case(compile_packed, ("n", 5, width), [(1, 5, width), (2, 5, width)], (1, 3, 3, 32), pads=(1, 1, 1, 1))


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_one_row(compile_packed, stride):
    run_case(compile_packed, ("n", 1, 331), [(1, 1, 331), (3, 1, 331)], (1, 1, 67, 1), (1, stride))
    run_case(compile_packed, ("n", "h", 1), [(1, 331, 1), (2, 80, 1)], (1, 67, 1, 1), (stride, 1))


def test_uneven_strides_and_padding(compile_packed):
    run_case(compile_packed, ("n", "h", "w"), [(2, 20, 45), (1, 8, 9)], (2, 5, 4, 7), (2, 3), (0, 1, 2, 1))


def test_what_lies_beyond_a_window_does_not_count(compile_packed):
    run = compile_packed(
        RULE, {"x": (1, 1, 40, 1), "w": (1, 1, 17, 1)}, lambda bb, x, w: op.nn.conv2d(x, w, **LAYOUTS), ["w"]
    )
    x, w = normal(1, 1, 40, 1), normal(1, 1, 17, 1)
    x[0, 0, 30:] = np.nan
    got = run(x, w, shape=(1, 1, 24, 1)).reshape(-1)
    assert np.isfinite(got[:14]).all() and np.isnan(got[14:]).all()


@pytest.mark.parametrize(("weights", "groups"), [((4, 3, 3, 16), 1), ((2, 3, 3, 16), 2), ((1, 1, 1, 15), 1)])
def test_refused(weights, groups):
    channels = weights[3] * groups
    x, w = te.placeholder((1, 8, 8, channels), name="x"), te.placeholder(weights, name="w")
    axes = [te.reduce_axis((0, extent), name=name) for extent, name in zip(weights[1:], "yxc", strict=True)]
    each = weights[0] // groups

    def element(n, y, x_, f):
        ry, rx, rc = axes
        channel = rc if groups == 1 else f // each * weights[3] + rc
        return te.sum(x[n, y + ry, x_ + rx, channel] * w[f, ry, rx, rc], axis=axes)

    out = te.compute((1, 9 - weights[1], 9 - weights[2], weights[0]), element, name="conv")
    func = te.create_prim_func([x, w, out])
    assert RULE.apply(func, frozenset({1}), Machine(512, 32), Decisions()) is None
