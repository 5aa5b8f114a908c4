"""Transposed convolutions, by their rule where the stride is the kernel's size and by the last rule elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax

from dscc.schedule.rules.conv import Conv
from dscc.schedule.rules.conv_transpose import ConvTranspose
from dscc.schedule.rules.fallback import Fallback


def reference(x, weight, stride, padding, extra, groups, dilation=1):
    """x: (n, h, w, c); weight: (c, f / groups, kh, kw)."""
    n, h, w, c = x.shape
    _, filters, rows, columns = weight.shape
    reach = [(k - 1) * dilation + 1 for k in (rows, columns)]
    full = np.zeros((n, (h - 1) * stride + reach[0] + extra, (w - 1) * stride + reach[1] + extra, filters * groups))
    for g in range(groups):
        part = slice(g * (c // groups), (g + 1) * (c // groups))
        for i in range(rows):
            for j in range(columns):
                y0, x0 = i * dilation, j * dilation
                to = full[:, y0 : y0 + h * stride : stride, x0 : x0 + w * stride : stride]
                to[..., g * filters : (g + 1) * filters] += x[..., part] @ weight[part, :, i, j]
    return full[:, padding : full.shape[1] - padding, padding : full.shape[2] - padding]


def transposed(weight, stride, padding=0, extra=0, groups=1, dilation=1):
    def body(bb, x, bias):
        made = bb.emit(
            relax.op.nn.conv2d_transpose(
                x,
                relax.const(weight),
                stride,
                padding,
                extra,
                dilation,
                groups,
                data_layout="NHWC",
                kernel_layout="IOHW",
                out_layout="NHWC",
            )
        )
        return relax.op.nn.relu(bb.emit(relax.op.add(made, bias)))

    return body


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "extra", "groups", "dilation"),
    [
        (4, 2, 1, 0, 1, 1),
        (3, 2, 1, 1, 1, 1),
        (3, 1, 0, 0, 1, 1),
        (2, 3, 0, 0, 1, 1),
        (3, 2, 1, 0, 2, 1),
        (3, 2, 0, 0, 1, 2),
    ],
)
def test_any_stride(compile_constants, kernel, stride, padding, extra, groups, dilation):
    weight = normal(8, 20 // groups, kernel, kernel)
    body = transposed(weight, stride, padding, extra, groups, dilation)
    for shapes in ({"x": (1, 5, 6, 8), "bias": (20,)}, {"x": ("n", "h", "w", 8), "bias": (20,)}):
        x, bias = normal(1, 5, 6, 8), normal(20, seed=1)
        want = np.maximum(reference(x, weight, stride, padding, extra, groups, dilation) + bias, 0)
        np.testing.assert_allclose(compile_constants(Fallback(), shapes, body)(x, bias), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "extra"),
    [
        ((4, 4), (2, 2), (1, 1), (0, 0)),
        ((3, 3), (2, 2), (1, 1), (1, 1)),
        ((3, 3), (1, 1), (1, 1), (0, 0)),
        ((1, 16), (1, 8), (0, 4), (0, 0)),
        ((5, 2), (3, 3), (3, 0), (2, 1)),
        ((7, 4), (2, 4), (3, 0), (1, 0)),
    ],
)
@pytest.mark.parametrize("filters", [1, 20])
def test_overlapping_windows_are_a_convolution(compile_constants, kernel, stride, padding, extra, filters):
    weight = normal(8, filters, *kernel)

    def body(bb, x):
        pads = (*padding, *padding)
        return relax.op.nn.conv2d_transpose(
            x, relax.const(weight), stride, pads, extra, data_layout="NHWC", kernel_layout="IOHW", out_layout="NHWC"
        )

    for shape, sizes in [((1, 5, 6), [(1, 5, 6)]), ((2, 1, 1), [(2, 1, 1)]), (("n", "h", "w"), [(1, 4, 9), (2, 7, 5)])]:
        run = compile_constants(Conv(), {"x": (*shape, 8)}, body)
        for size in sizes:
            x = normal(*size, 8)
            want = scattered(x, weight, stride, padding, extra)
            np.testing.assert_allclose(run(x), want, rtol=1e-4, atol=1e-4)


def scattered(x, weight, stride, padding, extra):
    """x: (n, h, w, c); weight: (c, f, kh, kw)."""
    n, h, w, _ = x.shape
    _, filters, *kernel = weight.shape
    full = [(size - 1) * s + k + e for size, s, k, e in zip((h, w), stride, kernel, extra, strict=True)]
    out = np.zeros((n, *full, filters))
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            out[:, i : i + h * stride[0] : stride[0], j : j + w * stride[1] : stride[1]] += x @ weight[:, :, i, j]
    return out[:, padding[0] : full[0] - padding[0], padding[1] : full[1] - padding[1]]


@pytest.mark.parametrize("filters", [1, 2, 16, 24, 80])
@pytest.mark.parametrize("symbolic", [False, True])
def test_stride_of_the_kernels_size(compile_constants, filters, symbolic):
    weight = normal(24, filters, 2, 2)
    body = transposed(weight, 2)
    for n, h, w in [(1, 3, 1), (2, 2, 7)] if symbolic else [(1, 4, 19)]:
        shapes = {"x": ("n", "h", "w", 24) if symbolic else (n, h, w, 24), "bias": (filters,)}
        x, bias = normal(n, h, w, 24), normal(filters, seed=1)
        want = np.maximum(reference(x, weight, 2, 0, 0, 1) + bias, 0)
        run = compile_constants(ConvTranspose(), shapes, body)
        np.testing.assert_allclose(run(x, bias), want, rtol=1e-4, atol=1e-4)


def test_channels_first(compile_constants):
    weight = normal(4, 3, 3, 3)

    def body(bb, x):
        return relax.op.nn.conv2d_transpose(x, relax.const(weight), 2, 1, kernel_layout="IOHW")

    x = normal(1, 4, 5, 6)
    want = reference(x.transpose(0, 2, 3, 1), weight, 2, 1, 0, 1).transpose(0, 3, 1, 2)
    run = compile_constants(Fallback(), {"x": x.shape}, body)
    np.testing.assert_allclose(run(x), want, rtol=1e-4, atol=1e-4)
