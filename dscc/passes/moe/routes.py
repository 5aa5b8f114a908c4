"""Follows what routing is made of: choices, sorting, counting, one-hot masks, lookups and scattering."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from tvm import relax, tirx
from tvm.ir import Expr, Var

from dscc.passes.graph import Node
from dscc.passes.moe import kernels, scalars
from dscc.passes.moe.merge import Differ, variables_of
from dscc.passes.moe.routed import (
    ELEMENTS,
    ONE,
    TOKENS,
    Axis,
    Mark,
    Part,
    Routing,
    Share,
    Value,
    Vector,
)  # fmt: skip
from dscc.passes.moe.trace import Matrices, Trace
from dscc.passes.values import attr, constant, dims, dtype, same_dim
from dscc.schedule.stages import substitute


def top_k(trace: Trace, node: Node) -> Value | None:
    """The best of every row: of a matrix with a row for each token, the experts that it chooses."""
    source = node.value.args[0]
    shape, axis, largest = dims(source), attr(node.value, "axis"), attr(node.value, "largest")
    if shape is None or not largest or axis % len(shape) != len(shape) - 1 or attr(node.value, "ret_type") != "both":
        return None
    lead = [dim for dim in shape[:-1] if not (isinstance(dim, int) and dim == 1)]
    top = attr(node.value, "k")
    ids = next(
        (user.var for user in trace.graph.users(node.var) if user.op == "getitem" and user.value.index == 1), None
    )
    if len(lead) != 1 or not isinstance(shape[-1], int) or ids is None:
        return None
    routing = Routing(ids, lead[0], int(top), shape[-1])
    trace.routings.append(routing)
    of_tokens = Axis("T" if top > 1 else "S", routing)
    axes = tuple(ONE if isinstance(dim, int) and dim == 1 else of_tokens for dim in shape[:-1])
    trace.tuples[node.var] = [None, Value((*axes, Axis("K", routing) if top > 1 else ONE), routing.expert)]
    return None


def packed(trace: Trace, node: Node) -> Value | None:
    """One of our own functions: sorting all slots by expert, sorting a permutation, which inverts it, or NonZero."""
    call = node.value
    name = str(call.args[0].global_symbol) if isinstance(call.args[0], relax.ExternFunc) else ""
    if name == "dscc.nonzero":
        return where(trace, call.args[1])
    if name != "dscc.top_k":
        return None
    value, (count, largest) = trace.value(call.args[1]), call.args[2].values
    routing = value.routing if value is not None else None
    if value is None or routing is None or not isinstance(largest, tirx.IntImm) or int(largest.value):
        return None
    return sorted_by(trace, value, routing) if same_dim(count, routing.slots) else None


def argsort(trace: Trace, node: Node) -> Value | None:
    value = trace.value(node.value.args[0])
    if value is None or value.routing is None or attr(node.value, "descending"):
        return None
    return sorted_by(trace, value, value.routing)


def sorted_by(trace: Trace, value: Value, routing: Routing) -> Value | None:
    """The places, in ascending order, of a vector's elements."""
    if value.kinds == "S" and value.formula.same_as(routing.expert):
        trace.keys += 1
        axis, formula = Axis("P", routing, trace.keys), routing.slot
    elif value.kinds == "P" and value.formula.same_as(routing.slot):
        axis = Axis("S", routing)
        formula = trace.leaf("place", Mark("place", routing, key=value.axis("P").key), "int64")
    else:
        return None
    return Value(tuple(ONE if each.kind == "1" else axis for each in value.axes), formula)


def kernel(trace: Trace, node: Node) -> Value | None:
    """A function of the front end."""
    found = kernels.read(node.value, trace.mod)
    counted = any(isinstance(dim, Var) and dim in trace.lengths for dim in dims(node.var) or ())
    if found is None or not (counted or any(trace.value(arg) is not None for arg in found.args)):
        return None
    looked = kernels.gather(found)
    if looked is not None and trace.value(found.args[looked.index]) is not None:
        data, index = found.args[looked.data], trace.value(found.args[looked.index])
        if index is None:
            return None
        return lookup(trace, node, data, index, looked.axis, looked.coordinates, looked.layout)
    formula = kernels.formula(found, [constant(trace.graph.value(arg)) for arg in found.args])
    return None if formula is None else of_formula(trace, node, found, formula)


def of_formula(trace: Trace, node: Node, found: kernels.Kernel, formula: kernels.Formula) -> Value | None:
    rank, shape = len(formula.extents), dims(node.var)
    around: list[Axis] = [ONE] * rank
    given = [value for arg in found.args if (value := trace.value(arg)) is not None]
    routing = next((r for value in given if (r := trace.routing_of(value)) is not None), None)
    counted = next((trace.lengths[dim] for dim in shape or () if isinstance(dim, Var) and dim in trace.lengths), None)
    routing = routing or (counted[2] if counted else None)
    values: dict[Var, Expr] = {}
    for var, (which, places) in formula.operands.items():
        value = trace.value(found.args[which])
        if value is None:
            number = scalars.number(trace.graph.value(found.args[which]))
            if number is None:
                return None
            values[var] = number
            continue
        if value.columns or value.terms:
            return None
        for axis, place in zip(value.axes, places, strict=True):
            if axis.kind != "1":
                if place is None or around[place].kind not in ("1", axis.kind):
                    return None
                around[place] = axis
        values[var] = (
            scalars.cast(value.formula, str(var.ty.dtype))
            if scalars.is_float(dtype(found.args[which]))
            else value.formula
        )
    if routing is None or shape is None:
        return None
    for place, var in formula.free.items():
        if kernels.row_places(formula) is not None and place == rank - 1 and around[0].kind == "C":
            return Value((around[0], ELEMENTS), trace.leaf("place", RowPlace(next(iter(values.values())))))
        segment = _segment(trace, shape[place], formula.value, values, var) if rank == 1 else None
        if segment is not None:
            return segment
        if not isinstance(shape[place], int) or shape[place] < routing.experts:
            return None
        around[place], values[var] = Axis("E", routing), routing.axis
    made = substitute(formula.value, values)
    return Value(tuple(around), trace.settled(made, routing))


class RowPlace:
    """Leaf: the place in a flat tensor of an element of the row of `token`."""

    def __init__(self, token: Expr):
        self.token = token


def _segment(trace: Trace, length: object, formula: Expr, values: dict[Var, Expr], var: Var) -> Value | None:
    """Numbers from the end of one expert's slots to the end of the next one's, in sorted order."""
    marks = trace.lengths.get(length) if isinstance(length, Var) else None
    if marks is None:
        return None
    begin, end, routing = marks
    at = [substitute(formula, {**values, var: tirx.const(place, "int64")}) for place in (0, 1)]
    start, step = values_start(trace, routing.simplify(at[0])), at[1] - at[0]
    if start != begin or end != begin + 1 or not routing.same(step, tirx.const(1, "int64")):
        return None
    return Value((Axis("G", routing, 0, end),), trace.leaf("position", Mark("position", routing, end), "int64"))


def values_start(trace: Trace, expr: Expr) -> int | None:
    """The expert after whose slots a place is: -1 for 0."""
    while isinstance(expr, tirx.Cast):
        expr = expr.value
    if isinstance(expr, tirx.Add):
        for zero, rest in ((expr.a, expr.b), (expr.b, expr.a)):
            if isinstance(zero, tirx.IntImm) and int(zero.value) == 0:
                return values_start(trace, rest)
    if isinstance(expr, tirx.IntImm):
        return -1 if int(expr.value) == 0 else None
    leaf = trace.leaves.get(expr) if isinstance(expr, Var) else None
    return leaf.expert if isinstance(leaf, Mark) and leaf.kind == "offset" else None


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


def take(trace: Trace, node: Node) -> Value | None:
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
    taken = trace.taken(value, axis % len(shape), int(known.reshape(())), 1, 1)
    if taken is None or known.ndim:
        return taken
    axes = tuple(each for place, each in enumerate(taken.axes) if place != axis % len(shape))
    return Value(axes, taken.formula, taken.columns, taken.terms)


Layout = Sequence[tuple[int | None, int | None]]


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
    if routing is None or shape is None or len(rows) != 1 or index.kinds not in (rows[0].kind, rows[0].kind + "R"):
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
    wide = [dim for dim in tail if not (isinstance(dim, int) and dim == 1)]
    own = [ONE if isinstance(dim, int) and dim == 1 else ELEMENTS for dim in shape]
    stack = trace.const(data)
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


def cumsum(trace: Trace, node: Node) -> Value | None:
    """Counts become ends."""
    value = trace.value(node.value.args[0])
    leaf = trace.leaves.get(value.formula) if value is not None and isinstance(value.formula, Var) else None
    if value is None or not isinstance(leaf, Mark) or leaf.kind != "count" or attr(node.value, "exclusive"):
        return None
    return Value(value.axes, trace.leaf("offset", Mark("offset", leaf.routing), "int64"))


def scatter(trace: Trace, node: Node) -> Value | None:
    """Inverting a permutation, counting, the shares of all experts, adding rows to those of their tokens."""
    data, indices, updates = node.value.args
    shape, axis = dims(data), attr(node.value, "axis")
    adds = attr(node.value, "reduction") == "add"
    # Rows are added by the places of their elements in a flat tensor, which is a reshape of them.
    index = trace.value(indices) or (trace.value(trace.bare(indices)) if adds else None)
    if index is None or index.routing is None or shape is None:
        return None
    routing = index.routing
    leaf = trace.leaves.get(index.formula) if isinstance(index.formula, Var) else None
    if isinstance(leaf, RowPlace) and adds:
        return _add_rows(trace, node, data, index, leaf, updates)
    if len(shape) == 1 and index.kinds == "P" and not adds and index.formula.same_as(routing.slot):
        if _counts_up(trace, updates, routing):
            place = Mark("place", routing, key=index.axis("P").key)
            return Value((Axis("S", routing),), trace.leaf("place", place, "int64"))
    if len(shape) == 1 and index.kinds in ("S", "P") and adds and same_dim(shape[0], routing.experts):
        if trace.is_all(data, 0) and trace.is_all(updates, 1) and _own(index.formula, routing):
            return Value((Axis("E", routing),), trace.leaf("count", Mark("count", routing), "int64"))
    chosen = index.kinds == "TK" if routing.top > 1 else index.kinds == "S"
    if len(shape) == 2 and axis % 2 == 1 and chosen and index.formula.same_as(routing.expert):
        if same_dim(shape[1], routing.experts) and trace.is_all(data, 0):
            return trace.dense(node.var, (Axis("T", routing), Axis("E", routing)), routing, False)
    return None


def _counts_up(trace: Trace, expr: relax.Expr, routing: Routing) -> bool:
    """Whether `expr` is 0, 1, 2, ... up to the number of slots."""
    node = trace.graph.node(trace.bare(expr))
    if node is None or node.op != "relax.arange":
        return False
    begin, end, step = node.value.args[:3]
    start, by = (int(arg.value) if isinstance(arg, tirx.IntImm) else None for arg in (begin, step))
    return start == 0 and by == 1 and same_dim(end, routing.slots)


def _own(formula: Expr, routing: Routing) -> bool:
    """Whether a formula of the expert is the expert."""
    experts = np.arange(routing.experts)
    try:
        return bool(np.array_equal(scalars.evaluate(formula, {routing.expert: experts}), experts))
    except scalars.Unknown:
        return False


def _add_rows(
    trace: Trace, node: Node, data: relax.Expr, index: Value, leaf: RowPlace, updates: relax.Expr
) -> Value | None:
    """The rows of one expert added to those of their tokens in a flat tensor."""
    routing, rows = index.routing, index.axes[0]
    values = trace.value(trace.bare(updates))
    before = trace.value(trace.bare(data))
    if routing is None or values is None or rows.kind != "C" or not routing.same(leaf.token, routing.token):
        return None
    if values.kinds != "CN" or values.axes[0] != rows:
        return None
    terms = dict(before.terms) if before is not None else {}
    if rows.expert in terms or (before is None and not trace.is_all(data, 0)) or (before is not None and not terms):
        return None
    terms[rows.expert] = values.formula
    like = Value((TOKENS, ELEMENTS), values.formula)
    made = trace.sum_of(node, like, terms, routing)
    return Value((Axis("F", routing),), made.formula, (), made.terms)


def nonzero(trace: Trace, node: Node) -> Value | None:
    return where(trace, node.value.args[0])


def where(trace: Trace, mask_of: relax.Expr) -> Value | None:
    """The slots of one expert: where a mask over the choices is set."""
    value = trace.value(mask_of)
    routing = value.routing if value is not None else None
    if value is None or routing is None or sorted(value.kinds) not in (["K", "T"], ["S"]):
        return None
    try:
        mask = scalars.evaluate(value.formula, {routing.expert: np.arange(routing.experts)})
    except scalars.Unknown:
        return None
    found = np.flatnonzero(np.broadcast_to(mask, routing.experts))
    if len(found) != 1:
        return None
    by_kind = {"T": routing.token, "K": routing.place, "S": routing.slot, "1": tirx.const(0, "int64")}
    columns = tuple(by_kind[axis.kind] for axis in value.axes)
    # Where the place comes first, the slots of an expert are in another order; it is the same for all that they index.
    order = 1 if value.kinds == "KT" else 0
    return Value((Axis("R"), Axis("C", routing, order, int(found[0]))), columns[0], columns)


def concat(trace: Trace, node: Node) -> Value | None:
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
    if kinds == {"1"} and all(value.axes == known[0].axes and value.kinds == "C" for value in known):
        axes = tuple(Axis("R") if place == axis else each for place, each in enumerate(known[0].axes))
        return Value(axes, known[0].formula, tuple(value.formula for value in known))
    return None


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
    "relax.topk": top_k,
    "relax.argsort": argsort,
    "relax.call_pure_packed": packed,
    "relax.call_tir": kernel,
    "relax.take": take,
    "relax.tensor_to_shape": to_shape,
    "relax.cumsum": cumsum,
    "relax.scatter_elements": scatter,
    "relax.nonzero": nonzero,
    "relax.concat": concat,
    "match_cast": cast_shape,
}
