"""Elementwise operators, and what the front end wrote as functions of its own: formulas over the operands' formulas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from tvm import tirx
from tvm.ir import Expr, Var

from dscc.passes.graph import Node
from dscc.passes.moe import kernels, scalars
from dscc.passes.moe.routed import ELEMENTS, ONE, Axis, Mark, Routing, RowPlace, Value
from dscc.passes.moe.rules.gather import lookup
from dscc.passes.moe.rules.products import with_matrix
from dscc.passes.moe.rules.segments import segment, window
from dscc.passes.moe.rules.sums import terms
from dscc.passes.moe.trace import Trace
from dscc.passes.values import attr, constant, dims, dtype, same_dim
from dscc.schedule.stages import substitute


def elementwise(trace: Trace, node: Node) -> Value | None:
    """An operator's formula over those of its operands, along their joined axes."""
    args = scalars.operands(node.value) or []
    known = [value for arg in args if (value := trace.value(arg)) is not None]
    if node.op == "relax.astype" and args[0] in trace.matrices:
        trace.matrices[node.var] = trace.matrices[args[0]]
    if not known:
        return None
    routing = next((value.routing for value in known if value.routing is not None), None)
    rank = len(dims(node.var) or ())
    around = _joined([value.axes for value in known], rank)
    if around is None:
        return None
    shares = _dense_shares(trace, node, known)
    if shares is not None:
        return shares
    several = terms(trace, node, args)
    if several is not None or trace.is_complete(node):
        return several
    values = []
    for arg in args:
        value = trace.value(arg) or trace.lifted(arg, around, routing)
        if value is None or value.columns:
            return None
        values.append(value)
    axes = _joined([value.axes for value in values], rank)
    if axes is None or any(value.terms for value in values):
        return None
    made = scalars.apply(node.value, [value.formula for value in values])
    if made is None:
        return None
    return Value(axes, made if routing is None else _settled(trace, made, routing))


def _settled(trace: Trace, formula: Expr, routing: Routing) -> Expr:
    """A formula in simple terms: integers simplified, counts as they are whatever type they are in."""
    inner = formula
    while isinstance(inner, tirx.Cast):
        inner = inner.value
    if isinstance(inner, Var) and isinstance(trace.leaves.get(inner), Mark):
        return inner
    return routing.simplify(formula)


def _joined(each: Sequence[tuple[Axis, ...]], rank: int) -> tuple[Axis, ...] | None:
    """The axes of the result of broadcasting, or None if two different ones meet."""
    found = [ONE] * rank
    for axes in each:
        for place, axis in enumerate(axes, start=rank - len(axes)):
            if axis.kind == "1" or axis == found[place]:
                continue
            if found[place].kind == "1" or {axis.kind, found[place].kind} == {"T"}:
                found[place] = axis if axis.routing is not None or found[place].kind == "1" else found[place]
                continue
            return None
    outer = [place for place, axis in enumerate(found) if axis.kind == "B"]
    for axes in each if outer else ():
        own = (ONE,) * (rank - len(axes)) + axes
        if any(axis.kind in "TS" for axis in axes) and any(own[place].kind != "B" for place in outer):
            return None  # the same tokens for every one of an outer dimension
    return tuple(found)


def _dense_shares(trace: Trace, node: Node, known: Sequence[Value]) -> Value | None:
    """A product or quotient of shares of all experts with anything of their shape: again zero where they are; or a
    function of each, which may make zero of what was something else.
    """
    if len(known) == 1 and node.op in _ALONE and (share := trace.dense_share(known[0], None)) is not None:
        with np.errstate(all="ignore"):
            outside = float(_ALONE[node.op](share.outside))
        turned = known[0].kinds == "ET"
        made = replace(share, source=node.var, turned=turned, outside=outside, chosen=None)
        return Value(known[0].axes, trace.leaf("share", made)) if "E" in known[0].kinds else None
    if node.op not in ("relax.multiply", "relax.divide", "relax.astype"):
        return None
    if any("N" in value.kinds for value in known):
        return None
    value, share = next(((value, share) for value in known if (share := trace.dense_share(value))), (None, None))
    if value is None or share is None or "E" not in value.kinds:
        return None
    if node.op == "relax.divide" and value is not known[0]:
        return None
    shape = dims(node.var) or ()
    if len(shape) != len(value.axes):
        return None
    if any(axis.kind == "1" and not same_dim(dim, 1) for axis, dim in zip(value.axes, shape, strict=True)):
        return None  # repeated along the other operand's axis
    made = replace(share, source=node.var, turned=value.kinds == "ET", chosen=share.chosen if len(known) == 1 else None)
    return Value(value.axes, trace.leaf("share", made))


_ALONE: dict[str, Callable[[float], float]] = {
    "relax.sigmoid": lambda x: 1 / (1 + np.exp(-np.float64(x))),
    "relax.exp": np.exp,
    "relax.nn.relu": lambda x: max(0.0, x),
}


def softmax(trace: Trace, node: Node) -> Value | None:
    """Of shares of all experts, along these: those that were minus infinity become zero."""
    value = trace.value(node.value.args[0])
    share = trace.dense_share(value, -np.inf) if value is not None else None
    if value is None or share is None or value.axes[attr(node.value, "axis") % len(value.axes)].kind != "E":
        return None
    made = replace(share, source=node.var, turned=value.kinds == "ET", outside=0.0, chosen=None)
    return Value(value.axes, trace.leaf("share", made))


def kernel(trace: Trace, node: Node) -> Value | None:
    """A function that the front end wrote: a lookup, a formula, or a product."""
    multiplied = kernels.multiplied(node.value, trace.mod)
    if multiplied is not None:
        return with_matrix(trace, node, multiplied[0], multiplied[1].args)
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
    for axis, dim in enumerate(dims(node.var) or ()):
        if isinstance(dim, Var) and dim in trace.lengths and (cut := kernels.window(found, axis)) is not None:
            return window(trace, node, cut)
    formula = kernels.formula(found, [constant(trace.graph.value(arg)) for arg in found.args])
    return None if formula is None else _of_formula(trace, node, found, formula)


def _of_formula(trace: Trace, node: Node, found: kernels.Kernel, formula: kernels.Formula) -> Value | None:
    """What a function with a formula computes; an axis along which it reads nothing is one of experts or of rows."""
    rank, shape = len(formula.extents), dims(node.var)
    placed: list[tuple[Axis, ...]] = []
    given = [value for arg in found.args if (value := trace.value(arg)) is not None]
    routing = next((r for value in given if (r := trace.routing_of(value)) is not None), None)
    counted = next((trace.lengths[dim] for dim in shape or () if isinstance(dim, Var) and dim in trace.lengths), None)
    routing = routing or (counted[2] if counted else None)
    values: dict[Var, Expr] = {}
    whole: dict[int, bool] = {}  # whether an axis of the result is all of an operand's, not its first elements
    for var, (which, places) in formula.operands.items():
        arg = found.args[which]
        value = trace.value(arg)
        if value is None:
            number = scalars.number(trace.graph.value(arg))
            if number is None:
                return None
            values[var] = number
            continue
        if value.columns or value.terms:
            return None
        own = [ONE] * rank
        for axis, dim, place in zip(value.axes, dims(arg) or (), places, strict=True):
            if axis.kind != "1":
                if place is None or own[place].kind != "1":
                    return None
                own[place] = axis
                whole[place] = whole.get(place, False) or same_dim(dim, (shape or ())[place])
        placed.append(tuple(own))
        is_float = scalars.is_float(dtype(arg))
        values[var] = scalars.cast(value.formula, str(var.ty.dtype)) if is_float else value.formula
    joined = _joined(placed, rank)
    if routing is None or shape is None or joined is None or not all(whole.values()):
        return None
    around = list(joined)
    for place, var in formula.free.items():
        if kernels.row_places(formula) is not None and place == rank - 1 and around[0].kind in "CPS":
            return Value((around[0], ELEMENTS), trace.leaf("place", RowPlace(next(iter(values.values())))))
        of_expert = segment(trace, shape[place], formula.value, values, var) if rank == 1 else None
        if of_expert is not None:
            return of_expert
        if not isinstance(shape[place], int) or shape[place] < routing.experts:
            return None
        around[place], values[var] = Axis("E", routing), routing.axis
    return Value(tuple(around), _settled(trace, substitute(formula.value, values), routing))


RULES = {
    **{f"relax.{name}": elementwise for name in scalars.OPERATORS},
    "relax.call_tir": kernel,
    "relax.nn.softmax": softmax,
}
