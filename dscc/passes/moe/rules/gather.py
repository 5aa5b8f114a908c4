"""Lookups: of rows, shares, biases and matrices at a slot, a token or an expert."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from tvm import relax
from tvm.ir import Expr, Var

from dscc.passes.graph import Node
from dscc.passes.moe import scalars
from dscc.passes.moe.routed import ELEMENTS, ONE, Axis, Mark, Matrices, Part, Routing, Share, Value, Vector
from dscc.passes.moe.rules.axes import taken
from dscc.passes.moe.trace import Trace
from dscc.passes.values import attr, constant, dims, dtype, is_one, same_dim

Layout = Sequence[tuple[int | None, int | None]]


def take(trace: Trace, node: Node) -> Value | None:
    """A lookup by a routed index; or the element at a fixed place."""
    data, indices = node.value.args[:2]
    shape = dims(data)
    axis = attr(node.value, "axis")
    if shape is None or axis is None:
        return None
    index, known = trace.value(indices), constant(trace.graph.value(indices))
    if index is not None:
        place, rank = axis % len(shape), len(index.axes)
        layout: list[tuple[int | None, int | None]] = [(None, within) for within in range(place)]
        layout += [(along, None) for along in range(rank)]
        layout += [(None, within) for within in range(place + 1, len(shape))]
        return lookup(trace, node, data, index, place, (None,), layout)
    value = trace.value(data)
    if value is None or known is None or known.size != 1:
        return None
    made = taken(trace, value, axis % len(shape), int(known.reshape(())), 1, 1)
    if made is None or known.ndim:
        return made
    axes = tuple(each for place, each in enumerate(made.axes) if place != axis % len(shape))
    return replace(made, axes=axes)


def lookup(
    trace: Trace,
    node: Node,
    data: relax.Expr,
    index: Value,
    axis: int,
    coordinates: Sequence[int | None],
    layout: Layout,
) -> Value | None:
    """data[.., index, ..], where the index has one axis of rows; `layout` as in `kernels.Gather`."""
    routing, shape = index.routing, dims(data)
    rows = [each for each in index.axes if each.kind in "SPGC"]
    whole = len(rows) == 1 and not index.outer and index.kinds in (rows[0].kind, rows[0].kind + "R")
    if routing is None or shape is None or not whole:
        return None
    at = [index.columns[c] if index.columns and c is not None else index.formula for c in coordinates]
    value = trace.value(data)

    def axes(own: Sequence[Axis], new: Axis) -> tuple[Axis, ...]:
        found = []
        for along, within in layout:
            here = ONE if along is None else index.axes[along]
            found.append(new if here == rows[0] else own[within] if within is not None else here)
        return tuple(found)

    if len(at) == 2:
        return _pair(trace, data, at, rows[0], routing, axes)
    if len(at) != 1:
        return None
    if value is not None:
        moved = _moved(trace, value.axes[axis], at[0], rows[0], routing)
        return None if moved is None else Value(axes(value.axes, moved), value.formula)
    tail = [dim for place, dim in enumerate(shape) if place != axis]
    wide = [dim for dim in tail if not is_one(dim)]
    own = [ONE if is_one(dim) else ELEMENTS for dim in shape]
    stack = trace.weight(data)
    if stack is not None and axis == 0 and at[0].same_as(routing.expert) and same_dim(shape[0], routing.experts):
        if len(tail) == 2 and len(wide) == 2:
            trace.matrices[node.var] = Matrices(rows[0], stack)
            return None
        if len(tail) != 1:
            return None
        return Value(axes(own, rows[0]), trace.leaf("bias", Vector((stack,), Part(0, 1, int(tail[0])), True)))
    if not scalars.is_float(dtype(data)):
        return None
    if same_dim(shape[axis], routing.tokens) and routing.same(at[0], routing.token) and len(wide) == 1:
        return Value(axes(own, rows[0]), trace.token_rows(data))
    if same_dim(shape[axis], routing.slots) and routing.same(at[0], routing.slot) and not wide:
        return Value(axes(own, rows[0]), trace.leaf("share", Share(trace.bare(data))))
    return None


def _moved(trace: Trace, old: Axis, at: Expr, rows: Axis, routing: Routing) -> Axis | None:
    """The axis of rows that is looked up, if the index is one of its rows each: what takes its place."""
    leaf = trace.leaves.get(at) if isinstance(at, Var) else None
    if old.kind == "S" and routing.same(at, routing.slot):
        return rows
    if old.kind == "T" and routing.same(at, routing.token):
        return rows
    if isinstance(leaf, Mark) and old.kind == "P" and old.routing is routing:
        if leaf.kind == "place" and leaf.key == old.key:
            return rows
        if leaf.kind == "position":
            return Axis("G", routing, old.key, rows.expert)
    return None


def _pair(
    trace: Trace,
    data: relax.Expr,
    at: Sequence[Expr],
    rows: Axis,
    routing: Routing,
    axes: Callable[[Sequence[Axis], Axis], tuple[Axis, ...]],
) -> Value | None:
    """data[token, place]"""
    shape = dims(data) or ()
    if not scalars.is_float(dtype(data)) or trace.value(data) is not None or len(shape) < 2:
        return None
    if not (routing.same(at[0], routing.token) and routing.same(at[1], routing.place)):
        return None
    if not (same_dim(shape[0], routing.tokens) and same_dim(shape[1], routing.top)):
        return None
    return Value(axes([ONE] * len(shape), rows), trace.leaf("share", Share(trace.bare(data))))


RULES = {"relax.take": take}
