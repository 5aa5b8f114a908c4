"""Operators that move axes: reshapes, transposes, broadcasts and slices."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

from tvm import tirx
from tvm.ir import Expr, Var

from dscc.passes.graph import Node
from dscc.passes.moe.merge import variables_of, with_leaves
from dscc.passes.moe.routed import ELEMENTS, ONE, Axis, Mark, Matrices, Part, Product, Share, Value, Vector, of_tokens
from dscc.passes.moe.trace import Trace
from dscc.passes.values import Dim, attr, dims, is_one, numbers, same_dim


def reshape(trace: Trace, node: Node) -> Value | None:
    value = trace.value(node.value.args[0])
    old, new = dims(node.value.args[0]), dims(node.var)
    if value is None or old is None or new is None or value.columns:
        return None
    axes = reshaped(value.axes, old, new)
    return None if axes is None else replace(value, axes=axes)


def permute(trace: Trace, node: Node) -> Value | None:
    """Of looked up matrices too; shares of all experts are told in which order they lie."""
    source = node.value.args[0]
    order = attr(node.value, "axes")
    rank = len(dims(source) or ())
    order = tuple(reversed(range(rank))) if order is None else tuple(order)
    if source in trace.matrices and order == (0, 2, 1):
        found = trace.matrices[source]
        trace.matrices[node.var] = Matrices(found.axis, found.stack, not found.turned)
        return None
    value = trace.value(source)
    if value is None or value.terms:
        return None
    made = replace(value, axes=tuple(value.axes[axis] for axis in order))
    share = trace.dense_share(made, None)
    if share is None or "E" not in made.kinds:
        return made
    return replace(made, formula=trace.leaf("share", replace(share, turned=made.kinds == "ET", source=node.var)))


def broadcast(trace: Trace, node: Node) -> Value | None:
    value = trace.value(node.value.args[0])
    shape, old = dims(node.var), dims(node.value.args[0])
    if value is None or shape is None or old is None or value.columns or value.terms:
        return None
    axes = [ONE] * (len(shape) - len(value.axes)) + list(value.axes)
    for place, (axis, dim) in enumerate(zip(axes, shape, strict=True)):
        if axis.kind == "1" and not is_one(dim):
            axes[place] = _repeated(trace, value, dim)
    return None if any(axis.kind == "?" for axis in axes) else replace(value, axes=tuple(axes))


def _repeated(trace: Trace, value: Value, dim: Dim) -> Axis:
    """The axis along which a value is repeated; of kind "?" if there is none."""
    routing = value.routing
    if routing is not None and "T" in value.kinds and "K" not in value.kinds and same_dim(dim, routing.top):
        return Axis("K", routing)
    return ELEMENTS if "N" not in value.kinds else Axis("?")


def slice_(trace: Trace, node: Node) -> Value | None:
    """`strided_slice`, by fixed numbers along fixed dimensions."""
    call = node.value
    value, shape = trace.value(call.args[0]), dims(call.args[0])
    parts = [numbers(arg) for arg in call.args[1:4]]
    steps = numbers(call.args[4]) if len(call.args) > 4 else None
    if value is None or shape is None or any(part is None for part in parts):
        return None
    for place, (axis, begin) in enumerate(zip(parts[0] or (), parts[1] or (), strict=True)):
        extent, step = shape[int(axis)], int(steps[place]) if steps else 1
        if not isinstance(extent, int) or value is None:
            return None
        first, last = (min(max(int(n) + (extent if n < 0 else 0), 0), extent) for n in (begin, (parts[2] or ())[place]))
        value = taken(trace, value, int(axis), first, step, len(range(first, last, step)))
    return value


def split(trace: Trace, node: Node) -> Value | None:
    """The parts go into `tuples`."""
    value, shape = trace.value(node.value.args[0]), dims(node.value.args[0])
    cuts, axis = attr(node.value, "indices_or_sections"), attr(node.value, "axis")
    if value is None or shape is None or not isinstance(shape[axis], int):
        return None
    extent = shape[axis]
    if isinstance(cuts, int):
        cuts = tuple(range(extent // cuts, extent, extent // cuts))
    bounds = [0, *(int(cut) for cut in cuts), extent]
    trace.tuples[node.var] = [
        taken(trace, value, axis, begin, 1, end - begin) for begin, end in itertools.pairwise(bounds)
    ]
    return None


def taken(trace: Trace, value: Value, axis: int, begin: int, step: int, count: int) -> Value | None:
    """Some elements along an axis: all but of the result's elements only single ones."""
    kind = value.axes[axis].kind
    if value.terms:
        return None
    if kind == "1":
        return value
    if kind == "N":
        return replace(value, formula=_parted(trace, value.formula, Part(begin, step, count)))
    if count != 1:
        return None
    axes = tuple(ONE if place == axis else each for place, each in enumerate(value.axes))
    if kind == "R" and begin < len(value.columns):
        return Value(axes, value.columns[begin])
    routing = value.axes[axis].routing
    if kind != "E" or routing is None:
        return None
    fixed: dict[Var, Expr] = {routing.axis: tirx.const(begin, "int64")}
    for var in variables_of(value.formula):
        leaf = trace.leaves.get(var)
        if isinstance(leaf, Share) and leaf.dense and leaf.expert < 0:
            fixed[var] = trace.leaf("share", replace(leaf, expert=begin))
        elif isinstance(leaf, Mark) and leaf.kind in ("count", "offset") and leaf.expert == -2:
            fixed[var] = trace.leaf(leaf.kind, replace(leaf, expert=begin), "int64")
        elif isinstance(leaf, Product) and len(leaf.core.weights) == 1:
            return None
    return Value(axes, routing.simplify(with_leaves(value.formula, fixed)))


def _parted(trace: Trace, formula: Expr, part: Part) -> Expr:
    """The formula of some elements, given that of all."""
    new: dict[Var, Expr] = {}
    for var in variables_of(formula):
        leaf = trace.leaves.get(var)
        if isinstance(leaf, Product | Vector):
            new[var] = trace.leaf(var.name, replace(leaf, part=part.of(leaf.part)))
    return with_leaves(formula, new)


def reshaped(axes: Sequence[Axis], old: Sequence[Dim], new: Sequence[Dim]) -> tuple[Axis, ...] | None:
    """The axes of a value under another shape, or None if that splits or joins others than a token's slots."""
    items = [(axis, dim) for axis, dim in zip(axes, old, strict=True) if axis.kind != "1"]
    found: list[Axis] = []
    left = list(new)
    while left:
        if not items:
            if not is_one(left.pop(0)):
                return None
            found.append(ONE)
            continue
        axis, extent = items[0]
        # The lengths of all segments are as many slots as there are, which the shapes alone do not say.
        if same_dim(left[0], extent) or (axis.kind == "P" and axis.routing and same_dim(left[0], axis.routing.slots)):
            found.append(axis)
            items.pop(0)
            left.pop(0)
        elif is_one(left[0]):
            found.append(ONE)
            left.pop(0)
        elif (joined := _joined(items, left[0])) is not None:
            found.append(joined[0])
            items = items[joined[1] :]
            left.pop(0)
        elif (cut := _cut(axis, extent, left)) is not None:
            found += cut
            items.pop(0)
            left = left[len(cut) :]
        else:
            return None
    return tuple(found) if not items else None


def _joined(items: Sequence[tuple[Axis, Dim]], dim: Dim) -> tuple[Axis, int] | None:
    """The axis that tokens in several dimensions, and the choices of each, become as one; and how many it replaces."""
    if items[0][0].kind == "E" and (of_one := _joined_tokens(items[1:], dim, items[0][1])) is not None:
        return Axis("X", items[0][0].routing), 1 + of_one
    outer = next((place for place, (axis, _) in enumerate(items) if axis.kind != "B"), len(items))
    if (
        outer == len(items)
        or items[outer][0].kind not in "TS"
        or [a.key for a, _ in items[:outer]] != list(range(outer))
    ):
        return None
    last = items[outer][0]
    if outer and same_dim(dim, _product([extent for _, extent in items[: outer + 1]])):
        return last, outer + 1
    if last.kind == "T" and len(items) > outer + 1 and items[outer + 1][0].kind == "K":
        if same_dim(dim, _product([extent for _, extent in items[: outer + 2]])):
            return Axis("S", items[outer + 1][0].routing), outer + 2
    return None


def _joined_tokens(items: Sequence[tuple[Axis, Dim]], dim: Dim, experts: Dim) -> int | None:
    """How many of the axes are those of tokens, if the dimension has each of these for every expert."""
    count = next((place for place, (axis, _) in enumerate(items) if axis.kind == "T"), len(items)) + 1
    if count > len(items) or any(axis.kind != "B" for axis, _ in items[: count - 1]):
        return None
    return count if same_dim(dim, _product([experts, *(extent for _, extent in items[:count])])) else None


def _cut(axis: Axis, extent: Dim, left: Sequence[Dim]) -> list[Axis] | None:
    """What slots, tokens, or those of every expert become in several dimensions."""
    if axis.kind == "X" and axis.routing is not None and same_dim(left[0], axis.routing.experts):
        of_one = _cut(Axis("T", axis.routing), axis.routing.tokens, left[1:])
        if of_one is None and len(left) > 1 and same_dim(left[1], axis.routing.tokens):
            of_one = [Axis("T", axis.routing)]
        return None if of_one is None else [Axis("E", axis.routing), *of_one]
    if axis.kind not in "TS":
        return None
    for count in range(2, len(left) + 1):
        if not same_dim(_product(left[:count]), extent):
            continue
        top = axis.routing.top if axis.routing is not None and axis.kind == "S" else 1
        if top == 1:
            return list(of_tokens(left[:count], axis))
        if same_dim(left[count - 1], top):
            return [*of_tokens(left[: count - 1], Axis("T", axis.routing)), Axis("K", axis.routing)]
    return None


def _product(extents: Sequence[Dim]) -> Dim:
    return math.prod(extents[1:], start=extents[0])


RULES = {
    "relax.reshape": reshape,
    "relax.squeeze": reshape,
    "relax.expand_dims": reshape,
    "relax.permute_dims": permute,
    "relax.broadcast_to": broadcast,
    "relax.strided_slice": slice_,
    "relax.split": split,
}
