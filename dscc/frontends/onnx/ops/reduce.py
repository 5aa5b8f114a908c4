"""Reductions, and what is found by sorting."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tvm import relax, te
from tvm.relax import Expr
from tvm.relax import op as R

from dscc import library
from dscc.frontends.onnx.axes import axes_of, reduce_along, view
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.ops.detection import as_type
from dscc.frontends.onnx.registry import converter
from dscc.frontends.onnx.shapes import reshaped, shape_expr
from dscc.frontends.onnx.values import Dim, Value, is_float, scalar, static


def _axes(node: Node, x: Value, axes: Value | None) -> list[Dim]:
    """The axes to reduce, symbols among them; all where none are given, or none with noop_with_empty_axes."""
    if axes is None:
        given: list[Dim] = [node.axis(axis, x.ndim) for axis in node.attr("axes", list[int]())]
    else:
        given = axes_of(node, axes, x.ndim)
    if not given:
        return [] if node.attr("noop_with_empty_axes", 0) else list(range(x.ndim))
    return sorted(given) if _known(given) else given


def _known(axes: list[Dim]) -> bool:
    return all(isinstance(axis, int) for axis in axes)


def _reduction(
    function: Callable[..., Expr],
    before: Callable[[Expr], Expr] | None = None,
    after: Callable[[Expr], Expr] | None = None,
) -> Callable[..., Any]:
    def convert(node: Node, x: Value, axes: Value | None = None) -> Expr | Value:
        where = _axes(node, x, axes)
        data = node.emit(before(x.expr)) if before else x.expr
        keep = bool(node.attr("keepdims", 1))
        if where:
            data = node.emit(_reduce(node, function, data, where, keep))
        return after(data) if after else node.value(data)

    return convert


def _reduce(node: Node, function: Callable[..., Expr], data: Expr, axes: list[Dim], keep: bool) -> Expr:
    """Relax's maximum and minimum of booleans have no identity; as bytes they do."""
    if str(data.ty.dtype) == "bool":
        return R.astype(node.emit(_reduce(node, function, node.emit(R.astype(data, "uint8")), axes, keep)), "bool")
    if _known(axes):
        return function(data, axes, keep)
    return reduce_along(node, data, axes, keep, lambda seen: function(seen, [1], True))


def _square(x: Expr) -> Expr:
    return R.multiply(x, x)


def _mean(data: Expr, axes: list[int], keep: bool) -> Expr:
    """TVM divides by the number of elements while compiling, also by none; the mean of those is no number."""
    if any(static(data.ty.shape[axis]) == 0 for axis in axes) and is_float(str(data.ty.dtype)):
        return R.multiply(R.sum(data, axes, keep), scalar(math.nan, str(data.ty.dtype)))
    return R.mean(data, axes, keep)


for _name, _convert in {
    "ReduceSum": _reduction(R.sum),
    "ReduceMean": _reduction(_mean),
    "ReduceMax": _reduction(R.max),
    "ReduceMin": _reduction(R.min),
    "ReduceProd": _reduction(R.prod),
    "ReduceL1": _reduction(R.sum, before=R.abs),
    "ReduceL2": _reduction(R.sum, before=_square, after=R.sqrt),
    "ReduceSumSquare": _reduction(R.sum, before=_square),
    "ReduceLogSum": _reduction(R.sum, after=R.log),
}.items():
    converter(_name)(_convert)


@converter("ReduceLogSumExp")
def reduce_log_sum_exp(node: Node, x: Value, axes: Value | None = None) -> Expr | Value:
    """max + log(sum(exp(x - max))), which does not overflow."""
    where = _axes(node, x, axes)
    if not where:
        return x
    keep = bool(node.attr("keepdims", 1))
    if not _known(where):
        return node.value(reduce_along(node, x.expr, where, keep, lambda seen: _log_sum_exp(node, seen, [1])))
    result = _log_sum_exp(node, x.expr, where)
    if keep:
        return node.value(result)
    return reshaped(result, [dim for axis, dim in enumerate(x.shape) if axis not in where])


def _log_sum_exp(node: Node, x: Expr, axes: list[Dim]) -> Expr:
    """An infinite maximum is not taken off: infinity less itself is no number."""
    top = node.emit(R.max(x, axes, keepdims=True))
    dtype = str(x.ty.dtype)
    shift = node.emit(R.where(node.emit(R.isfinite(top)), top, scalar(0, dtype)))
    total = node.emit(R.sum(node.emit(R.exp(node.emit(R.subtract(x, shift)))), axes, keepdims=True))
    return node.emit(R.add(node.emit(R.log(total)), shift))


@converter("ArgMax")
def arg_max(node: Node, x: Value) -> Expr:
    return _arg_extreme(node, x, R.argmax)


@converter("ArgMin")
def arg_min(node: Node, x: Value) -> Expr:
    return _arg_extreme(node, x, R.argmin)


def _arg_extreme(node: Node, x: Value, operator: Callable[..., Expr]) -> Expr:
    """The first index of the extreme, or the last with select_last_index: the first of the elements turned around."""
    axis, keep = node.axis(node.attr("axis", 0), x.ndim), bool(node.attr("keepdims", 1))
    if not node.attr("select_last_index", 0):
        return node.emit(operator(x.expr, axis, keep))
    found = node.emit(operator(node.emit(R.flip(x.expr, axis)), axis, keep))

    def compute(at: te.Tensor, data: te.Tensor) -> te.Tensor:
        return te.compute(at.shape, lambda *i: data.shape[axis] - 1 - at(*i), name="last")

    return node.te(compute, found, x.expr, name="last")


@converter("TopK")
def top_k(node: Node, x: Value, k: Value | None = None) -> tuple[Expr, Expr]:
    """Values and indices; equal values keep their order."""
    count = node.required("k") if k is None else node.ints(k, "k", signed=False)[0]
    axis = node.axis(node.attr("axis", -1), x.ndim)
    if static(count) is None or x.dtype == "uint64":
        return _computed_top_k(node, x, count, axis)
    data = x.expr if is_float(x.dtype) or x.dtype in ("int32", "int64") else node.emit(R.astype(x.expr, "int64"))
    both = node.emit(R.topk(data, int(count), axis, "both", bool(node.attr("largest", 1)), "int64"))
    values: Expr = relax.TupleGetItem(both, 0)
    return (values if data is x.expr else R.astype(node.emit(values), x.dtype)), relax.TupleGetItem(both, 1)


def _computed_top_k(node: Node, x: Value, count: Dim, axis: int) -> tuple[Expr, Expr]:
    """For a k that the model computes; also for numbers that TVM's sort does not hold."""
    lines = view(node, x.expr, axis)
    keys = as_type(node, lines, "float32") if x.dtype in ("float16", "bfloat16") else lines
    before, _, after = lines.ty.shape.values
    shape = [*x.shape[:axis], count, *x.shape[axis + 1 :]]
    kind = relax.TensorType(shape_expr([before, count, after]), "int64")
    at = node.emit(library.call("top_k", [keys, shape_expr([count, node.attr("largest", 1)])], kind))

    def pick(data: te.Tensor, where: te.Tensor) -> te.Tensor:
        return te.compute(where.shape, lambda b, i, a: data(b, where(b, i, a), a), name="pick")

    values = node.emit(node.te(pick, lines, at, name="top_values"))
    return reshaped(values, shape), reshaped(at, shape)


@converter("Unique")
def unique(node: Node, x: Value) -> tuple[Expr, ...]:
    """The distinct elements, or slices along `axis`; of each where it is first, for each which it is, and counts."""
    axis = node.attr("axis", None)
    if axis is None:
        where = 0
        flat = node.emit(reshaped(x.expr, [node.dims.product(x.shape)]))
    else:
        where, flat = node.axis(axis, x.ndim), x.expr
    lines = view(node, flat, where)
    keys = as_type(node, lines, "float32") if x.dtype in ("float16", "bfloat16") else lines
    if x.dtype == "bool":
        keys = as_type(node, lines, "uint8")
    length, distinct = lines.ty.shape.values[1], node.dims.symbol("distinct", 0)
    unknown = [relax.TensorType(ndim=1, dtype="int64")] * 3
    known = [relax.TensorType(shape_expr([size]), "int64") for size in (distinct, length, distinct)]
    found = library.call("unique", [keys, shape_expr([node.attr("sorted", 1)])], relax.TupleType(unknown))
    parts = node.bb.match_cast(node.bb.emit(found), relax.TupleType(known))
    first, inverse, counts = (node.emit(relax.TupleGetItem(parts, index)) for index in range(3))
    return R.take(flat, first, where, mode="clip"), first, inverse, counts
