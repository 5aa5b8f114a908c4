"""Axes that the model computes when it runs.

The rank of a tensor is known, and so is the number of axes; only which ones is not. So an axis becomes a symbol from 0
to rank - 1, and what depends on it becomes arithmetic on dimensions:

    x (d0, d1, d2), axis a   ->   x as (before, size, after), where size = d_a, for any operator along one axis

Several axes are one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import prod
from typing import Any

from tvm import te, tirx
from tvm.relax import Expr

from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.shapes import equals, int64, reshaped
from dscc.frontends.onnx.values import Dim, Value


def axes_of(node: Node, axes: Value, rank: int, what: str = "the axes") -> list[Dim]:
    """Axes from 0 to rank - 1, of a scalar or a list: numbers where they are known, else symbols that are checked when
    the model runs.
    """
    if axes.constant is not None:
        return [node.axis(int(axis), rank) for axis in axes.constant.reshape(-1).tolist()]

    def wrapped(given: te.Tensor) -> te.Tensor:
        """An axis that is too small becomes one that is too large: symbols are never negative."""

        def element(*i: Any) -> Any:
            axis = tirx.Cast("int64", given(*i))
            axis = tirx.Select(axis < 0, axis + rank, axis)
            return tirx.Select(axis < 0, int64(rank), axis)

        return te.compute(given.shape, element, name="wrap_axes")

    inside = node.value(node.te(wrapped, axes.expr, name="wrap_axes"), axes.name)
    symbols = node.ints(inside, what, signed=False)
    for symbol in symbols:
        node.require_equal(node.dims.minimum(symbol, max(rank - 1, 0)), symbol, what)
    return symbols


def _plan(node: Node, shape: Sequence[Dim], axes: Sequence[Dim], count: int, element: Callable[..., Any]) -> list[Dim]:
    """`count` dimensions as symbols: element(at, sizes, axes) is the one at a position, from numbers in tensors.

    They are computed by a kernel: as formulas of dimensions, that TVM simplifies and compares everywhere, they take it
    minutes.
    """

    def compute(sizes: te.Tensor, given: te.Tensor) -> te.Tensor:
        each = [sizes(i) for i in range(len(shape))], [given(i) for i in range(len(axes))]
        dims = [element(at, *each) for at in range(count)]

        def dim(at: Any) -> Any:
            return sum((_select(equals(at, i), each, 0) for i, each in enumerate(dims)), start=int64(0))

        return te.compute((int64(count),), dim, name="axes_plan")

    if count == 0:
        return []
    made = node.te(compute, node.symbolic(list(shape)).expr, node.symbolic(list(axes)).expr, name="axes_plan")
    return node.ints(node.value(made, "d"), "the dimensions", signed=False)


def _select(condition: Any, a: Dim, b: Dim) -> Any:
    return tirx.Select(condition, int64(a), int64(b))


def _is_any(axes: Sequence[Any], axis: Dim) -> Any:
    return tirx.any(*(equals(each, axis) for each in axes)) if axes else tirx.const(False, "bool")


def _below(axes: Sequence[Any], axis: Dim) -> Any:
    """How many of the axes come before `axis`."""
    return sum((_select(each < int64(axis), 1, 0) for each in axes), start=int64(0))


def _total(terms: Iterable[Any]) -> Any:
    return sum(terms, start=int64(0))


def require_one(node: Node, shape: Sequence[Dim], axes: Sequence[Dim]) -> None:
    """Check that the dimensions at the axes are 1."""

    def at_axis(at: int, sizes: list[Any], given: list[Any]) -> Any:
        return _total(_select(equals(given[at], i), size, 0) for i, size in enumerate(sizes))

    for dim in _plan(node, shape, axes, len(axes), at_axis):
        node.require_equal(dim, 1, "a dimension that is taken out")


def kept(node: Node, shape: Sequence[Dim], axes: Sequence[Dim]) -> list[Dim]:
    """`shape` with a 1 at each of the axes."""
    return _plan(node, shape, axes, len(shape), lambda at, sizes, given: _select(_is_any(given, at), 1, sizes[at]))


def dropped(node: Node, shape: Sequence[Dim], axes: Sequence[Dim]) -> list[Dim]:
    """`shape` without its dimensions at the axes."""

    def element(at: int, sizes: list[Any], given: list[Any]) -> Any:
        return _total(
            _select(tirx.all(tirx.Not(_is_any(given, i)), equals(i - _below(given, i), at)), size, 0)
            for i, size in enumerate(sizes)
        )

    return _plan(node, shape, axes, len(shape) - len(axes), element)


def inserted(node: Node, shape: Sequence[Dim], axes: Sequence[Dim]) -> list[Dim]:
    """`shape` with dimensions of 1 put in, which are then at the axes."""

    def element(at: int, sizes: list[Any], given: list[Any]) -> Any:
        source = at - _below(given, at)
        size = _total(_select(equals(source, i), each, 0) for i, each in enumerate(sizes))
        return _select(_is_any(given, at), 1, size)

    return _plan(node, shape, axes, len(shape) + len(axes), element)


def replaced(node: Node, shape: Sequence[Dim], axis: Dim, dim: Dim) -> list[Dim]:
    """`shape` with `dim` at the axis."""
    if isinstance(axis, int):
        return [dim if i == axis else each for i, each in enumerate(shape)]

    def element(at: int, sizes: list[Any], given: list[Any]) -> Any:
        return _select(equals(given[0], at), sizes[-1], sizes[at])

    return _plan(node, [*shape, dim], [axis], len(shape), element)


def view_shape(node: Node, shape: Sequence[Dim], axis: Dim) -> list[Dim]:
    """`shape` as (before, size, after), where `size` is the dimension at `axis`."""

    def element(at: int, sizes: list[Any], given: list[Any]) -> Any:
        if at == 1:
            return _total(_select(equals(given[0], i), size, 0) for i, size in enumerate(sizes))
        beside = [given[0] > i if at == 0 else given[0] < i for i in range(len(sizes))]
        return prod((_select(c, size, 1) for c, size in zip(beside, sizes, strict=True)), start=int64(1))

    if isinstance(axis, int):
        return [node.dims.product(shape[:axis]), shape[axis], node.dims.product(shape[axis + 1 :])]
    return _plan(node, shape, [axis], 3, element)


def view(node: Node, x: Expr, axis: Dim) -> Expr:
    """x as (before, size, after)."""
    return node.emit(reshaped(x, view_shape(node, list(x.ty.shape.values), axis)))


def reduce_along(node: Node, x: Expr, axes: Sequence[Dim], keep: bool, function: Callable[[Expr], Expr]) -> Expr:
    """x reduced over the axes one after the other; `function` reduces the middle one of three, and keeps it."""
    shape = list(x.ty.shape.values)
    data = x
    for count, axis in enumerate(axes, start=1):
        data = node.emit(function(view(node, data, axis)))
        if count < len(axes) or keep:
            data = node.emit(reshaped(data, kept(node, shape, axes[:count])))
    return data if keep else reshaped(data, dropped(node, shape, axes))
