"""Cut the domain of a formula where its conditions change, so that no piece has a condition left.

    y[i, c] = if_then_else(c < 32, a[i, c], b[i, c - 32])   ->   c in [0, 32): a[i, c];  c in [32, n): b[i, c - 32]

Concatenation, padding and slicing with steps become plain copies, which are vectors.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import tvm_ffi
from tvm import ir, tirx
from tvm.ir import Expr, Var
from tvm.sym import Analyzer

from dscc.schedule.code import constant
from dscc.schedule.stages import loads, substitute

_MOST_PIECES = 32
_COMPARISONS = (tirx.LT, tirx.LE, tirx.GT, tirx.GE)


@dataclass(frozen=True)
class Interval:
    """`low <= var < high`."""

    low: Expr
    high: Expr


@dataclass(frozen=True)
class Piece:
    """A formula on a box of its domain: `where` gives the interval of every iteration variable."""

    value: Expr
    where: Mapping[Var, Interval]


@dataclass(frozen=True)
class _Cut:
    """What a comparison says about one variable: it is `below` where `var < at`, and the opposite from there on."""

    var: Var
    at: Expr
    below: bool


def pieces(value: Expr, extents: Mapping[Var, Expr]) -> list[Piece]:
    """The pieces of `value` over the box `extents`, in order; conditions that no cut decides stay in them."""
    analyzer = bounded(extents)
    whole = {var: Interval(tirx.const(0, var.ty.dtype), extent) for var, extent in extents.items()}
    cuts: dict[Var, list[Expr]] = {}
    for comparison in _conditions(value):
        cut = _cut(comparison, extents, analyzer)
        if cut is not None and not any(analyzer.can_prove_equal(cut.at, at) for at in cuts.get(cut.var, ())):
            cuts.setdefault(cut.var, []).append(cut.at)
    ordered = {var: _in_order(points, extents[var], analyzer) for var, points in cuts.items()}
    ordered = {var: points for var, points in ordered.items() if points}
    number = 1
    for points in ordered.values():
        number *= len(points) + 1
    if not ordered or number > _MOST_PIECES:
        return [Piece(value, whole)]
    found: list[Piece] = []
    for position in itertools.product(*(range(len(points) + 1) for points in ordered.values())):
        where = dict(whole)
        rank: dict[Var, tuple[list[Expr], int]] = {}
        for (var, points), i in zip(ordered.items(), position, strict=True):
            bounds = [whole[var].low, *(_clip(p, extents[var], analyzer) for p in points), extents[var]]
            where[var] = Interval(bounds[i], bounds[i + 1])
            rank[var] = (points, i)
        if any(analyzer.can_prove(interval.high <= interval.low) for interval in where.values()):
            continue
        found.append(Piece(_decide(value, rank, extents, analyzer), where))
    return found


def bounded(extents: Mapping[Var, Expr]) -> Analyzer:
    """An analyzer that knows that sizes are not negative."""
    analyzer = Analyzer()
    sizes: set[Var] = set()
    for extent in extents.values():
        tvm_ffi.structural_walk(extent, (Var, sizes.add))
    for size in sizes:
        analyzer.bind(size, ir.Range.from_min_extent(tirx.const(0, size.ty.dtype), tirx.const(1 << 30, size.ty.dtype)))
    return analyzer


def _conditions(value: Expr) -> list[Expr]:
    """The comparisons in the conditions of if_then_else and select."""
    found: list[Expr] = []

    def collect(condition: Expr) -> None:
        if isinstance(condition, tirx.And | tirx.Or):
            collect(condition.a)
            collect(condition.b)
        elif isinstance(condition, tirx.Not):
            collect(condition.a)
        elif isinstance(condition, _COMPARISONS):
            found.append(condition)
        elif isinstance(condition, ir.Call) and getattr(condition.op, "name", "") == "prim.likely":
            collect(condition.args[0])

    def call(node: ir.Call) -> None:
        if is_if_then_else(node):
            collect(node.args[0])

    tvm_ffi.structural_walk(value, [(ir.Call, call), (tirx.Select, lambda node: collect(node.condition))])
    return found


def is_if_then_else(node: Expr) -> bool:
    """Whether it is the lazy conditional expression."""
    return isinstance(node, ir.Call) and getattr(node.op, "name", "") == "prim.if_then_else"


def _cut(comparison: Expr, extents: Mapping[Var, Expr], analyzer: Analyzer) -> _Cut | None:
    if "int" not in str(comparison.a.ty.dtype) or loads(comparison):
        return None
    difference = comparison.a - comparison.b
    used: set[Var] = set()
    tvm_ffi.structural_walk(difference, (Var, lambda var: used.add(var) if var in extents else None))
    if len(used) != 1:
        return None
    (var,) = used
    slope = constant(analyzer.simplify(substitute(difference, {var: var + 1}) - difference))
    if slope not in (1, -1):
        return None
    rest = analyzer.simplify(substitute(difference, {var: tirx.const(0, var.ty.dtype)}))
    strict = isinstance(comparison, tirx.LT | tirx.GE)  # GE is the opposite of LT, GT of LE
    if slope == 1:  # var + rest < 0, or <= 0
        at, below = (0 - rest, True) if strict else (1 - rest, True)
    else:  # rest - var < 0, or <= 0
        at, below = (rest + 1, False) if strict else (rest, False)
    if isinstance(comparison, tirx.GT | tirx.GE):
        below = not below
    return _Cut(var, analyzer.simplify(at), below)


def _in_order(points: Sequence[Expr], extent: Expr, analyzer: Analyzer) -> list[Expr]:
    """The points in ascending order, or none if their order is not known."""
    ordered: list[Expr] = []
    for point in points:
        if analyzer.can_prove(point <= 0) or analyzer.can_prove(point >= extent):
            continue
        place = len(ordered)
        while place > 0 and analyzer.can_prove(point <= ordered[place - 1]):
            place -= 1
        if place > 0 and not analyzer.can_prove(ordered[place - 1] <= point):
            return []
        ordered.insert(place, point)
    return ordered


def _clip(point: Expr, extent: Expr, analyzer: Analyzer) -> Expr:
    if not analyzer.can_prove(point >= 0):
        point = tirx.max(point, tirx.const(0, point.ty.dtype))
    return point if analyzer.can_prove(point <= extent) else tirx.min(point, extent)


def _decide(
    value: Expr, rank: Mapping[Var, tuple[list[Expr], int]], extents: Mapping[Var, Expr], analyzer: Analyzer
) -> Expr:
    """`value` on one piece: comparisons that are constant there are replaced, and what follows from them."""

    def compare(node: Expr) -> Expr:
        cut = _cut(node, extents, analyzer)
        if cut is None:
            return node
        points, position = rank.get(cut.var, ([], 0))
        for i, point in enumerate(points):
            if analyzer.can_prove_equal(point, cut.at):
                return tirx.const(cut.below == (position <= i), "bool")
        if analyzer.can_prove(cut.at >= extents[cut.var]):
            return tirx.const(cut.below, "bool")
        if analyzer.can_prove(cut.at <= 0):
            return tirx.const(not cut.below, "bool")
        return node

    callbacks = [(kind, compare) for kind in _COMPARISONS]
    callbacks += [(kind, _fold) for kind in (tirx.And, tirx.Or, tirx.Not, tirx.Select, ir.Call)]
    return tvm_ffi.structural_map(value, callbacks)


def _fold(node: Expr) -> Expr:
    """Logic on constants."""
    if isinstance(node, tirx.And | tirx.Or):
        neutral = isinstance(node, tirx.And)
        for one, other in ((node.a, node.b), (node.b, node.a)):
            if isinstance(one, tirx.IntImm):
                return other if bool(one.value) == neutral else one
    elif isinstance(node, tirx.Not):
        if isinstance(node.a, tirx.IntImm):
            return tirx.const(not node.a.value, "bool")
    elif isinstance(node, tirx.Select):
        if isinstance(node.condition, tirx.IntImm):
            return node.true_value if node.condition.value else node.false_value
    elif is_if_then_else(node) and isinstance(node.args[0], tirx.IntImm):
        return node.args[1] if node.args[0].value else node.args[2]
    elif getattr(node.op, "name", "") == "prim.likely" and isinstance(node.args[0], tirx.IntImm):
        return node.args[0]
    return node
