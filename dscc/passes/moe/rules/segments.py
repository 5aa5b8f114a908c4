"""Segments of the sorted slots, one for each expert: their ends, their computed lengths, putting them together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from tvm import relax, tirx
from tvm.ir import Expr, Var

from dscc.passes.graph import Node
from dscc.passes.moe import kernels, scalars
from dscc.passes.moe.merge import Differ, variables_of
from dscc.passes.moe.routed import Axis, Mark, Value, kinds_of
from dscc.passes.moe.rules.choices import together
from dscc.passes.moe.trace import Trace
from dscc.passes.values import attr, dims
from dscc.schedule.stages import is_zero, substitute


def to_shape(trace: Trace, node: Node) -> Value | None:
    """A computed length: the difference of two ends becomes known by its symbol, at the match_cast that follows."""
    return trace.value(node.value.args[0])


def cast_shape(trace: Trace, node: Node) -> Value | None:
    """`match_cast`: symbols for a computed length; a tensor keeps its value."""
    source = node.value
    value = trace.value(source)
    if value is None:
        return None
    if not isinstance(node.cast, relax.ShapeType):
        return value
    symbols = list(node.cast.values or ())
    found = [leaf for var in variables_of(value.formula) if isinstance(leaf := trace.leaves.get(var), Mark)]
    ends = sorted(leaf.expert for leaf in found if leaf.kind == "offset")
    if value.kinds == "E" and _is_mark(trace, value, "count") and len(symbols) == found[0].routing.experts:
        for expert, symbol in enumerate(symbols):
            if isinstance(symbol, Var):
                trace.lengths[symbol] = (expert - 1, expert, found[0].routing)
        return None
    if len(symbols) == 1 and isinstance(symbols[0], Var) and len(ends) == len(found) and 1 <= len(ends) <= 2:
        begin, end = (ends[0], ends[1]) if len(ends) == 2 else (-1, ends[0])
        if _is_difference(trace, value.formula, begin, end):
            trace.lengths[symbols[0]] = (begin, end, found[0].routing)
    return None


def _is_difference(trace: Trace, formula: Expr, begin: int, end: int) -> bool:
    """Whether a formula of two ends is their difference, where that is not negative; tried on numbers."""
    first, last = np.meshgrid(np.arange(4), np.arange(9), indexing="ij")
    if begin < 0:
        first = np.zeros_like(first)
    last = np.maximum(last, first)
    at = {begin: first, end: last}
    try:
        made = scalars.evaluate(formula, {v: at[trace.leaves[v].expert] for v in variables_of(formula)})
    except scalars.Unknown:
        return False
    return bool(np.array_equal(made, last - first))


def segment(trace: Trace, length: object, formula: Expr, values: dict[Var, Expr], var: Var) -> Value | None:
    """Numbers from the end of one expert's slots to the end of the next one's, in sorted order."""
    marks = trace.lengths.get(length) if isinstance(length, Var) else None
    if marks is None:
        return None
    begin, end, routing = marks
    at = [substitute(formula, {**values, var: tirx.const(place, "int64")}) for place in (0, 1)]
    start, step = _start(trace, routing.simplify(at[0])), at[1] - at[0]
    if start != begin or end != begin + 1 or not routing.same(step, tirx.const(1, "int64")):
        return None
    return Value((Axis("G", routing, 0, end),), trace.leaf("position", Mark("position", routing, end), "int64"))


def _start(trace: Trace, expr: Expr) -> int | None:
    """The expert after whose slots a place is: -1 for 0."""
    while isinstance(expr, tirx.Cast):
        expr = expr.value
    if isinstance(expr, tirx.Add):
        for zero, rest in ((expr.a, expr.b), (expr.b, expr.a)):
            if isinstance(zero, tirx.IntImm) and int(zero.value) == 0:
                return _start(trace, rest)
    if isinstance(expr, tirx.IntImm):
        return -1 if int(expr.value) == 0 else None
    leaf = trace.leaves.get(expr) if isinstance(expr, Var) else None
    return leaf.expert if isinstance(leaf, Mark) and leaf.kind == "offset" else None


def window(trace: Trace, node: Node, found: kernels.Window) -> Value | None:
    """The rows of one expert: those of the sorted slots from the sum of all lengths before on."""
    value, shape = trace.value(found.data), dims(node.var)
    marks = trace.lengths.get(shape[found.axis]) if shape is not None else None
    if value is None or marks is None or value.axes[found.axis].kind != "P" or len(value.axes) != len(shape or ()):
        return None
    begin, end, routing = marks
    before = [trace.lengths.get(part) for part in _addends(found.start)]
    wanted = [(expert - 1, expert, routing) for expert in range(end)]
    if end != begin + 1 or value.axis("P").routing is not routing or any(part is None for part in before):
        return None
    if sorted(before, key=lambda part: part[1]) != wanted:  # type: ignore[index]
        return None
    own = Axis("G", routing, value.axis("P").key, end)
    return replace(value, axes=(*value.axes[: found.axis], own, *value.axes[found.axis + 1 :]))


def _addends(expr: Expr) -> list[Expr]:
    """What is added up; nothing for 0."""
    if isinstance(expr, tirx.Add):
        return [*_addends(expr.a), *_addends(expr.b)]
    return [] if is_zero(expr) else [expr]


def _is_mark(trace: Trace, value: Value, kind: str, expert: int = -2) -> bool:
    leaf = trace.leaves.get(value.formula) if isinstance(value.formula, Var) else None
    return isinstance(leaf, Mark) and leaf.kind == kind and leaf.expert == expert


def cumsum(trace: Trace, node: Node) -> Value | None:
    """Counts become ends."""
    value = trace.value(node.value.args[0])
    leaf = trace.leaves.get(value.formula) if value is not None and isinstance(value.formula, Var) else None
    if value is None or not isinstance(leaf, Mark) or leaf.kind != "count" or attr(node.value, "exclusive"):
        return None
    return Value(value.axes, trace.leaf("offset", Mark("offset", leaf.routing), "int64"))


def concat(trace: Trace, node: Node) -> Value | None:
    """Segments put together; or choices, or the coordinates of elements, put side by side."""
    fields = node.value.args[0]
    if not isinstance(fields, relax.Tuple):
        return None
    values = [trace.value(field) for field in fields.fields]
    known = [value for value in values if value is not None]
    if len(known) != len(values) or not known:
        return None
    axis = attr(node.value, "axis") % len(known[0].axes)
    kinds = {value.axes[axis].kind for value in known}
    if kinds == {"G"} and axis == 0:
        return _segments(trace, node, known)
    if kinds == {"1"} and all(_is_mark(trace, value, "count", expert) for expert, value in enumerate(known)):
        return _counts(trace, known, axis)
    if kinds == {"1"} and all(value.axes == known[0].axes and value.kinds == "C" for value in known):
        axes = tuple(Axis("R") if place == axis else each for place, each in enumerate(known[0].axes))
        return Value(axes, known[0].formula, tuple(value.formula for value in known))
    return together(trace, node, known, axis) or _beside(trace, known, axis)


def _counts(trace: Trace, known: Sequence[Value], axis: int) -> Value | None:
    """The counts of all experts, one beside the other."""
    routing = trace.routing_of(known[0])
    if routing is None or len(known) != routing.experts or any(trace.routing_of(v) is not routing for v in known):
        return None
    axes = tuple(Axis("E", routing) if place == axis else each for place, each in enumerate(known[0].axes))
    return Value(axes, trace.leaf("count", Mark("count", routing), "int64")) if kinds_of(axes) == "E" else None


def _beside(trace: Trace, known: Sequence[Value], axis: int) -> Value | None:
    """What every expert makes of all tokens, one beside the other."""
    axes = known[0].axes
    routing = next((each for each in reversed(trace.routings) if each.experts == len(known)), None)
    if routing is None or axes[axis].kind != "1" or known[0].kinds != "TN":
        return None
    if any(value.axes != axes or value.columns or value.terms for value in known):
        return None
    try:
        formula = trace.merge.formulas([value.formula for value in known])
    except Differ:
        return None
    return Value(tuple(Axis("E", routing) if place == axis else each for place, each in enumerate(axes)), formula)


def _segments(trace: Trace, node: Node, known: Sequence[Value]) -> Value | None:
    """The rows of all experts, one expert after the other."""
    first = known[0].axes[0]
    routing = first.routing
    if routing is None or [value.axes[0].expert for value in known] != list(range(routing.experts)):
        return None
    if any(value.axes[1:] != known[0].axes[1:] or value.axes[0].key != first.key for value in known):
        return None
    try:
        formula = trace.merge.formulas([value.formula for value in known])
    except Differ:
        return None
    return Value((Axis("P", routing, first.key), *known[0].axes[1:]), formula)


RULES = {
    "relax.cumsum": cumsum,
    "relax.tensor_to_shape": to_shape,
    "match_cast": cast_shape,
    "relax.concat": concat,
}
