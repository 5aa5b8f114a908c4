"""Convolutions, in ONNX's layout: data NC*, weights OI*. The layout passes change that for the whole graph."""

from __future__ import annotations

from typing import Any

from tvm import te, tirx
from tvm.relax import Expr
from tvm.relax import op as R

from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.registry import converter
from dscc.frontends.onnx.shapes import reshaped, shape_expr
from dscc.frontends.onnx.values import Dim, Value, static
from dscc.frontends.onnx.windows import Windows, windows

_CONV = {1: (R.nn.conv1d, "NCW", "OIW"), 2: (R.nn.conv2d, "NCHW", "OIHW"), 3: (R.nn.conv3d, "NCDHW", "OIDHW")}
_TRANSPOSE = {
    1: (R.nn.conv1d_transpose, "NCW", "IOW"),
    2: (R.nn.conv2d_transpose, "NCHW", "IOHW"),
    3: (R.nn.conv3d_transpose, "NCDHW", "IODHW"),
}


@converter("Conv")
def conv(node: Node, x: Value, weight: Value, bias: Value | None = None) -> Expr:
    return with_bias(node, convolve(node, x.expr, weight), bias, x.ndim)


def convolve(node: Node, x: Expr, weight: Value) -> Expr:
    """x (n, c, *spatial), weight (o, c / groups, *kernel) -> (n, o, *spatial)."""
    kernel = [_kernel_size(node, dim) for dim in weight.shape[2:]]
    shape = list(x.ty.shape.values)
    groups = node.attr("group", 1)
    if len(kernel) not in _CONV:
        raise node.unsupported(f"a convolution over {len(kernel)} spatial dimensions is not supported; 1 to 3 are")
    channels = weight.shape[1] * groups
    if static(shape[1]) is None:  # kernels want to know it
        x = node.restate(x, [shape[0], channels, *shape[2:]], "the data of the convolution")
    node.require_equal(x.ty.shape.values[1], channels, "the number of channels")
    if groups > 1:  # a kernel divides by how many there are in a group
        outputs = weight.shape[0]
        node.require_equal(node.dims.floordiv(outputs, groups) * groups, outputs, "the number of outputs of all groups")
    over = windows(node, kernel, tuple(shape[2:]))
    padding = over.padding
    if padding is None:
        x, padding = node.emit(pad_spatial(node, x, over, 0.0)), [0] * (2 * len(kernel))
    function, layout, kernel_layout = _CONV[len(kernel)]
    return function(
        x,
        weight.expr,
        strides=over.strides,
        padding=padding,
        dilation=over.dilations,
        groups=groups,
        data_layout=layout,
        kernel_layout=kernel_layout,
    )


def _kernel_size(node: Node, dim: Dim) -> int:
    size = static(dim)
    if size is None:
        raise node.unsupported(f"the weight has a symbolic dimension {dim}; the kernel's size must be known")
    return size


def with_bias(node: Node, result: Expr, bias: Value | None, ndim: int) -> Expr:
    """Add a bias (c,) to (n, c, *spatial)."""
    if bias is None:
        return result
    result = node.emit(result)
    channels, ones = result.ty.shape.values[1], [1] * (ndim - 2)
    node.require_equal(bias.shape[0], channels, "the number of biases")
    shaped = (
        node.value(bias.constant.reshape(1, -1, *ones)).expr
        if bias.constant is not None
        else node.emit(reshaped(bias.expr, [1, channels, *ones]))
    )
    return R.add(result, shaped)


def pad_spatial(node: Node, x: Expr, over: Windows, fill: float) -> Expr:
    """x (n, c, *spatial) with the windows' padding around it, which may be symbolic."""
    before, after = [0, 0, *over.before], [0, 0, *over.after]
    shape = list(x.ty.shape.values)
    target = [node.dims.simplify(d + b + a) for d, b, a in zip(shape, before, after, strict=True)]

    def compute(data: te.Tensor, goal: Any, low: Any) -> te.Tensor:
        def element(*i: Any) -> Any:
            moved = [k - b for k, b in zip(i, low, strict=True)]
            inside = [c for k, d in zip(moved[2:], data.shape[2:], strict=True) for c in (k >= 0, k < d)]
            return tirx.if_then_else(tirx.all(*inside), data(*moved), tirx.const(fill, data.dtype))

        return te.compute(list(goal), element, name="pad")

    return node.te(compute, x, shape_expr(target), shape_expr(before), name="pad_same")


@converter("ConvTranspose")
def conv_transpose(node: Node, x: Value, weight: Value, bias: Value | None = None) -> Expr:
    """The gradient of a convolution; output_shape and auto_pad are stated as padding and output padding."""
    kernel = [_kernel_size(node, dim) for dim in weight.shape[2:]]
    rank, groups = len(kernel), node.attr("group", 1)
    if rank not in _TRANSPOSE:
        raise node.unsupported(f"a transposed convolution over {rank} spatial dimensions is not supported; 1 to 3 are")
    node.require_equal(x.shape[1], weight.shape[0], "the number of channels")
    if static(weight.shape[0]) is None or static(weight.shape[1]) is None:
        raise node.unsupported(f"the weight has the symbolic shape {weight.shape}; its channels must be known")
    strides = node.attr("strides", None) or [1] * rank
    dilations = node.attr("dilations", None) or [1] * rank
    extra = node.attr("output_padding", None) or [0] * rank
    pads = node.attr("pads", None) or [0] * (2 * rank)
    auto, wanted = node.attr("auto_pad", "NOTSET"), node.attr("output_shape", None)
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    if wanted is not None or auto in ("SAME_UPPER", "SAME_LOWER"):
        pads = list(pads)
        for axis in range(rank):
            size = x.shape[2 + axis]
            goal = wanted[-rank:][axis] if wanted is not None else size * strides[axis]
            total = static(node.dims.simplify((size - 1) * strides[axis] + extra[axis] + extents[axis] - goal))
            if total is None:
                raise node.unsupported(
                    f"output_shape {wanted} does not fix the padding of the symbolic dimension {size}"
                )
            small = max(total, 0) // 2
            large = max(total, 0) - small
            extra = [e - min(total, 0) if a == axis else e for a, e in enumerate(extra)]
            pads[axis], pads[axis + rank] = (small, large) if auto == "SAME_UPPER" else (large, small)
    function, layout, kernel_layout = _TRANSPOSE[rank]
    cropped = [0] * (2 * rank)
    over = [0] * rank
    for axis in range(rank):  # TVM wants output_padding < stride; more than that is zeros, which a larger output makes
        if extra[axis] >= strides[axis]:
            over[axis], extra = extra[axis], [0 if a == axis else e for a, e in enumerate(extra)]
        if min(pads[axis], pads[axis + rank]) < 0 or max(pads[axis], pads[axis + rank]) > extents[axis] - 1:
            cropped[axis], cropped[axis + rank] = pads[axis], pads[axis + rank]
            pads = [0 if a in (axis, axis + rank) else p for a, p in enumerate(pads)]
    result = function(
        x.expr,
        weight.expr,
        strides=strides,
        padding=list(pads),
        output_padding=list(extra),
        dilation=dilations,
        groups=groups,
        data_layout=layout,
        kernel_layout=kernel_layout,
    )
    if any(over) or any(cropped):
        negative = Windows(
            kernel,
            strides,
            dilations,
            [-p for p in cropped[:rank]],
            [o - p for o, p in zip(over, cropped[rank:], strict=True)],
        )
        result = pad_spatial(node, node.emit(result), negative, 0.0)
    return with_bias(node, result, bias, x.ndim)
