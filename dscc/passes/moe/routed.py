"""What a value of the graph is in terms of a routing: along which axes it runs, and the formula of its elements.

    shares of all slots, sorted by expert      axes (sorted,)             formula: share
    the hidden layer of expert 3's tokens      axes (of expert 3, column) formula: gate * sigmoid(gate) * up

A formula is a scalar expression; its variables are leaves, which say what they stand for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm import relax, tirx
from tvm.ir import Expr, Var

from dscc.passes.moe.scalars import Unknown, evaluate, is_float
from dscc.passes.values import Dim, is_one
from dscc.schedule.operands import parts_of

_WHOLE = 1 << 22  # below, the third of a whole number is exact enough in a float32 to be rounded down


@dataclass(frozen=True, eq=False)
class Routing:
    """Every token's choice of experts.

    Attributes:
        ids: (tokens, top), the numbers of the experts.
        experts: how many there are.
        distinct: whether no token chooses an expert twice.
        slot: leaf: the number of a slot, token * top + place. expert: leaf: the expert of the slot.
        axis: leaf: the place along an axis of all experts.
    """

    ids: relax.Var
    tokens: Dim
    top: int
    experts: int
    distinct: bool = True
    slot: Var = field(default_factory=lambda: Var("slot", "int64"))
    expert: Var = field(default_factory=lambda: Var("expert", "int64"))
    axis: Var = field(default_factory=lambda: Var("axis", "int64"))

    @property
    def token(self) -> Expr:
        return tirx.floordiv(self.slot, tirx.const(self.top, "int64"))

    @property
    def place(self) -> Expr:
        return tirx.floormod(self.slot, tirx.const(self.top, "int64"))

    @property
    def slots(self) -> Dim:
        return self.tokens * self.top

    def simplify(self, expr: Expr) -> Expr:
        """A formula of integers with the ranges of the leaves made use of."""
        if _has_floats(expr):  # TVM 0.27 takes a number that was divided as a float for one divided as an integer
            return self.token if self._is_token(expr) else expr
        analyzer = tvm.sym.Analyzer()
        top = tirx.const(self.top, "int64")
        tokens = tirx.IntImm("int64", self.tokens) if isinstance(self.tokens, int) else self.tokens
        analyzer.bind(self.slot, tvm.ir.Range.from_min_extent(tirx.const(0, "int64"), tokens * top))
        for leaf in (self.expert, self.axis):
            extent = tirx.const(self.experts, "int64")
            analyzer.bind(leaf, tvm.ir.Range.from_min_extent(tirx.const(0, "int64"), extent))

        def rounded(node: tirx.Div | tirx.Mod) -> Expr:
            """A division of what is not negative rounds down, whichever it is."""
            if not analyzer.can_prove(node.a >= tirx.const(0, str(node.a.ty.dtype))):
                return node
            return tirx.floordiv(node.a, node.b) if isinstance(node, tirx.Div) else tirx.floormod(node.a, node.b)

        return analyzer.simplify(tvm_ffi.structural_map(expr, (tirx.Div, rounded), (tirx.Mod, rounded)))

    def _is_token(self, expr: Expr) -> bool:
        """Whether a formula of the slot that goes through floats is the slot's token, as in

        int(floor(float(slot) * 0.5)): tried on numbers, up to where floats have no whole numbers any more.
        """
        if is_float(str(expr.ty.dtype)):
            return False
        slots = np.unique(np.concatenate([np.arange(1 << 12), np.geomspace(1, _WHOLE, 1 << 12).astype(np.int64)]))
        slots = np.unique(np.concatenate([slots // self.top * self.top + place for place in range(self.top)]))
        try:
            return bool(np.array_equal(evaluate(expr, {self.slot: slots}), slots // self.top))
        except Unknown:
            return False

    def same(self, a: Expr, b: Expr) -> bool:
        """Whether two formulas of integers are provably the same."""
        return bool(tvm.sym.Analyzer().can_prove_equal(self.simplify(a), self.simplify(b)))


def _has_floats(expr: Expr) -> bool:
    if is_float(str(expr.ty.dtype)):
        return True
    return any(_has_floats(part) for part in parts_of(expr))


@dataclass(frozen=True)
class Axis:
    """One axis of a value.

    Attributes:
        kind: "1" of length 1; "T" tokens, "B" an outer dimension of theirs, "K" the choices of a token, "S" slots in
        order, "E" experts, "N" elements; "P" slots sorted by expert, "G" those of one expert among them, "C" the slots
        of one expert in order, "R" the coordinates of an element, "F" the elements of all tokens in one row, "X" the
        tokens of every expert.
        routing: of all but 1, N, T and B. key: which sorting, or which outer dimension. expert: whose, of G and C.
    """

    kind: str
    routing: Routing | None = None
    key: int = 0
    expert: int = -1


ONE, TOKENS, ELEMENTS = Axis("1"), Axis("T"), Axis("N")


def of_tokens(lead: Sequence[Dim], last: Axis) -> tuple[Axis, ...]:
    """Axes for dimensions that are tokens' together: `last` for the last one."""
    wide = [place for place, dim in enumerate(lead) if not is_one(dim)]
    axes = [ONE] * len(lead)
    for key, place in enumerate(wide):
        axes[place] = last if place == wide[-1] else Axis("B", key=key)
    return tuple(axes)


def kinds_of(axes: Sequence[Axis]) -> str:
    """The kinds of the axes but those of length 1; outer dimensions of tokens are left out where they lie in order
    before the last one.
    """
    found, outer = "", 0
    for axis in axes:
        if axis.kind == "B" and axis.key == outer:
            outer += 1
        elif axis.kind != "1":
            found += "B" * outer * (axis.kind not in "TS") + axis.kind
            outer = 0
    return found + "B" * outer


@dataclass(frozen=True, eq=False)
class Value:
    """What a tensor holds.

    Attributes:
        axes: one for each of its dimensions.
        formula: of an element.
        columns: of a value with an axis R: the formula of each coordinate.
        terms: of a sum over experts that is not complete: the formula of each of them.
        rest: what else is in that sum: tensors with as many elements, in the same order.
    """

    axes: tuple[Axis, ...]
    formula: Expr
    columns: tuple[Expr, ...] = ()
    terms: dict[int, Expr] = field(default_factory=dict)
    rest: tuple[relax.Expr, ...] = ()

    @property
    def kinds(self) -> str:
        return kinds_of(self.axes)

    @property
    def outer(self) -> int:
        """How many outer dimensions of tokens it runs along."""
        return sum(axis.kind == "B" for axis in self.axes)

    @property
    def routing(self) -> Routing | None:
        return next((axis.routing for axis in self.axes if axis.routing is not None), None)

    def axis(self, kind: str) -> Axis:
        return next(axis for axis in self.axes if axis.kind == kind)


@dataclass(frozen=True)
class Part:
    """Every `step`th of the elements from `begin` on, `count` of them."""

    begin: int
    step: int
    count: int

    def of(self, inner: Part) -> Part:
        """`self` of what `inner` takes."""
        return Part(inner.begin + self.begin * inner.step, inner.step * self.step, self.count)


@dataclass(frozen=True, eq=False)
class Input:
    """Leaf: an element of the token's row of `source`, of any rank, the elements last."""

    source: relax.Expr


@dataclass(frozen=True, eq=False)
class Share:
    """Leaf: what the slot counts: `source` (tokens, top) in its order; or, `dense`, (tokens, experts), of which those
    that `routing` did not choose are `outside`, and the one of `expert` if that is given. `turned`: (experts, tokens).
    `chosen`: what those are that it did choose, if that is one number. `spread`: that of `expert` for every token, 0
    for those that did not choose it, though `source` has only what they chose.
    """

    source: relax.Expr
    dense: bool = False
    turned: bool = False
    expert: int = -1
    routing: Routing | None = None
    outside: float = 0.0
    chosen: float | None = None
    spread: bool = False


@dataclass(frozen=True, eq=False)
class Core:
    """The product of a row with a matrix.

    Attributes:
        weights: a constant (experts, ..), or one (..) for every expert, or for the only one that this is of.
        columns_first: the matrix is (columns, depth), else (depth, columns).
        operand: the row's value. source: the expression that holds it.
    """

    weights: tuple[relax.Expr, ...]
    columns_first: bool
    operand: Value
    source: relax.Expr


@dataclass(frozen=True, eq=False)
class Product:
    """Leaf: an element of a product."""

    core: Core
    part: Part


@dataclass(frozen=True, eq=False)
class Vector:
    """Leaf: an element of a constant, (elements,), or (experts, elements) at the row's expert if `routed`; one for
    every expert after a merge.
    """

    constants: tuple[relax.Expr, ...]
    part: Part
    routed: bool = False


@dataclass(frozen=True, eq=False)
class Mark:
    """Leaf: "count" of the slots of an expert, "offset" of its end among the sorted ones, both at `expert` if that is
    given (-1 for before the first, -2 for none given); "place" of a slot among the sorted ones; "chosen": 1 for the
    tokens that chose `expert`, 0 for others.
    """

    kind: str
    routing: Routing
    expert: int = -2
    key: int = 0


@dataclass(frozen=True, eq=False)
class RowPlace:
    """Leaf: the place in a flat tensor of an element of the row of `token`."""

    token: Expr


@dataclass(frozen=True, eq=False)
class Matrices:
    """The experts' matrices of all rows of an axis: a constant (experts, .., ..) looked up at the expert of each."""

    axis: Axis
    stack: relax.Expr
    turned: bool = False


Leaves = dict[Var, Any]
