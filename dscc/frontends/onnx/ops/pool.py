"""Pooling. Relax's operators where their meaning is ONNX's, else a window of our own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import relax, te, tirx
from tvm.relax import Expr
from tvm.relax import op as R

from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.registry import converter
from dscc.frontends.onnx.shapes import reshaped, shape_expr
from dscc.frontends.onnx.values import Dim, Value, is_float, numpy_dtype, scalar, static
from dscc.frontends.onnx.windows import Windows, windows

_LAYOUTS = {1: "NCW", 2: "NCHW", 3: "NCDHW"}
_MAX = {1: R.nn.max_pool1d, 2: R.nn.max_pool2d, 3: R.nn.max_pool3d}
_AVERAGE = {1: R.nn.avg_pool1d, 2: R.nn.avg_pool2d, 3: R.nn.avg_pool3d}


@converter("GlobalAveragePool")
def global_average_pool(node: Node, x: Value) -> Expr:
    return R.mean(x.expr, list(range(2, x.ndim)), keepdims=True)


@converter("GlobalMaxPool")
def global_max_pool(node: Node, x: Value) -> Expr:
    return R.max(x.expr, list(range(2, x.ndim)), keepdims=True)


@converter("GlobalLpPool")
def global_lp_pool(node: Node, x: Value) -> Expr:
    return _norm(node, x, node.attr("p", 2), lambda powers: R.sum(powers, list(range(2, x.ndim)), keepdims=True))


def _norm(node: Node, x: Value, p: int, total: Any) -> Expr:
    absolute = node.emit(R.abs(x.expr))
    powers = node.emit(R.power(absolute, scalar(p, x.dtype)))
    return R.power(node.emit(total(powers)), scalar(1 / p, x.dtype))


@converter("MaxPool")
def max_pool(node: Node, x: Value) -> Expr | tuple[Expr, Expr]:
    over = windows(node, node.required("kernel_shape"), x.shape[2:])
    if len(node.proto.output) > 1 and node.proto.output[1]:
        return _max_pool_with_indices(node, x, over)
    return _pool(node, x, over, "max")


@converter("AveragePool")
def average_pool(node: Node, x: Value) -> Expr:
    return _pool(node, x, windows(node, node.required("kernel_shape"), x.shape[2:]), "avg")


@converter("LpPool")
def lp_pool(node: Node, x: Value) -> Expr:
    over = windows(node, node.required("kernel_shape"), x.shape[2:])
    return _norm(node, x, node.attr("p", 2), lambda powers: _window(node, powers, over, "sum", _output(node, x, over)))


def _output(node: Node, x: Value, over: Windows) -> list[Dim]:
    """The output's spatial dimensions. With ceil_mode a last window counts if it starts inside the input or its
    leading padding.
    """
    result = []
    for axis, size in enumerate(x.shape[2:]):
        span = node.dims.simplify(size + over.before[axis] + over.after[axis] - over.extent(axis))
        stride = over.strides[axis]
        if not node.attr("ceil_mode", 0):
            result.append(node.dims.simplify(span // stride + 1))
            continue
        count = node.dims.simplify(node.dims.ceildiv(span, stride) + 1)
        started = node.dims.ceildiv(size + over.before[axis], stride)
        result.append(node.dims.minimum(count, started))
    return result


def _covers(over: Windows, spatial: Sequence[Dim], output: Sequence[Dim]) -> bool:
    """Whether there is one window, over all of the data and no padding; under ceil_mode it may reach beyond."""
    sizes = [static(size) or 0 for size in spatial]
    reached = all(0 < size <= kernel for size, kernel in zip(sizes, over.kernel, strict=True))
    single = all(static(count) == 1 for count in output)
    return reached and single and not any(over.padding or [1]) and set(over.dilations) == {1}


def _pool(node: Node, x: Value, over: Windows, kind: str) -> Expr:
    rank, padding, output = len(over.kernel), over.padding, _output(node, x, over)
    if is_float(x.dtype) and _covers(over, x.shape[2:], output):
        return (R.max if kind == "max" else R.mean)(x.expr, list(range(2, x.ndim)), keepdims=True)
    include = bool(node.attr("count_include_pad", 0))
    plain = rank in _LAYOUTS and padding is not None and not node.attr("ceil_mode", 0) and is_float(x.dtype)
    if plain and all(pad < over.kernel[i % rank] for i, pad in enumerate(padding or [])):
        arguments = {
            "pool_size": over.kernel,
            "strides": over.strides,
            "padding": padding,
            "dilation": over.dilations,
            "layout": _LAYOUTS[rank],
        }
        if kind == "max":
            return _MAX[rank](x.expr, **arguments)
        if all(d == 1 for d in over.dilations):
            return _AVERAGE[rank](x.expr, **arguments, count_include_pad=include)
    return _window(node, x.expr, over, kind, output, include)


def _window(node: Node, x: Expr, over: Windows, kind: str, spatial: list[Dim], include: bool = False) -> Expr:
    """Reduce each window by "max", "sum" or "avg", for any rank, padding, dilation and ceil_mode.

    The divisor of "avg" counts the elements inside the input or, with `include`, also those in its padding.
    """
    rank = len(over.kernel)
    shape = [*x.ty.shape.values[:2], *spatial]

    def compute(data: te.Tensor, goal: Any, low: Any, high: Any) -> te.Tensor:
        sizes = data.shape[2:]
        axes = [te.reduce_axis((0, k), f"k{i}") for i, k in enumerate(over.kernel)]
        lowest = tirx.min_value(data.dtype) if kind == "max" else tirx.const(0, data.dtype)

        def source(i: tuple[Any, ...]) -> list[Any]:
            return [i[2 + a] * over.strides[a] + axes[a] * over.dilations[a] - low[a] for a in range(rank)]

        def within(at: list[Any], margins: bool) -> Any:
            return tirx.all(
                *(
                    c
                    for k, d, b, e in zip(at, sizes, low, high, strict=True)
                    for c in ((k >= -b, k < d + e) if margins else (k >= 0, k < d))
                )
            )

        def element(*i: Any) -> Any:
            at = source(i)
            value = tirx.if_then_else(within(at, False), data(*i[:2], *at), lowest)
            return te.max(value, axis=axes) if kind == "max" else te.sum(value, axis=axes)

        reduced = te.compute(list(goal), element, name=f"pool_{kind}")
        if kind != "avg":
            return reduced

        def divisor(*i: Any) -> Any:
            return te.sum(
                tirx.Select(within(source((0, 0, *i)), include), tirx.const(1, data.dtype), tirx.const(0, data.dtype)),
                axis=axes,
            )

        count = te.compute(list(goal)[2:], divisor, name="pool_count")
        return te.compute(list(goal), lambda *i: reduced(*i) / count(*i[2:]), name="pool_avg")

    return node.te(compute, x, shape_expr(shape), shape_expr(over.before), shape_expr(over.after), name=f"pool_{kind}")


def _max_pool_with_indices(node: Node, x: Value, over: Windows) -> tuple[Expr, Expr]:
    """Also the index of each maximum in the flattened input (row-major, or column-major with storage_order=1)."""
    spatial = _output(node, x, over)
    shape = [*x.shape[:2], *spatial]
    rank, column_major = len(over.kernel), node.attr("storage_order", 0)

    def compute(data: te.Tensor, goal: Any, low: Any) -> list[te.Tensor]:
        sizes = data.shape[2:]
        axes = [te.reduce_axis((0, k), f"k{i}") for i, k in enumerate(over.kernel)]

        def combine(a: Any, b: Any) -> Any:
            better = tirx.any(b[1] > a[1], tirx.all(tirx.EQ(b[1], a[1]), b[0] < a[0]))
            return tirx.Select(better, b[0], a[0]), tirx.Select(better, b[1], a[1])

        reducer = te.comm_reducer(combine, lambda ta, tb: (tirx.const(2**62, ta), tirx.min_value(tb)), name="argmax")

        def element(*i: Any) -> Any:
            at = [i[2 + a] * over.strides[a] + axes[a] * over.dilations[a] - low[a] for a in range(rank)]
            inside = tirx.all(*(c for k, d in zip(at, sizes, strict=True) for c in (k >= 0, k < d)))
            index: Any = i[0] * data.shape[1] + i[1]
            if column_major:
                flat: Any = at[-1]
                for a in reversed(range(rank - 1)):
                    flat = flat * sizes[a] + at[a]
                for d in sizes:
                    index = index * d
                index = index + flat
            else:
                for a in range(rank):
                    index = index * sizes[a] + at[a]
            value = tirx.if_then_else(inside, data(*i[:2], *at), tirx.min_value(data.dtype))
            return reducer((tirx.Select(inside, index, tirx.const(2**62, "int64")), value), axis=axes)

        indices, values = te.compute(list(goal), element, name="max_pool")
        return [values, indices]

    both = node.emit(node.te(compute, x.expr, shape_expr(shape), shape_expr(over.before), name="max_pool_indices"))
    return relax.TupleGetItem(both, 0), relax.TupleGetItem(both, 1)


@converter("MaxUnpool")
def max_unpool(node: Node, x: Value, indices: Value, output_shape: Value | None = None) -> Expr:
    kernel = node.required("kernel_shape")
    strides = node.attr("strides", None) or [1] * len(kernel)
    pads = node.attr("pads", None) or [0] * (2 * len(kernel))
    if output_shape is not None:
        shape = node.ints(output_shape, "the output shape", signed=False)
    else:
        sizes = [
            node.dims.simplify((d - 1) * s + k - pads[a] - pads[a + len(kernel)])
            for a, (d, s, k) in enumerate(zip(x.shape[2:], strides, kernel, strict=True))
        ]
        shape = [*x.shape[:2], *sizes]
    inferred = [*x.shape[:2], *((d - 1) * s + k for d, s, k in zip(x.shape[2:], strides, kernel, strict=True))]
    if any(static(a) != static(b) for a, b in zip(shape, inferred, strict=True)) and any(pads):
        raise node.unsupported("an output_shape together with pads is not supported; give one of them")
    # Indices count in the tensor as it was before pooling, whose shape is the one without output_shape.
    flat = node.emit(
        R.full(shape_expr([node.dims.product(inferred)]), scalar(numpy_dtype(x.dtype).type(0), x.dtype), x.dtype)
    )
    count = node.dims.product(x.shape)
    at, values = node.emit(reshaped(indices.expr, [count])), node.emit(reshaped(x.expr, [count]))
    full = node.emit(reshaped(node.emit(R.scatter_elements(flat, at, values, 0)), inferred))
    if all(node.dims.equal(a, b) for a, b in zip(shape, inferred, strict=True)):
        return full
    grown = Windows(
        kernel,
        strides,
        [1] * len(kernel),
        [0] * len(kernel),
        [node.dims.simplify(a - b) for a, b in zip(shape[2:], inferred[2:], strict=True)],
    )
    from dscc.frontends.onnx.ops.conv import pad_spatial

    return pad_spatial(node, full, grown, 0.0)
