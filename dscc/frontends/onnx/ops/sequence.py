"""Sequences. Positions that are known while compiling, in sequences whose tensors are known one by one, cost nothing;
the rest are calls of functions in C (dscc/library/sequence.c) on array objects.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from tvm import relax

from dscc import library
from dscc.frontends.onnx.broadcast import joined
from dscc.frontends.onnx.kinds import (
    Container,
    OptionalKind,
    SequenceKind,
    TensorKind,
    join,
    kind_of,
    result_type,
    sequence,
    wrap,
)
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.registry import converter
from dscc.frontends.onnx.shapes import reshaped, shape_expr
from dscc.frontends.onnx.values import Dim, Value, element_type

_MAX_PIECES = 256  # of a tensor that is split while compiling; more are split by the function in C


@converter("SequenceConstruct", patterns=True)
def construct(node: Node, *items: Value) -> Value:
    """A sequence of the inputs."""
    if not items:
        raise node.error("it has no inputs; a SequenceConstruct needs one at least")
    return sequence(node.bb, node.dims, items[0].element, items)


@converter("SequenceEmpty", patterns=True)
def empty(node: Node) -> Value:
    """A sequence without elements."""
    return sequence(node.bb, node.dims, element_type(node.attr("dtype", onnx.TensorProto.FLOAT), node.label), [])


@converter("SequenceLength", patterns=True)
def length(node: Node, values: Value) -> Value:
    """How many there are, an int64 scalar."""
    given = _sequence(node, values)
    if given.items is not None:
        return node.value(np.array(len(given.items), np.int64))
    return node.value(library.call("sequence_length", [given.expr], relax.TensorType([], "int64")))


@converter("SequenceAt", patterns=True)
def at(node: Node, values: Value, position: Value) -> Value:
    """The tensor at a position, counted from the end if it is negative."""
    given = _sequence(node, values)
    index = _known_position(position)
    if given.items is not None and index is not None:
        return given.items[_checked(node, index, len(given.items))]
    kind = given.kind.element
    assert isinstance(kind, TensorKind)  # the element of a sequence
    found = node.bb.emit(library.call("sequence_at", [given.expr, position.expr], result_type(kind)))
    return wrap(node.bb, node.dims, kind, found, node.proto.output[0])


@converter("SequenceInsert", patterns=True)
def insert(node: Node, values: Value, item: Value, position: Value | None = None) -> Value:
    """The sequence with a tensor in front of a position; at the end if there is none."""
    given = _sequence(node, values)
    index = None if position is None else _known_position(position)
    if given.items is not None and (position is None or index is not None):
        place = (
            len(given.items) if index is None or index == len(given.items) else _checked(node, index, len(given.items))
        )
        return sequence(node.bb, node.dims, given.dtype, [*given.items[:place], item, *given.items[place:]])
    kind = join(node.dims, given.kind, SequenceKind(kind_of(item)))
    where = [] if position is None else [position.expr]
    call = library.call("sequence_insert", [given.expr, item.expr, *where], relax.AnyType())
    return Container("", node.bb, kind, expr=node.bb.emit(call))


@converter("SequenceErase", patterns=True)
def erase(node: Node, values: Value, position: Value | None = None) -> Value:
    """The sequence without the tensor at a position; without the last one if there is no position."""
    given = _sequence(node, values)
    index = -1 if position is None else _known_position(position)
    if given.items is not None and index is not None:
        place = _checked(node, index, len(given.items))
        return sequence(node.bb, node.dims, given.dtype, [*given.items[:place], *given.items[place + 1 :]])
    where = [] if position is None else [position.expr]
    call = library.call("sequence_erase", [given.expr, *where], relax.AnyType())
    return Container("", node.bb, given.kind, expr=node.bb.emit(call))


@converter("SplitToSequence", patterns=True)
def split(node: Node, data: Value, sizes: Value | None = None) -> Value:
    """Slices of a tensor along `axis`: of the size or the sizes given, or of 1, then without that axis if `keepdims`
    is 0.
    """
    axis = node.axis(node.attr("axis", 0), data.ndim)
    extent = data.shape[axis]
    dropped = sizes is None and not node.attr("keepdims", 1)
    pieces = _pieces(node, extent, sizes)
    if pieces is not None:
        items, start = [], 0
        for size in pieces:
            piece = _slice(node, data, axis, start, node.dims.simplify(start + size))
            shape = [*data.shape[:axis], *([] if dropped else [size]), *data.shape[axis + 1 :]]
            items.append(node.retype(reshaped(piece, shape) if dropped else piece, data.element))
            start = node.dims.simplify(start + size)
        return sequence(node.bb, node.dims, data.element, items)
    uniform = None if sizes is not None else 1
    dims: list[Any] = [*data.shape[:axis], *([] if dropped else [uniform]), *data.shape[axis + 1 :]]
    flags = shape_expr([axis, int(dropped)])
    given = [] if sizes is None else [sizes.expr]
    call = library.call("sequence_split", [data.expr, flags, *given], relax.AnyType())
    return Container("", node.bb, SequenceKind(TensorKind(data.element, tuple(dims))), expr=node.bb.emit(call))


@converter("ConcatFromSequence", patterns=True)
def concat(node: Node, values: Value) -> Value:
    """The tensors of a sequence, joined along `axis`; with `new_axis` 1, stacked along a new one."""
    given = _sequence(node, values)
    kind = given.kind.element
    stacks = bool(node.attr("new_axis", 0))
    if given.items is not None and given.items:
        ndim = given.items[0].ndim + stacks
        axis = node.axis(node.required("axis"), ndim)
        parts = list(given.items)
        if stacks:
            parts = [node.value(reshaped(p.expr, [*p.shape[:axis], 1, *p.shape[axis:]])) for p in parts]
        return node.retype(joined(node, parts, axis), given.items[0].element)
    if (
        not isinstance(kind, TensorKind)
        or kind.dims is None
        or (isinstance(given.kind, SequenceKind) and given.kind.empty)
    ):
        raise node.error(f"it joins a {given.kind}, whose rank is not known while compiling; it has to be")
    axis = node.axis(node.required("axis"), len(kind.dims) + stacks)
    dims = [*kind.dims[:axis], None, *kind.dims[axis + (not stacks) :]]
    whole = TensorKind(kind.dtype, tuple(dims))
    call = library.call("sequence_concat", [given.expr, shape_expr([axis, int(stacks)])], result_type(whole))
    return wrap(node.bb, node.dims, whole, node.bb.emit(call), node.proto.output[0])


def _sequence(node: Node, value: Value) -> Container:
    if isinstance(value, Container) and isinstance(value.kind, OptionalKind):
        raise node.error(f"'{value.name}' is of type {value.kind}; take its element first, by OptionalGetElement")
    if not isinstance(value, Container):
        raise node.error(f"'{value.name}' is of type {kind_of(value)}; the operator takes a sequence")
    return value


def _known_position(position: Value) -> int | None:
    return None if position.constant is None else int(position.constant.reshape(-1)[0])


def _checked(node: Node, index: int, count: int) -> int:
    """A position as one from 0 to count - 1."""
    if not -count <= index < count:
        raise node.error(f"position {index} is out of range; the sequence allows {-count} to {count - 1}")
    return index + count if index < 0 else index


def _pieces(node: Node, extent: Dim, sizes: Value | None) -> list[Dim] | None:
    """The sizes of the slices, if it is known how many there are, and they are few enough to be values of their own."""
    if sizes is None:
        return [1] * extent if isinstance(extent, int) and extent <= _MAX_PIECES else None
    if sizes.data is None:
        return None
    numbers = [node.dims.simplify(size) for size in sizes.data.reshape(-1)]
    if sizes.data.ndim:
        total = node.dims.simplify(sum(numbers[1:], start=numbers[0])) if numbers else 0
        node.require_equal(extent, total, "the sum of the sizes")
        return numbers
    if not isinstance(extent, int) or not isinstance(numbers[0], int):
        return None
    if numbers[0] < 1:
        raise node.error(f"the size of the slices is {numbers[0]}; it must be 1 or more")
    if extent > _MAX_PIECES * numbers[0]:
        return None
    return [min(numbers[0], extent - start) for start in range(0, extent, numbers[0])]


def _slice(node: Node, data: Value, axis: int, start: Dim, stop: Dim) -> relax.Expr:
    return node.emit(relax.op.strided_slice(data.expr, [axis], [start], [stop], assume_inbound=True))
