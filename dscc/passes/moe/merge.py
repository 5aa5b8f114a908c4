"""One formula out of those of all experts, which differ in their constants only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import tvm_ffi
from tvm import tirx
from tvm.ir import Expr, Var

from dscc.passes.moe.routed import Core, Input, Leaves, Product, Share, Vector
from dscc.schedule.operands import parts_of, with_parts


class Differ(Exception):
    """The formulas are not alike; says what differs."""


class Merge:
    """Merges formulas; leaves that stand for the same in all of them stay one leaf.

    Attributes:
        leaves: what variables stand for; receives those of the result.
    """

    def __init__(self, leaves: Leaves):
        self.leaves = leaves
        self._cores: dict[tuple[int, ...], Core] = {}
        self._made: dict[tuple[Var, ...], Var] = {}

    def formulas(self, each: Sequence[Expr]) -> Expr:
        """The formula of which `each` expert's is an instance.

        Raises:
            Differ: there is none.
        """
        first = each[0]
        if all(isinstance(expr, Var) for expr in each):
            return self._variable([expr for expr in each if isinstance(expr, Var)])
        if any(type(expr) is not type(first) for expr in each):
            raise Differ(f"one expert computes '{first}', another something else")
        parts = [parts_of(expr) for expr in each]
        if not parts[0]:
            if all(tvm_ffi.structural_equal(expr, first) for expr in each):
                return first
            raise Differ("the experts have different numbers in their formulas")
        if any(len(some) != len(parts[0]) for some in parts):
            raise Differ("the experts' formulas differ in length")
        if hasattr(first, "op") and any(expr.op != first.op for expr in each):
            raise Differ("the experts have different activations")
        return with_parts(first, [self.formulas(some) for some in zip(*parts, strict=True)])

    def _variable(self, each: list[Var]) -> Var:
        key = tuple(each)
        if all(var.same_as(each[0]) for var in each):
            return each[0]
        if key not in self._made:
            self._made[key] = Var(each[0].name, each[0].ty)
            self.leaves[self._made[key]] = self._leaf([self.leaves.get(var) for var in each])
        return self._made[key]

    def _leaf(self, each: list[object]) -> object:
        first = each[0]
        if all(isinstance(leaf, Product) for leaf in each):
            products = [leaf for leaf in each if isinstance(leaf, Product)]
            if any(leaf.part != products[0].part for leaf in products):
                raise Differ("the experts take different parts of their products")
            return Product(self._core([leaf.core for leaf in products]), products[0].part)
        if all(isinstance(leaf, Vector) and not leaf.routed for leaf in each):
            vectors = [leaf for leaf in each if isinstance(leaf, Vector)]
            if any(leaf.part != vectors[0].part or len(leaf.constants) != 1 for leaf in vectors):
                raise Differ("the experts take different parts of their biases")
            return replace(vectors[0], constants=tuple(leaf.constants[0] for leaf in vectors))
        if all(isinstance(leaf, Vector) and leaf is first for leaf in each) or all(
            isinstance(leaf, Input) and isinstance(first, Input) and leaf.source.same_as(first.source) for leaf in each
        ):
            return first
        if all(isinstance(leaf, Share) for leaf in each):
            shares = [leaf for leaf in each if isinstance(leaf, Share)]
            if (
                all(leaf.source.same_as(shares[0].source) for leaf in shares)
                and len({_of(leaf) for leaf in shares}) == 1
            ):
                experts, of_all = [leaf.expert for leaf in shares], any(leaf.dense or leaf.spread for leaf in shares)
                if not of_all or experts == list(range(len(shares))):
                    return replace(shares[0], expert=-1)
        raise Differ("the experts read different values")

    def _core(self, each: list[Core]) -> Core:
        key = tuple(id(core) for core in each)
        if key not in self._cores:
            first = each[0]
            if any(core.columns_first != first.columns_first or len(core.weights) != 1 for core in each):
                raise Differ("the experts keep their weights in different ways")
            operand = self.formulas([core.operand.formula for core in each])
            self._cores[key] = Core(
                tuple(core.weights[0] for core in each),
                first.columns_first,
                replace(first.operand, formula=operand),
                first.source,
            )
        return self._cores[key]


def _of(share: Share) -> tuple[object, ...]:
    return share.dense, share.spread, share.routing


def with_leaves(expr: Expr, leaves: dict[Var, Expr]) -> Expr:
    """`expr` with variables replaced."""
    if isinstance(expr, Var):
        return leaves.get(expr, expr)
    parts = parts_of(expr)
    return with_parts(expr, [with_leaves(part, leaves) for part in parts]) if parts else expr


def variables_of(expr: Expr) -> list[Var]:
    """The variables of a formula, each once, in the order in which it reads them."""
    if isinstance(expr, Var):
        return [expr]
    found: dict[Var, None] = {}
    for part in parts_of(expr):
        found.update(dict.fromkeys(variables_of(part)))
    return list(found)


def shares_in(formula: Expr, leaves: Leaves) -> list[Share]:
    """The shares that a formula reads, also those that are in what its products multiply."""
    found = []
    for var in variables_of(formula):
        leaf = leaves.get(var)
        if isinstance(leaf, Share):
            found.append(leaf)
        elif isinstance(leaf, Product):
            found += shares_in(leaf.core.operand.formula, leaves)
    return found


def is_number(expr: Expr) -> bool:
    """Whether a formula is a constant."""
    return isinstance(expr, tirx.IntImm | tirx.FloatImm)
