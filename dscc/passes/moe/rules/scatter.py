"""Scattering: a permutation inverted, slots counted, shares of all experts, rows added to those of their tokens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tvm import relax, tirx
from tvm.ir import Expr, Var

from dscc.passes.graph import Node
from dscc.passes.moe import scalars
from dscc.passes.moe.routed import ELEMENTS, TOKENS, Axis, Mark, Routing, RowPlace, Share, Value
from dscc.passes.moe.rules.sums import is_beside, sum_of
from dscc.passes.moe.trace import Mixed, Trace
from dscc.passes.values import attr, constant, dims, same_dim


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
    if len(shape) == 2 and axis % 2 == 0 and index.kinds == "CN":
        return _placed(trace, node, data, index, updates)
    if len(shape) == 1 and index.kinds == "P" and not adds and index.formula.same_as(routing.slot):
        if _counts_up(trace, updates, routing):
            place = Mark("place", routing, key=index.axis("P").key)
            return Value((Axis("S", routing),), trace.leaf("place", place, "int64"))
    if len(shape) == 1 and index.kinds in ("S", "P") and adds and same_dim(shape[0], routing.experts):
        if trace.is_all(data, 0) and trace.is_all(updates, 1) and _own(index.formula, routing):
            return Value((Axis("E", routing),), trace.leaf("count", Mark("count", routing), "int64"))
    chosen = index.kinds == "TK" if routing.top > 1 else index.kinds == "S"
    last = len(shape) > 1 and axis % len(shape) == len(shape) - 1 and index.axes[-1].kind in "1K"
    if last and chosen and index.formula.same_as(routing.expert):
        outside = trace.everywhere(data)
        if same_dim(shape[-1], routing.experts) and routing.distinct and outside is not None:
            lead = (Axis("T", routing) if each.kind == "S" else each for each in index.axes[:-1])
            share = Share(node.var, True, routing=routing, outside=outside, chosen=trace.everywhere(updates))
            return Value((*lead, Axis("E", routing)), trace.leaf("share", share))
    return None


def _counts_up(trace: Trace, expr: relax.Expr, routing: Routing) -> bool:
    """Whether `expr` is 0, 1, 2, ... up to the number of slots."""
    content = constant(trace.graph.value(expr))
    if content is not None:
        return same_dim(content.size, routing.slots) and bool((content.reshape(-1) == np.arange(content.size)).all())
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


def _placed(trace: Trace, node: Node, data: relax.Expr, index: Value, updates: relax.Expr) -> Value | None:
    """The rows of one expert at those of their tokens, each of which chose it but once, and zeros elsewhere."""
    values, routing = trace.value(updates), index.routing
    if values is None or routing is None or not routing.distinct or values.axes != index.axes or values.terms:
        return None
    if not routing.same(index.formula, routing.token) or not trace.is_all(data, 0):
        return None
    rows = Value((TOKENS, ELEMENTS), values.formula)
    return sum_of(trace, node, rows, {index.axis("C").expert: values.formula}, routing)


def _add_rows(
    trace: Trace, node: Node, data: relax.Expr, index: Value, leaf: RowPlace, updates: relax.Expr
) -> Value | None:
    """The rows of one expert, or of all, added to those of their tokens in a flat tensor."""
    routing, rows = index.routing, index.axes[0]
    values = trace.value(trace.bare(updates))
    before = trace.value(trace.bare(data))
    if routing is None or values is None or not routing.same(leaf.token, routing.token):
        return None
    if values.kinds != rows.kind + "N" or values.axes[0] != rows or values.terms:
        return None
    if rows.kind != "C":
        empty = trace.is_all(data, 0)
        if empty or is_beside(data, node.var):
            trace.mixed.append(Mixed(node, routing, values.formula, () if empty else (data,)))
        return None
    terms = dict(before.terms) if before is not None else {}
    rest = before.rest if before is not None else ()
    if rows.expert in terms or (terms and before is not None and before.routing is not routing):
        return None
    if not terms and not trace.is_all(data, 0):
        if not is_beside(data, node.var):
            return None
        rest = (data,)  # as where a shared expert's output is what rows are added to
    terms[rows.expert] = values.formula
    made = sum_of(trace, node, Value((TOKENS, ELEMENTS), values.formula), terms, routing, rest)
    return None if made is None else replace(made, axes=(Axis("F", routing),))


RULES = {"relax.scatter_elements": scatter}
