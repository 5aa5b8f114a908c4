"""Slices: with bounds that are known, that are shapes, or that the model computes."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import te, tirx
from tvm.relax import Expr
from tvm.relax import op as R

from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.registry import converter
from dscc.frontends.onnx.shapes import equals, int64, reshaped, restate, shape_expr
from dscc.frontends.onnx.values import Dim, Value, static


@converter("Slice", since=1)
def slice_attributes(node: Node, x: Value) -> Expr | Value:
    """Bounds as attributes, up to opset 9."""
    starts, ends = node.required("starts"), node.required("ends")
    return _slice(node, x, starts, ends, node.attr("axes", None), None)


@converter("Slice", since=10)
def slice_inputs(
    node: Node, x: Value, starts: Value, ends: Value, axes: Value | None = None, steps: Value | None = None
) -> Expr | Value:
    if any(value is not None and value.data is None for value in (starts, ends, axes, steps)):
        return _computed(node, x, starts, ends, axes, steps)
    where = None if axes is None else [int(axis) for axis in node.numbers(axes, "the axes")]
    step = None if steps is None else [int(number) for number in node.numbers(steps, "the steps")]
    return _slice(node, x, node.ints(starts, "starts"), node.ints(ends, "ends"), where, step)


def _computed(node: Node, x: Value, starts: Value, ends: Value, axes: Value | None, steps: Value | None) -> Expr:
    """Bounds that the model computes: a kernel resolves them, so that only lengths, which are never negative, become
    symbols (TVM takes any symbol in a shape as not negative, and would drop the other case).
    """
    lists = [value for value in (starts, ends, axes, steps) if value is not None]
    lengths = {length for value in lists if (length := static(value.shape[0]) if value.ndim == 1 else -1) is not None}
    if len(lengths) != 1 or -1 in lengths:
        raise node.unsupported("starts, ends, axes and steps must be lists of one known length")
    (count,) = lengths
    # A list of open length, itself a slice of one element as in tf2onnx's CropAndResize, has that of the others.
    sized = [None if v is None else restate(node.bb, node.dims, v.expr, [count]) for v in (starts, ends, axes, steps)]
    every: list[Any] = [np.arange(count), np.ones(count, np.int64)]
    given = [node.value(every[k - 2]).expr if expr is None else expr for k, expr in enumerate(sized)]
    rank = x.ndim

    def plan(low: te.Tensor, high: te.Tensor, axis: te.Tensor, step: te.Tensor, sizes: Any) -> te.Tensor:
        def resolved(at: int) -> list[Any]:
            """First index, step and length along axis `at`; the whole of it where no axis of the node is `at`."""
            size = int64(sizes[at])
            found = [int64(0), int64(1), size]
            for k in range(count):
                by = tirx.Cast("int64", step(k))
                top = size - tirx.Select(by < 0, int64(1), int64(0))
                bottom = tirx.Select(by < 0, int64(-1), int64(0))
                first, last = (
                    tirx.max(tirx.min(tirx.Select(i < 0, i + size, i), top), bottom)
                    for i in (tirx.Cast("int64", low(k)), tirx.Cast("int64", high(k)))
                )
                stride = tirx.max(tirx.max(by, -by), 1)
                span = tirx.Select(by < 0, first - last, last - first)
                length = tirx.max(tirx.truncdiv(span + stride - 1, stride), 0)
                named = tirx.Cast("int64", axis(k))
                here = tirx.any(equals(named, at), equals(named, at - rank))
                new = (tirx.Select(length > 0, first, int64(0)), by, length)
                found = [tirx.Select(here, a, b) for a, b in zip(new, found, strict=True)]
            return found

        table = [resolved(at) for at in range(rank)]

        def element(row: Any, at: Any) -> Any:
            value: Any = int64(0)
            for k in range(3):
                for axis_ in range(rank):
                    value = tirx.Select(tirx.all(equals(row, k), equals(at, axis_)), table[axis_][k], value)
            return value

        return te.compute((int64(3), int64(rank)), element, name="slice_plan")

    made = node.emit(node.te(plan, *given, shape_expr(x.shape), name="slice_plan"))
    spans = node.value(reshaped(node.emit(R.strided_slice(made, [0], [2], [3])), [rank]), "length")
    shape = node.ints(spans, "the lengths", signed=False)

    def compute(data: te.Tensor, at: te.Tensor, target: Any) -> te.Tensor:
        return te.compute(
            list(target),
            lambda *i: data(*(at(0, axis) + k * at(1, axis) for axis, k in enumerate(i))),
            name="slice",
        )

    return node.te(compute, x.expr, made, shape_expr(shape), name="slice_computed")


def _slice(
    node: Node, x: Value, starts: list[Dim], ends: list[Dim], axes: list[int] | None, steps: list[int] | None
) -> Expr | Value:
    where = [node.axis(axis, x.ndim) for axis in (axes if axes is not None else range(len(starts)))]
    step = steps if steps is not None else [1] * len(starts)
    dims = node.dims
    begin, end = [], []
    for axis, low, high, by in zip(where, starts, ends, step, strict=True):
        size = x.shape[axis]
        if by > 0:
            first = dims.clamp(dims.wrapped(low, size), 0, size)
            begin.append(first)
            end.append(dims.maximum(dims.clamp(dims.wrapped(high, size), 0, size), first))
        elif by < 0:
            first = dims.clamp(dims.wrapped(low, size), -1, dims.simplify(size - 1))
            begin.append(first)
            last = dims.clamp(dims.wrapped(high, size), -1, dims.simplify(size - 1))  # far below 0: all the way down
            end.append(dims.minimum(last, first))
        else:
            raise node.error("a step is 0; it must be another number")
    if all(
        by == 1 and static(b) == 0 and dims.equal(e, x.shape[a])
        for a, b, e, by in zip(where, begin, end, step, strict=True)
    ):
        return x
    return strided(node, x.expr, where, begin, end, step)


def strided(node: Node, x: Expr, axes: list[int], begin: list[Dim], end: list[Dim], step: list[int]) -> Expr:
    """Elements from `begin`, which is inside, to before `end`; a kernel of ours where Relax's operator takes no such
    bounds.
    """
    if all(by > 0 for by in step) and all(
        static(b) is not None and static(e) is not None for b, e in zip(begin, end, strict=True)
    ):
        return R.strided_slice(x, axes, begin, end, step, assume_inbound=True)
    dims = node.dims
    shape: list[Dim] = list(x.ty.shape.values)
    offset: list[Dim] = [0] * len(shape)
    by_axis = [1] * len(shape)
    for axis, first, last, by in zip(axes, begin, end, step, strict=True):
        shape[axis] = dims.ceildiv(last - first, by) if by > 0 else dims.ceildiv(first - last, -by)
        offset[axis], by_axis[axis] = first, by

    def compute(data: te.Tensor, target: Any, start: Any) -> te.Tensor:
        return te.compute(
            list(target),
            lambda *i: data(*(s + k * by for s, k, by in zip(start, i, by_axis, strict=True))),
            name="slice",
        )

    return node.te(compute, x, shape_expr(shape), shape_expr(offset), name="slice")
