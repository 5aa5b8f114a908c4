"""Match the patterns of `tvm.relax.dpl` against a `Graph`, operands of commutative operators in both orders.

TVM's matcher takes operands in the order written and knows no graph to ask for users. This one walks the pattern
itself, tries every order with backtracking, and reports which nodes a match covers; a kind of pattern that it does
not know is asked of TVM.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import tvm
import tvm_ffi
from tvm import relax
from tvm.relax import dpl

from dscc.passes.graph import Graph, Node

COMMUTATIVE = frozenset(
    f"relax.{op}"
    for op in (
        "add",
        "multiply",
        "maximum",
        "minimum",
        "equal",
        "not_equal",
        "logical_and",
        "logical_or",
        "logical_xor",
    )
)

Expr: TypeAlias = relax.Expr
Bound: TypeAlias = dict[dpl.DFPattern, Expr]  # what each wildcard, and each part of the pattern, stands for


@dataclass
class Match:
    """One place where a pattern fits.

    Attributes:
        root: the node that the whole pattern describes.
        bound: pattern to the expression that it matched.
        inner: the nodes besides the root that the pattern's operators matched.
    """

    root: Node
    bound: Bound
    inner: list[Node] = field(default_factory=list)


def find(pattern: dpl.DFPattern, root: Node, graph: Graph) -> Iterator[Match]:
    """All ways in which `pattern` fits at `root`, best first: operands as written before operands exchanged."""
    for bound in _fit(pattern, root.var, {}, graph):
        inner: dict[Node, None] = {}
        for part, expr in bound.items():
            node = graph.node(expr) if isinstance(part, dpl.CallPattern | dpl.TupleGetItemPattern) else None
            if node is not None and node is not root:
                inner[node] = None
        yield Match(root, bound, list(inner))


def root_ops(pattern: dpl.DFPattern) -> frozenset[str] | None:
    """The operators that `pattern` may have at its root; None if it could be anything."""
    if isinstance(pattern, dpl.CallPattern):
        op = pattern.op
        return frozenset({op.expr.name}) if isinstance(op, dpl.ExprPattern) and isinstance(op.expr, tvm.ir.Op) else None
    if isinstance(pattern, dpl.OrPattern):
        left, right = root_ops(pattern.left), root_ops(pattern.right)
        return None if left is None or right is None else left | right
    if isinstance(pattern, dpl.AndPattern):
        return root_ops(pattern.left) or root_ops(pattern.right)
    if isinstance(pattern, dpl.AttrPattern | dpl.DataTypePattern | dpl.ShapePattern | dpl.TypePattern):
        return root_ops(pattern.pattern)
    return None


def _fit(pattern: dpl.DFPattern, expr: Expr, bound: Bound, graph: Graph) -> Iterator[Bound]:
    if pattern in bound:
        if _same(bound[pattern], expr, graph):
            yield bound
        return
    if isinstance(pattern, dpl.WildcardPattern):
        yield {**bound, pattern: expr}
    elif isinstance(pattern, dpl.CallPattern):
        yield from _fit_call(pattern, expr, bound, graph)
    elif isinstance(pattern, dpl.OrPattern):
        yield from _fit(pattern.left, expr, bound, graph)
        yield from _fit(pattern.right, expr, bound, graph)
    elif isinstance(pattern, dpl.AndPattern):
        for some in _fit(pattern.left, expr, bound, graph):
            yield from _fit(pattern.right, expr, some, graph)
    elif isinstance(pattern, dpl.NotPattern):
        if next(_fit(pattern.reject, expr, bound, graph), None) is None:
            yield bound
    elif isinstance(pattern, dpl.TuplePattern):
        value = graph.value(expr)
        if isinstance(value, relax.Tuple) and len(value.fields) == len(pattern.fields):
            yield from _fit_all(list(pattern.fields), list(value.fields), bound, graph)
    elif isinstance(pattern, dpl.TupleGetItemPattern):
        value = graph.value(expr)
        if isinstance(value, relax.TupleGetItem) and pattern.index in (-1, value.index):
            yield from _fit(pattern.tuple, value.tuple_value, {**bound, pattern: expr}, graph)
    elif isinstance(pattern, dpl.AttrPattern | dpl.DataTypePattern | dpl.ShapePattern | dpl.TypePattern):
        if _asked_of_tvm(pattern, expr, graph):
            yield from _fit(pattern.pattern, expr, bound, graph)
    elif pattern.match(graph.value(expr)):
        yield {**bound, pattern: expr}


def _fit_call(pattern: dpl.CallPattern, expr: Expr, bound: Bound, graph: Graph) -> Iterator[Bound]:
    value = graph.value(expr)
    if not isinstance(value, relax.Call) or not pattern.op.match(value.op):
        return
    wanted = list(pattern.args) if pattern.args is not None else []
    args = list(value.args)
    if len(args) < len(wanted) or (
        len(args) > len(wanted) and not pattern.varg_default_wildcard and pattern.args is not None
    ):
        return
    bound = {**bound, pattern: expr}
    yield from _fit_all(wanted, args, bound, graph)
    if len(wanted) == 2 and isinstance(value.op, tvm.ir.Op) and value.op.name in COMMUTATIVE:
        yield from _fit_all(wanted, args[::-1], bound, graph)


def _fit_all(patterns: Sequence[dpl.DFPattern], exprs: Sequence[Expr], bound: Bound, graph: Graph) -> Iterator[Bound]:
    if not patterns:
        yield bound
        return
    for some in _fit(patterns[0], exprs[0], bound, graph):
        yield from _fit_all(patterns[1:], exprs[1:], some, graph)


def _asked_of_tvm(pattern: dpl.DFPattern, expr: Expr, graph: Graph) -> bool:
    """Whether the constraint that `pattern` puts around another pattern holds; the inner pattern is matched by us."""
    around = type(pattern)
    probe = dpl.wildcard()
    if around is dpl.AttrPattern:
        return bool(dpl.AttrPattern(probe, pattern.attrs).match(graph.value(expr)))
    if around is dpl.DataTypePattern:
        return isinstance(expr.ty, relax.TensorType) and expr.ty.dtype == pattern.dtype
    if around is dpl.ShapePattern:
        return bool(dpl.ShapePattern(probe, list(pattern.shape)).match(expr))
    return bool(dpl.TypePattern(probe, pattern.ty).match(expr))


def _same(a: Expr, b: Expr, graph: Graph) -> bool:
    """Whether two expressions are one value: the same variable, or equal scalar constants."""
    if a.same_as(b) or graph.value(a).same_as(graph.value(b)):
        return True
    both = isinstance(a, tvm.ir.GenericConst) and isinstance(b, tvm.ir.GenericConst)
    return both and a.ty.ndim == 0 and bool(tvm_ffi.structural_equal(a, b))
