"""Padding, by amounts that are known, that are shapes, or that the model computes; negative ones crop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import te, tirx
from tvm.relax import Expr
from tvm.relax import op as R

from dscc.frontends.onnx.axes import axes_of
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.registry import converter
from dscc.frontends.onnx.shapes import equals, int64, shape_expr
from dscc.frontends.onnx.values import Dim, Value, is_float, scalar, static


@converter("Pad", since=1)
def pad_attributes(node: Node, x: Value) -> Expr:
    """Amounts as attributes, up to opset 10."""
    pads = node.attr("pads", None) or node.required("paddings")
    return _pad(node, x, pads, scalar(node.attr("value", 0.0), x.dtype), node.attr("value", 0.0))


@converter("Pad", since=11)
def pad_inputs(
    node: Node, x: Value, pads: Value, value: Value | None = None, axes: Value | None = None
) -> Expr | Value:
    if pads.data is None or (axes is not None and axes.constant is None):
        return _pad_computed(node, x, pads, value, axes)
    amounts = node.ints(pads, "the pads")
    if axes is not None:
        where = [node.axis(int(axis), x.ndim) for axis in node.numbers(axes, "the axes")]
        if len(amounts) != 2 * len(where):
            raise node.error(f"the pads are {len(amounts)} numbers for {len(where)} axes; they must be twice as many")
        full: list[Dim] = [0] * (2 * x.ndim)
        for index, axis in enumerate(where):
            full[axis], full[axis + x.ndim] = amounts[index], amounts[index + len(where)]
        amounts = full
    if len(amounts) != 2 * x.ndim:
        raise node.error(f"the pads are {len(amounts)} numbers; rank {x.ndim} has {2 * x.ndim}")
    if all(static(amount) == 0 for amount in amounts):
        return x
    known = 0.0 if value is None else value.constant.item() if value.constant is not None else None
    return _pad(node, x, amounts, _fill(node, x, value), known)


def _fill(node: Node, x: Value, value: Value | None) -> Expr:
    """What is put outside, of rank 0."""
    if value is None:
        return scalar(0, x.dtype)
    return node.single(value, "the value that is put outside")


def _pad_computed(node: Node, x: Value, pads: Value, value: Value | None, axes: Value | None) -> Expr:
    """Amounts that the model computes, perhaps negative ones: only the result's shape becomes symbols, which TVM
    takes as not negative.
    """
    where = axes_of(node, axes, x.ndim) if axes is not None else list(range(x.ndim))

    def amount(data: te.Tensor, given: Any, axis: int, end: int) -> Any:
        """By how much `axis` grows at its end 0 or 1; `given` are the axes that the amounts are for."""
        total: Any = int64(0)
        for at, each in enumerate(given):
            by = tirx.Cast("int64", data(at + end * len(where)))
            if static(each) is None:
                total = total + tirx.Select(equals(each, axis), by, int64(0))
            elif static(each) == axis:
                total = total + by
        return total

    def plan(data: te.Tensor, sizes: Any, given: Any) -> te.Tensor:
        def element(at: Any) -> Any:
            length: Any = int64(0)
            for axis, size in enumerate(sizes):
                grown = int64(size) + amount(data, given, axis, 0) + amount(data, given, axis, 1)
                padded = tirx.max(grown, 0)
                length = tirx.Select(equals(at, axis), padded, length)
            return length

        return te.compute((int64(x.ndim),), element, name="pad_plan")

    lengths = node.value(node.te(plan, pads.expr, shape_expr(x.shape), shape_expr(where), name="pad_plan"), "length")
    shape = node.ints(lengths, "the lengths", signed=False)
    mode = _mode(node)
    _require_elements(node, mode, x, shape)

    def compute(data: te.Tensor, fill: te.Tensor, by: te.Tensor, target: Any, given: Any) -> te.Tensor:
        def element(*index: Any) -> Any:
            moved = [i - amount(by, given, axis, 0) for axis, i in enumerate(index)]
            if mode != "constant":
                return data(*(_source(mode, i, d) for i, d in zip(moved, data.shape, strict=True)))
            inside = [c for i, d in zip(moved, data.shape, strict=True) for c in (i >= 0, i < d)]
            return tirx.if_then_else(tirx.all(*inside), data(*moved), fill())

        return te.compute(list(target), element, name="pad")

    extents = [shape_expr(shape), shape_expr(where)]
    return node.te(compute, x.expr, _fill(node, x, value), pads.expr, *extents, name="pad_computed")


def _mode(node: Node) -> str:
    mode = node.attr("mode", "constant")
    if mode not in ("constant", "edge", "reflect", "wrap"):
        raise node.error(f"mode is '{mode}'; supported: constant, edge, reflect, wrap")
    return mode


def _pad(node: Node, x: Value, pads: list[Dim], fill: Expr, known: float | None) -> Expr:
    mode = _mode(node)
    before, after = pads[: x.ndim], pads[x.ndim :]
    fixed = all(static(amount) is not None and int(amount) >= 0 for amount in pads)
    if mode == "constant" and fixed and known is not None and is_float(x.dtype):
        return R.nn.pad(
            x.expr, [int(amount) for pair in zip(before, after, strict=True) for amount in pair], pad_value=float(known)
        )
    shape = [node.dims.simplify(d + b + a) for d, b, a in zip(x.shape, before, after, strict=True)]
    _require_elements(node, mode, x, shape)

    def compute(data: te.Tensor, value: te.Tensor, target: Any, low: Any) -> te.Tensor:
        def element(*index: Any) -> Any:
            moved = [i - b for i, b in zip(index, low, strict=True)]
            if mode != "constant":
                return data(*(_source(mode, i, d) for i, d in zip(moved, data.shape, strict=True)))
            outside = [i for i, d, t in zip(moved, data.shape, target, strict=True) if not d.same_as(t)]
            inside = [
                c for i, d, t in zip(moved, data.shape, target, strict=True) if i in outside for c in (i >= 0, i < d)
            ]
            return tirx.if_then_else(tirx.all(*inside), data(*moved), value()) if inside else data(*moved)

        return te.compute(list(target), element, name="pad")

    return node.te(compute, x.expr, fill, shape_expr(shape), shape_expr(before), name=f"pad_{mode}")


def _require_elements(node: Node, mode: str, x: Value, shape: Sequence[Dim]) -> None:
    """Where what is put outside comes from the inside, there has to be an inside."""
    for axis, (size, wanted) in enumerate(zip(x.shape, shape, strict=True)):
        if mode != "constant" and not node.dims.equal(size, wanted):
            least = node.dims.minimum(wanted, 1)
            node.require_at_least(size, least, f"dimension {axis}, which mode '{mode}' takes values from,")


def _source(mode: str, i: Any, size: Any) -> Any:
    """The index inside that an index outside stands for."""
    if mode == "edge":
        return tirx.max(tirx.min(i, size - 1), 0)
    if mode == "wrap":
        return i % size
    period = tirx.max(2 * size - 2, 1)
    folded = i % period
    return (
        tirx.min(folded, 2 * size - 2 - folded + tirx.Select(equals(size, 1), int64(1), int64(0)))
        if static(size) != 1
        else 0
    )
