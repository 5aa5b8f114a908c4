"""Convolutions and pools over three dimensions become those over two, of all slices: there are the fast kernels.

    (n, c, depth, h, w)  ->  (n * depth', h, w, taps * c): the slices that a window meets, side by side in the channels

A convolution over such slices sums over the depth of its window as it sums over channels. Where each group has
channels of its own, there is a convolution for every tap instead, and their sum. A transposed convolution makes several
slices of each, side by side in the channels of its result. A maximum or a mean over a window is taken over height and
width, then over the depth.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tvm import relax

from dscc.passes.graph import Node
from dscc.passes.layout.forms import Forms, channels_last
from dscc.passes.values import Dim, attr, const, constant, dims

_LAST = channels_last(5)


def convolution3d(node: Node, forms: Forms) -> bool:
    call = node.value
    out, inner = dims(node.var), dims(call.args[0])
    kernel, weight = dims(call.args[1]), constant(forms.graph.value(call.args[1]))
    layouts = [attr(call, name) for name in ("data_layout", "kernel_layout", "out_layout")]
    if layouts[0] != "NCDHW" or layouts[1] != "OIDHW" or layouts[2] not in ("", "NCDHW"):
        return False
    if str(attr(call, "out_dtype") or "void") != "void":
        return False  # of integers
    if out is None or inner is None or kernel is None or weight is None:
        return False
    window = _Depth.of(call, kernel[2])
    taps = window.slices(forms.get(call.args[0], _LAST, node), out[2], node, forms)
    groups = attr(call, "groups")
    if groups == 1 and len(taps) > 1:
        taps = [forms.graph.emit(node, relax.op.concat(taps, axis=4))]
        joined = np.moveaxis(weight, 2, 1)  # the depth before the channels
        weights = [joined.reshape(joined.shape[0], -1, *joined.shape[3:])]
    else:
        weights = [weight[:, :, tap] for tap in range(kernel[2])]
    total: relax.Expr | None = None
    for data, part in zip(taps, weights, strict=True):
        made = relax.op.nn.conv2d(
            _flat(data, inner, out, node, forms),
            const(np.ascontiguousarray(part.transpose(0, 2, 3, 1))),
            strides=attr(call, "strides")[1:],
            padding=_flat_padding(call),
            dilation=attr(call, "dilation")[1:],
            groups=groups,
            data_layout="NHWC",
            kernel_layout="OHWI",
            out_layout="NHWC",
        )
        made = forms.graph.emit(node, made, node.var.name)
        total = made if total is None else forms.graph.emit(node, relax.op.add(made, total), node.var.name)
    if total is None:
        return False
    forms.put_flat(node, _LAST, total)
    return True


def transposed_convolution3d(node: Node, forms: Forms) -> bool:
    """Where the slices that it makes of two slices do not overlap."""
    call = node.value
    out, inner, kernel = dims(node.var), dims(call.args[0]), dims(call.args[1])
    weight = constant(forms.graph.value(call.args[1]))
    names = ("strides", "padding", "output_padding", "dilation")
    strides, padding, extra, dilation = (attr(call, name) for name in names)
    layouts = [attr(call, name) for name in ("data_layout", "kernel_layout", "out_layout")]
    if layouts[0] != "NCDHW" or layouts[1] != "IODHW" or layouts[2] not in ("", "NCDHW") or attr(call, "groups") != 1:
        return False
    if out is None or inner is None or kernel is None or weight is None:
        return False
    if (strides[0], dilation[0], padding[0], padding[3], extra[0]) != (kernel[2], 1, 0, 0, 0):
        return False
    joined = weight.transpose(0, 2, 1, 3, 4).reshape(kernel[0], -1, *kernel[3:])
    data = forms.get(call.args[0], _LAST, node)
    made = relax.op.nn.conv2d_transpose(
        forms.reshaped(data, [inner[0] * inner[2], inner[3], inner[4], inner[1]]),
        const(np.ascontiguousarray(joined)),
        strides=strides[1:],
        padding=_flat_padding(call),
        output_padding=extra[1:],
        dilation=dilation[1:],
        data_layout="NHWC",
        kernel_layout="IOHW",
        out_layout="NHWC",
    )
    apart = relax.op.reshape(made, [inner[0], inner[2], out[3], out[4], kernel[2], out[1]])
    made = forms.graph.emit(node, relax.op.permute_dims(apart, [0, 1, 4, 2, 3, 5]), node.var.name)
    forms.put_flat(node, _LAST, made)
    return True


def pool3d(node: Node, forms: Forms) -> bool:
    call = node.value
    out, inner = dims(node.var), dims(call.args[0])
    if attr(call, "layout") != "NCDHW" or attr(call, "out_layout") not in ("", "NCDHW") or out is None or inner is None:
        return False
    largest = "max" in node.op
    # A mean of means counts every element alike where none of the windows is cut off at an edge.
    if attr(call, "ceil_mode") or not (largest or attr(call, "count_include_pad") or not any(attr(call, "padding"))):
        return False
    pool = relax.op.nn.max_pool2d if largest else relax.op.nn.avg_pool2d
    size, stride, dilation, padding = (attr(call, name) for name in ("pool_size", "strides", "dilation", "padding"))
    counted = bool(attr(call, "count_include_pad"))
    data = forms.get(call.args[0], _LAST, node)
    lying = [inner[2], out[3], out[4], out[1]]
    made = pool(
        forms.reshaped(data, [inner[0] * inner[2], inner[3], inner[4], inner[1]]),
        size[1:],
        stride[1:],
        _flat_padding(call),
        dilation[1:],
        False,
        counted,
        "NHWC",
        "NHWC",
    )
    made = forms.graph.emit(node, made, node.var.name)
    if (size[0], stride[0], padding[0], padding[3]) != (1, 1, 0, 0):
        made = forms.graph.emit(node, relax.op.reshape(made, [inner[0], lying[0], lying[1] * lying[2], lying[3]]))
        along = [padding[0], 0, padding[3], 0]
        made = pool(made, [size[0], 1], [stride[0], 1], along, [dilation[0], 1], False, counted, "NHWC", "NHWC")
        made = forms.graph.emit(node, made, node.var.name)
    forms.put_flat(node, _LAST, made)
    return True


class _Depth:
    """The window along the depth."""

    def __init__(self, size: int, stride: int, dilation: int, before: int, after: int):
        self.size, self.stride, self.dilation, self.before, self.after = size, stride, dilation, before, after

    @staticmethod
    def of(call: relax.Call, size: int) -> _Depth:
        padding = attr(call, "padding")
        return _Depth(size, attr(call, "strides")[0], attr(call, "dilation")[0], padding[0], padding[3])

    def slices(self, data: relax.Expr, count: Dim, node: Node, forms: Forms) -> list[relax.Expr]:
        """For every tap the `count` slices of (n, depth, h, w, c) that it meets."""
        if (self.size, self.stride, self.before, self.after) == (1, 1, 0, 0):
            return [data]
        if self.before or self.after:
            widths = [0, 0, self.before, self.after, *[0] * 6]
            data = forms.graph.emit(node, relax.op.nn.pad(data, widths))
        firsts = [tap * self.dilation for tap in range(self.size)]
        ends = [first + (count - 1) * self.stride + 1 for first in firsts]
        made = [
            relax.op.strided_slice(data, [1], [first], [end], [self.stride], assume_inbound=True)
            for first, end in zip(firsts, ends, strict=True)
        ]
        return [forms.graph.emit(node, each) for each in made]


def _flat(data: relax.Expr, inner: Sequence[Dim], out: Sequence[Dim], node: Node, forms: Forms) -> relax.Expr:
    """(n, depth, h, w, c) as (n * depth, h, w, c)."""
    channels = (dims(data) or ())[4]
    return forms.graph.emit(node, forms.reshaped(data, [inner[0] * out[2], inner[3], inner[4], channels]))


def _flat_padding(call: relax.Call) -> list[int]:
    padding = attr(call, "padding")
    return [*padding[1:3], *padding[4:]]
