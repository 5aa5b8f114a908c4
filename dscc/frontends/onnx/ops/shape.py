"""Shapes as data, and tensors made from shapes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from tvm import te, tirx
from tvm.relax import Expr
from tvm.relax import op as R

from dscc.frontends.onnx import broadcast as rules
from dscc.frontends.onnx.axes import axes_of, inserted
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.registry import converter
from dscc.frontends.onnx.shapes import equals, int64, is_bare, reshaped, shape_expr
from dscc.frontends.onnx.values import Array, Dim, Value, element_type, is_float, scalar, static


@converter("Shape")
def shape(node: Node, x: Value) -> Value:
    start, end = node.attr("start", 0), node.attr("end", None)
    return node.symbolic(list(x.shape[slice(start, end)]))


@converter("Size")
def size(node: Node, x: Value) -> Value:
    return node.symbolic(node.dims.product(x.shape))


@converter("Constant")
def constant(node: Node) -> Array:
    for name, dtype in (
        ("value_float", np.float32),
        ("value_floats", np.float32),
        ("value_int", np.int64),
        ("value_ints", np.int64),
    ):
        if name in node.attributes:
            return np.array(node.attr(name), dtype=dtype)
    for name in ("value_string", "value_strings", "sparse_value"):
        if name in node.attributes:
            raise node.unsupported(f"'{name}' is not supported; only tensors of numbers are")
    value = node.required("value")
    element_type(node.attributes["value"].t.data_type, node.label)
    return value


@converter("Reshape", since=1)
def reshape(node: Node, x: Value, target: Value | None = None) -> Expr | Value:
    """To the shape `target`: 0 keeps a dimension (unless allowzero), -1 is what is left. The element count is
    checked.
    """
    dims = node.dims
    total = dims.product(x.shape)
    if target is not None and target.data is None:
        wanted = _resolve_at_run_time(node, x, target)
    else:
        wanted = list(node.required("shape") if target is None else node.ints(target, "the shape"))
        if not node.attr("allowzero", 0):
            if any(static(d) == 0 and axis >= x.ndim for axis, d in enumerate(wanted)):
                raise node.error(f"shape {wanted} keeps a dimension that the input of rank {x.ndim} does not have")
            wanted = [x.shape[axis] if static(d) == 0 else d for axis, d in enumerate(wanted)]
    inferred = [axis for axis, d in enumerate(wanted) if static(d) == -1]
    if len(inferred) > 1:
        raise node.error(f"shape {wanted} leaves more than one dimension open; at most one may be -1")
    if inferred:
        over, under = dims.cancelled(x.shape, (d for axis, d in enumerate(wanted) if axis != inferred[0]))
        if static(under) == 0:
            raise node.error(f"shape {wanted} has a 0, so that -1 has no value")
        left = dims.floordiv(over, under)
        wanted[inferred[0]] = left if static(under) is not None or is_bare(left) else node.name_dim(left, "left")
    node.require_equal(total, dims.product(wanted), f"the number of elements for shape {wanted}")
    if len(wanted) == x.ndim and all(dims.equal(a, b) for a, b in zip(wanted, x.shape, strict=True)):
        return x
    return reshaped(x.expr, wanted)


def _resolve_at_run_time(node: Node, x: Value, target: Value) -> list[Any]:
    """The dimensions that a computed shape asks for, where 0 keeps one and -1 is what is left.

    A kernel resolves both, and only the result becomes symbols: TVM takes any symbol in a shape as not negative, and
    would drop the case of -1.
    """
    count = static(target.shape[0]) if target.ndim == 1 else None
    if count is None:
        raise node.unsupported(f"the shape ('{target.name}') must be a list of known length, got shape {target.shape}")
    keeps = not node.attr("allowzero", 0)

    def compute(wanted: te.Tensor, sizes: Any) -> te.Tensor:
        asked: list[Any] = [tirx.Cast("int64", wanted(axis)) for axis in range(count)]
        if keeps:
            asked = [
                tirx.Select(equals(d, 0), int64(sizes[axis]), d) if axis < x.ndim else d for axis, d in enumerate(asked)
            ]
        total = math.prod(map(int64, sizes), start=int64(1))
        rest = math.prod((tirx.Select(equals(d, -1), int64(1), d) for d in asked), start=int64(1))
        left = tirx.truncdiv(total, tirx.max(rest, 1))

        def element(at: Any) -> Any:
            value: Any = int64(0)
            for axis, d in enumerate(asked):
                value = tirx.Select(equals(at, axis), tirx.Select(equals(d, -1), left, tirx.max(d, 0)), value)
            return value

        return te.compute((int64(count),), element, name="reshape_plan")

    resolved = node.te(compute, target.expr, shape_expr(x.shape), name="reshape_plan")
    return node.ints(node.value(resolved, target.name), "the shape", signed=False)


@converter("Flatten")
def flatten(node: Node, x: Value) -> Expr:
    axis = node.attr("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return reshaped(x.expr, [node.dims.product(x.shape[:axis]), node.dims.product(x.shape[axis:])])


def given_axes(node: Node, axes: Value | None, rank: int) -> list[Dim] | None:
    """Axes from the attribute (up to opset 12) or the input; symbols where the model computes them."""
    if axes is not None:
        return axes_of(node, axes, rank)
    given = node.attr("axes", None)
    return None if given is None else [node.axis(axis, rank) for axis in given]


@converter("Unsqueeze")
def unsqueeze(node: Node, x: Value, axes: Value | None = None) -> Expr | Value:
    count = len(node.attr("axes", [])) if axes is None else static(node.dims.product(axes.shape))
    if count is None:
        raise node.error(f"the axes ('{axes.name if axes else ''}') must be a list of known length")
    where = given_axes(node, axes, x.ndim + count) or []
    if not all(isinstance(axis, int) for axis in where):
        return reshaped(x.expr, inserted(node, x.shape, where))
    return R.expand_dims(x.expr, sorted(where)) if where else x


@converter("Expand")
def expand(node: Node, x: Value, target: Value) -> Expr:
    return rules.expand(node, x, node.ints(target, "the shape", signed=False))


@converter("ConstantOfShape")
def constant_of_shape(node: Node, target: Value) -> Value:
    value = node.attr("value", np.zeros(1, np.float32))
    fill = node.value(value.reshape(()))
    shape = shape_expr(node.ints(target, "the shape", signed=False))
    # For an infinite number or NaN, topi.full of TVM 0.27 looks for "float" in an element type that is no text.
    infinite = is_float(fill.dtype) and not np.isfinite(value.astype(np.float64)).all()
    made = R.broadcast_to(fill.expr, shape) if infinite else R.full(shape, fill.expr, fill.dtype)
    return node.retype(made, fill.element)


@converter("Range")
def arange(node: Node, start: Value, limit: Value, delta: Value) -> Expr:
    """Whole numbers over symbolic bounds; for computed floats only the length is read from the tensors."""
    if not is_float(start.dtype) and any(value.data is None for value in (start, limit, delta)):
        return _computed_range(node, start, limit, delta)
    if not is_float(start.dtype):
        a, b, d = (node.ints(value, what)[0] for value, what in ((start, "start"), (limit, "limit"), (delta, "delta")))
        if static(d) == 0:
            raise node.error("delta is 0; it must be another number")
        return _whole_range(node, a, b, d, start.dtype)
    span = node.emit(R.divide(R.subtract(limit.expr, start.expr), delta.expr))
    known = [value.constant for value in (start, limit, delta)]
    if any(each is not None and not np.isfinite(each.astype(np.float64)).all() for each in known):
        raise node.error("its bounds and its step are no finite numbers")
    # Of infinite bounds there is not enough memory for what is asked for, rather than a number that turns negative.
    asked = node.emit(R.minimum(node.emit(R.ceil(span)), scalar(2.0**40, start.dtype)))
    length = node.emit(R.where(R.greater(span, scalar(0, start.dtype)), asked, scalar(0, start.dtype)))
    count = node.ints(node.value(R.astype(length, "int64"), "count"), "the length", signed=False)[0]
    steps = node.emit(R.astype(node.emit(_whole_range(node, 0, count, 1, "int64")), start.dtype))
    return R.add(start.expr, node.emit(R.multiply(steps, delta.expr)))


def _computed_range(node: Node, start: Value, limit: Value, delta: Value) -> Expr:
    """Only the length becomes a symbol; the other numbers may be negative, as a symbol may not."""

    def whole(value: te.Tensor) -> Any:
        return tirx.Cast("int64", value(*[0] * len(value.shape)))

    def count(first: te.Tensor, last: te.Tensor, by: te.Tensor) -> te.Tensor:
        step = whole(by)
        span = tirx.Select(step < 0, whole(first) - whole(last), whole(last) - whole(first))
        stride = tirx.max(tirx.max(step, -step), 1)
        length = tirx.max(tirx.truncdiv(span + stride - 1, stride), 0)
        return te.compute((int64(1),), lambda _: length, name="range_length")

    def fill(first: te.Tensor, by: te.Tensor, shape: Any) -> te.Tensor:
        return te.compute(list(shape), lambda i: tirx.Cast(start.dtype, whole(first) + i * whole(by)), name="range")

    length = node.value(node.te(count, start.expr, limit.expr, delta.expr, name="range_length"), "length")
    shape = shape_expr(node.ints(length, "the length", signed=False))
    return node.te(fill, start.expr, delta.expr, shape, name="range_computed")


def _whole_range(node: Node, start: Any, limit: Any, delta: Any, dtype: str) -> Expr:
    if static(delta) is None:
        rounded = tirx.Select(
            int64(delta) > 0, (limit - start + delta - 1) // delta, (start - limit - delta - 1) // (-delta)
        )
        length = node.dims.simplify(tirx.max(rounded, 0))
    else:
        length = node.dims.maximum(
            node.dims.ceildiv(limit - start, delta) if delta > 0 else node.dims.ceildiv(start - limit, -delta), 0
        )
    if static(start) == 0 and static(delta) == 1:
        return R.arange(0, length, 1, dtype)

    def compute(bounds: Any) -> te.Tensor:
        count, first, step = bounds
        return te.compute((count,), lambda i: tirx.Cast(dtype, first + i * step), name="range")

    return node.te(compute, shape_expr([length, start, delta]), name="range")


@converter("EyeLike")
def eye_like(node: Node, x: Value) -> Expr:
    code = node.attr("dtype", 0)
    dtype = element_type(code, node.label) if code else x.dtype
    offset = node.attr("k", 0)
    return node.te(
        lambda data: te.compute(data.shape, lambda i, j: tirx.Cast(dtype, equals(j - i, offset)), name="eye"),
        x.expr,
        name="eye_like",
    )
