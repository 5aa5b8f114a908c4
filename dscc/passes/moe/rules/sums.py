"""Sums over the choices of a token, over all experts, or expert by expert; one-hot masks and counts among them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from tvm import relax
from tvm.ir import Expr, Var

from dscc.passes.graph import Node
from dscc.passes.moe import scalars
from dscc.passes.moe.merge import Differ, shares_in, variables_of
from dscc.passes.moe.routed import ONE, Axis, Mark, Routing, Share, Value
from dscc.passes.moe.trace import Mixed, Trace
from dscc.passes.values import attr, dims, dtype, same_dim


def total(trace: Trace, node: Node) -> Value | None:
    """A complete sum; or, of a one-hot mask, the shares of all experts or the count of every expert's slots."""
    value, shape = trace.value(node.value.args[0]), dims(node.value.args[0])
    over, keep = attr(node.value, "axis"), attr(node.value, "keepdims")
    if value is None or shape is None or over is None:
        return None
    over = {axis % len(shape) for axis in over}
    kinds = "".join(axis.kind for place, axis in enumerate(value.axes) if place in over and axis.kind != "1")
    routing = value.routing
    left = tuple(ONE if place in over else axis for place, axis in enumerate(value.axes) if keep or place not in over)
    if routing is None:
        return None
    if kinds == "K" and value.kinds == "TKN":
        trace.mixed.append(Mixed(node, routing, value.formula))
    elif kinds == "E" and value.kinds in ("ETN", "TEN", "TNE"):
        complete_dense(trace, node, value.formula)
    elif kinds == "K" and sorted(value.kinds) == ["E", "K", "T"] and _is_hot(trace, value, routing):
        order = "".join(axis.kind for axis in left if axis.kind != "1")
        return dense_shares(trace, node.var, left, routing, order == "ET")
    elif sorted(kinds) in (["K", "T"], ["S"]) and "E" in value.kinds and _counts(trace, value, routing):
        return Value(left, trace.leaf("count", Mark("count", routing), "int64"))
    elif (
        kinds == "K"
        and value.kinds == "TK"
        and routing.distinct
        and (mark := _whether_chosen(trace, value, routing)) is not None
    ):
        return Value(left, trace.leaf("chosen", mark, "int64"))
    elif kinds == "K" and value.kinds == "TK" and (share := _share_of_one(trace, value, routing)) is not None:
        return Value(left, trace.leaf("share", share))
    elif set(kinds) <= {"B", "T"} and kinds.count("B") == value.outer and sorted(value.kinds) == ["E", "T"]:
        if _is_one_where_chosen(trace, value.formula):
            return Value(left, trace.leaf("count", Mark("count", routing), "int64"))
    return None


def greatest(trace: Trace, node: Node) -> Value | None:
    """Over the choices of every token: whether one of them is a certain expert."""
    value, shape = trace.value(node.value.args[0]), dims(node.value.args[0])
    over, keep = attr(node.value, "axis"), attr(node.value, "keepdims")
    if value is None or shape is None or over is None or value.kinds != "TK" or value.routing is None:
        return None
    over = {axis % len(shape) for axis in over}
    if "".join(axis.kind for place, axis in enumerate(value.axes) if place in over and axis.kind != "1") != "K":
        return None
    mark = _whether_chosen(trace, value, value.routing)
    left = tuple(ONE if place in over else axis for place, axis in enumerate(value.axes) if keep or place not in over)
    return None if mark is None else Value(left, trace.leaf("chosen", mark, "int64"))


def _whether_chosen(trace: Trace, value: Value, routing: Routing) -> Mark | None:
    """The expert that a mask over the choices is about: 1 where it is chosen, 0 elsewhere."""
    each = np.arange(routing.experts)
    try:
        made = np.broadcast_to(scalars.evaluate(value.formula, {routing.expert: each}), each.shape)
    except scalars.Unknown:
        return None
    found = np.flatnonzero(made)
    return Mark("chosen", routing, int(found[0])) if len(found) == 1 and made[found[0]] == 1 else None


def _share_of_one(trace: Trace, value: Value, routing: Routing) -> Share | None:
    """What every token's share of one expert is, if a sum over its choices is that: sum(share * (expert == 3))."""
    shares = {var: leaf for var in variables_of(value.formula) if isinstance(leaf := trace.leaves.get(var), Share)}
    if len(shares) != 1 or not routing.distinct or any(leaf.dense or leaf.spread for leaf in shares.values()):
        return None
    ((var, share),) = shares.items()
    each = np.arange(routing.experts)
    try:
        made = [
            scalars.evaluate(value.formula, {routing.expert: each, var: np.full(each.shape, number, np.float32)})
            for number in (1.75, -0.5)
        ]
    except scalars.Unknown:
        return None
    (found, *others) = np.flatnonzero(made[0]) if np.count_nonzero(made[0]) else (None,)
    if found is None or others or not np.array_equal(made, [1.75 * (each == found), -0.5 * (each == found)]):
        return None
    return replace(share, expert=int(found), spread=True, routing=routing)


def _is_one_where_chosen(trace: Trace, formula: Expr) -> bool:
    """Whether a formula of shares of all experts is 1 for those that were chosen and 0 for the others."""
    values: dict[Var, object] = {}
    for var in variables_of(formula):
        leaf = trace.leaves.get(var)
        if not isinstance(leaf, Share) or not leaf.dense or leaf.chosen is None:
            return False
        values[var] = np.array([leaf.outside, leaf.chosen], np.float32)
    try:
        return bool(np.array_equal(scalars.evaluate(formula, values), [0, 1]))
    except scalars.Unknown:
        return False


def _is_hot(trace: Trace, value: Value, routing: Routing) -> bool:
    """Whether the formula is zero wherever the place along the experts' axis is not the slot's expert, of which a token
    has each but once.
    """
    return routing.distinct and _table(trace, value.formula, routing, 1.7, lambda table, own: not table[~own].any())


def _counts(trace: Trace, value: Value, routing: Routing) -> bool:
    """Whether the formula is 1 at the slot's expert and 0 elsewhere."""
    return _table(trace, value.formula, routing, None, lambda table, own: bool((table == own).all()))


def _table(trace: Trace, formula: Expr, routing: Routing, share: float | None, holds: Callable[..., bool]) -> bool:
    """Whether `holds` is true of the formula's values (expert, axis) and of where the two are the same; `share`: what
    stands for every share, None where there must be none.
    """
    expert, axis = np.meshgrid(np.arange(routing.experts), np.arange(routing.experts), indexing="ij")
    values: dict[Var, object] = {routing.expert: expert, routing.axis: axis}
    for var in variables_of(formula):
        if isinstance(trace.leaves.get(var), Share):
            if share is None:
                return False
            values[var] = np.full(expert.shape, share)
    try:
        table = np.broadcast_to(np.asarray(scalars.evaluate(formula, values)), expert.shape)
    except scalars.Unknown:
        return False
    return holds(table, expert == axis)


def complete_dense(trace: Trace, node: Node, formula: Expr) -> None:
    """The sum over all experts of a formula that reads a share of the dense kind."""
    for share in shares_in(formula, trace.leaves):
        if share.dense and share.routing is not None:
            trace.mixed.append(Mixed(node, share.routing, formula))
            return


def dense_shares(trace: Trace, source: relax.Var, axes: tuple[Axis, ...], routing: Routing, turned: bool) -> Value:
    """Shares of all experts, zero for those that were not chosen."""
    return Value(axes, trace.leaf("share", Share(source, True, turned, routing=routing)))


def terms(trace: Trace, node: Node, args: Sequence[relax.Expr]) -> Value | None:
    """The sum of what some experts add to all tokens, and of what is not theirs: a shared expert's rows, a residual."""
    if node.op != "relax.add":
        return None
    every: dict[int, Expr] = {}
    rest: tuple[relax.Expr, ...] = ()
    like = None
    routings: set[Routing] = set()
    for arg in args:
        value = trace.value(arg)
        found = {} if value is None else value.terms or _term(trace, value)
        if every.keys() & found.keys():
            return None
        if found and value is not None:
            like, every, rest = value, every | found, (*rest, *value.rest)
            routings |= {each for each in (value.routing, _routing_of(trace, found)) if each is not None}
        elif is_beside(arg, node.var):
            rest = rest if trace.is_all(arg, 0) else (*rest, arg)
        else:
            return None
    if like is None or len(routings) > 1:
        return None
    return sum_of(trace, node, like, every, next(iter(routings), None), rest)


def is_beside(expr: relax.Expr, whole: relax.Var) -> bool:
    """Whether a tensor has the shape and type of a sum, of which it is a part."""
    one, other = dims(expr), dims(whole)
    if one is None or other is None or len(one) != len(other) or dtype(expr) != dtype(whole):
        return False
    return all(same_dim(a, b) for a, b in zip(one, other, strict=True))


def _term(trace: Trace, value: Value) -> dict[int, Expr]:
    """The formula of the one expert whose rows a value is, if it reads its share."""
    experts = _experts_of(trace, value.formula) if "N" in value.kinds and not value.columns else set()
    return dict.fromkeys(experts, value.formula) if len(experts) == 1 else {}


def _experts_of(trace: Trace, formula: Expr) -> set[int]:
    """The experts whose share, of those that all tokens have, a formula reads."""
    return {share.expert for share in shares_in(formula, trace.leaves) if share.expert >= 0}


def sum_of(
    trace: Trace,
    node: Node,
    like: Value,
    terms: dict[int, Expr],
    routing: Routing | None = None,
    rest: tuple[relax.Expr, ...] = (),
) -> Value | None:
    """A value that is the sum over some experts, or None if they are all: then it is complete."""
    routing = routing or _routing_of(trace, terms) or like.routing
    axes = tuple(Axis("T", routing) if axis.kind in "TS" else axis for axis in like.axes)
    if routing is None or sorted(terms) != list(range(routing.experts)):
        return Value(axes, like.formula, (), terms, rest)
    try:
        formula = trace.merge.formulas([terms[expert] for expert in range(routing.experts)])
        trace.mixed.append(Mixed(node, routing, formula, rest))
    except Differ:
        trace.lost.append((node, like))
    return None


def _routing_of(trace: Trace, terms: dict[int, Expr]) -> Routing | None:
    """The routing whose shares, of those that all tokens have, the terms read."""
    shares = (share for formula in terms.values() for share in shares_in(formula, trace.leaves))
    return next((share.routing for share in shares if share.dense or share.spread), None)


RULES = {"relax.sum": total, "relax.max": greatest}
