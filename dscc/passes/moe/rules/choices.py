"""Choices of experts and of slots: the best of every token, sorting by expert, the slots where a mask is set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from tvm import relax, tirx

from dscc.passes.graph import Node
from dscc.passes.moe import scalars
from dscc.passes.moe.merge import variables_of
from dscc.passes.moe.routed import ONE, Axis, Mark, Routing, Value, of_tokens
from dscc.passes.moe.trace import Trace
from dscc.passes.values import attr, dims, is_one, same_dim


def top_k(trace: Trace, node: Node) -> Value | None:
    """The best of every row: of a matrix with a row for each token, the experts that it chooses; or, where there are as
    many as slots, their order.
    """
    source = node.value.args[0]
    shape, axis, largest = dims(source), attr(node.value, "axis"), attr(node.value, "largest")
    sorts = trace.value(source)
    if sorts is not None and sorts.routing is not None and not largest and attr(node.value, "ret_type") == "both":
        order = sorted_by(trace, sorts, sorts.routing) if same_dim(attr(node.value, "k"), sorts.routing.slots) else None
        trace.tuples[node.var] = [order and replace(order, formula=sorts.formula), order]
        return None
    if shape is None or not largest or axis % len(shape) != len(shape) - 1 or attr(node.value, "ret_type") != "both":
        return None
    lead = [dim for dim in shape[:-1] if not is_one(dim)]
    top = attr(node.value, "k")
    ids = next(
        (user.var for user in trace.graph.users(node.var) if user.op == "getitem" and user.value.index == 1), None
    )
    if not lead or not isinstance(shape[-1], int) or ids is None:
        return None
    routing = Routing(ids, math.prod(lead[1:], start=lead[0]), int(top), shape[-1])
    trace.routings.append(routing)
    axes = of_tokens(shape[:-1], Axis("T" if top > 1 else "S", routing))
    trace.tuples[node.var] = [None, Value((*axes, Axis("K", routing) if top > 1 else ONE), routing.expert)]
    return None


def best(trace: Trace, node: Node) -> Value | None:
    """The best of every row: one expert for every token."""
    shape, made, axis = dims(node.value.args[0]), dims(node.var), attr(node.value, "axis")
    if shape is None or made is None or axis is None or axis % len(shape) != len(shape) - 1:
        return None
    extent = shape[-1]
    if not isinstance(extent, int):
        return None
    lead, left = ([dim for dim in some if not is_one(dim)] for some in (shape[:-1], made))
    if not lead or len(lead) != len(left) or not all(same_dim(a, b) for a, b in zip(lead, left, strict=True)):
        return None
    routing = Routing(node.var, math.prod(lead[1:], start=lead[0]), 1, extent)
    trace.routings.append(routing)
    return Value(of_tokens(made, Axis("S", routing)), routing.expert)


def together(trace: Trace, node: Node, known: Sequence[Value], axis: int) -> Value | None:
    """Choices of the same tokens among the same experts, side by side: one choice of several."""
    routings = [value.routing for value in known]
    first = routings[0]
    if first is None:
        return None
    for value, routing in zip(known, routings, strict=True):
        if routing is None or not value.formula.same_as(routing.expert) or value.kinds not in ("S", "TK"):
            return None
        if routing.experts != first.experts or not same_dim(routing.tokens, first.tokens):
            return None
        if value.axes[axis].kind != ("1" if routing.top == 1 else "K") or axis != len(value.axes) - 1:
            return None
    top = sum(routing.top for routing in routings if routing is not None)
    whole = Routing(node.var, first.tokens, top, first.experts, distinct=False)
    trace.routings.append(whole)
    axes = (Axis("T", whole) if each.kind in "TS" else each for each in known[0].axes[:-1])
    return Value((*axes, Axis("K", whole)), whole.expert)


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


def nonzero(trace: Trace, node: Node) -> Value | None:
    return where(trace, node.value.args[0])


def where(trace: Trace, mask_of: relax.Expr) -> Value | None:
    """The slots of one expert: where a mask over the choices is set."""
    value = trace.value(mask_of)
    routing = value.routing if value is not None else None
    if value is not None and value.kinds == "T" and not value.outer:
        return _tokens_where(trace, value)
    if value is None or routing is None or sorted(value.kinds) not in (["K", "T"], ["S"]) or value.outer:
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


def _tokens_where(trace: Trace, value: Value) -> Value | None:
    """The tokens that chose one expert, each once: where a mask over them is set."""
    leaves = {var: trace.leaves.get(var) for var in variables_of(value.formula)}
    ((var, leaf),) = leaves.items() if len(leaves) == 1 else ((None, None),)
    if var is None or not isinstance(leaf, Mark) or leaf.kind != "chosen" or not leaf.routing.distinct:
        return None
    try:
        mask = scalars.evaluate(value.formula, {var: np.arange(2)})
    except scalars.Unknown:
        return None
    if not np.array_equal(np.asarray(mask) != 0, [False, True]):
        return None
    columns = tuple(leaf.routing.token if axis.kind == "T" else tirx.const(0, "int64") for axis in value.axes)
    rows = Axis("C", leaf.routing, 0, leaf.expert)
    if len(columns) == 1:
        return Value((ONE, rows), columns[0])  # the only coordinate
    return Value((Axis("R"), rows), columns[0], columns)


RULES = {
    "relax.topk": top_k,
    "relax.argmax": best,
    "relax.argsort": argsort,
    "relax.nonzero": nonzero,
    "relax.call_pure_packed": packed,
}
