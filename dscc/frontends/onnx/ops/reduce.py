"""Reductions, and what is found by sorting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import relax, te, tirx
from tvm.relax import Expr
from tvm.relax import op as R

from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.registry import converter
from dscc.frontends.onnx.shapes import shape_expr
from dscc.frontends.onnx.values import Value, is_float, static


def _axes(node: Node, x: Value, axes: Value | None) -> list[int]:
    """The axes to reduce; all of them where none are given, or none with noop_with_empty_axes."""
    given = node.attr("axes", None) if axes is None else [int(axis) for axis in node.numbers(axes, "the axes")]
    if not given:
        return [] if node.attr("noop_with_empty_axes", 0) else list(range(x.ndim))
    return sorted(node.axis(axis, x.ndim) for axis in given)


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


def _reduce(node: Node, function: Callable[..., Expr], data: Expr, axes: list[int], keep: bool) -> Expr:
    """Relax's maximum and minimum of booleans have no identity; as bytes they do."""
    if str(data.ty.dtype) == "bool":
        return R.astype(node.emit(function(node.emit(R.astype(data, "uint8")), axes, keep)), "bool")
    return function(data, axes, keep)


def _square(x: Expr) -> Expr:
    return R.multiply(x, x)


for _name, _convert in {
    "ReduceSum": _reduction(R.sum),
    "ReduceMean": _reduction(R.mean),
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
    top = node.emit(R.max(x.expr, where, keepdims=True))
    total = node.emit(R.sum(node.emit(R.exp(node.emit(R.subtract(x.expr, top)))), where, keepdims=True))
    result = node.emit(R.add(node.emit(R.log(total)), top))
    if node.attr("keepdims", 1):
        return node.value(result)
    return R.reshape(result, shape_expr([dim for axis, dim in enumerate(x.shape) if axis not in where]))


@converter("ArgMax")
def arg_max(node: Node, x: Value) -> Expr:
    return _arg_extreme(node, x, lambda candidate, best: candidate > best)


@converter("ArgMin")
def arg_min(node: Node, x: Value) -> Expr:
    return _arg_extreme(node, x, lambda candidate, best: candidate < best)


def _arg_extreme(node: Node, x: Value, better: Callable[[Any, Any], Any]) -> Expr:
    """The first index of the extreme, or the last with select_last_index; Relax's operators leave open which."""
    axis, last = node.axis(node.attr("axis", 0), x.ndim), node.attr("select_last_index", 0)
    keep = bool(node.attr("keepdims", 1))

    def compute(data: te.Tensor) -> te.Tensor:
        k = te.reduce_axis((0, data.shape[axis]), "k")
        shape = (
            [1 if a == axis else d for a, d in enumerate(data.shape)]
            if keep
            else [d for a, d in enumerate(data.shape) if a != axis]
        )

        def combine(a: Any, b: Any) -> Any:
            order = b[0] > a[0] if last else b[0] < a[0]
            take = tirx.any(
                a[0] < 0, tirx.all(b[0] >= 0, tirx.any(better(b[1], a[1]), tirx.all(tirx.EQ(b[1], a[1]), order)))
            )
            return tirx.Select(take, b[0], a[0]), tirx.Select(take, b[1], a[1])

        reducer = te.comm_reducer(combine, lambda ta, tb: (tirx.const(-1, ta), tirx.const(0, tb)), name="arg")

        def element(*i: Any) -> Any:
            at = [*i[:axis], k, *(i[axis + 1 :] if keep else i[axis:])]
            return reducer((tirx.Cast("int64", k), data(*at)), axis=k)

        return te.compute(shape, element, name="arg_extreme")[0]

    return node.te(compute, x.expr, name="arg_extreme")


@converter("TopK")
def top_k(node: Node, x: Value, k: Value | None = None) -> tuple[Expr, Expr]:
    """Values and indices; equal values keep their order."""
    count = node.required("k") if k is None else static(node.ints(k, "k", signed=False)[0])
    if count is None:
        raise node.unsupported("k is computed when the model runs; it must be constant")
    axis = node.axis(node.attr("axis", -1), x.ndim)
    data = x.expr if is_float(x.dtype) or x.dtype in ("int32", "int64") else node.emit(R.astype(x.expr, "int64"))
    both = node.emit(R.topk(data, count, axis, "both", bool(node.attr("largest", 1)), "int64"))
    values: Expr = relax.TupleGetItem(both, 0)
    return (values if data is x.expr else R.astype(node.emit(values), x.dtype)), relax.TupleGetItem(both, 1)
