"""Follows values through a function: what each result is, given what its operands are.

What an operator makes of its operands is a rule, see rules/; this holds what was found, and answers what the rules ask
about it. A mixture is where a sum over the choices of a token, or over all experts, is complete.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import tvm
from tvm import ir, relax
from tvm.ir import Expr, Var

from dscc.passes.graph import Graph, Node, used_vars
from dscc.passes.moe import scalars
from dscc.passes.moe.merge import Merge, variables_of
from dscc.passes.moe.routed import (
    ELEMENTS,
    ONE,
    Axis,
    Input,
    Leaves,
    Mark,
    Matrices,
    Part,
    Product,
    Routing,
    Share,
    Value,
    Vector,
    kinds_of,
)
from dscc.passes.values import attr, constant, dims, dtype, is_one, same_dim

_LONGEST = 12  # steps from a constant to where it is used
Rule = Callable[["Trace", Node], Value | None]


@dataclass(frozen=True, eq=False)
class Mixed:
    """A complete sum: the formula of what every slot adds, over which routing, and what else is in it."""

    node: Node
    routing: Routing
    formula: Expr
    rest: tuple[relax.Expr, ...] = ()


class Trace:
    """The values of a function's variables, as far as they belong to a routing.

    Attributes:
        leaves: what the variables of formulas stand for.
        values: of variables. tuples: of their fields. matrices: those that were looked up for rows.
        routings: in order. lengths: symbol to the experts between the ends of whose slots so many lie.
        mixed: the complete sums, in order.
        lost: nodes that read something routed and make something that is not known here, with what they read.
    """

    def __init__(self, graph: Graph, mod: tvm.IRModule, rules: Mapping[str, Rule]):
        self.graph, self.mod, self.rules = graph, mod, rules
        self.leaves: Leaves = {}
        self.merge = Merge(self.leaves)
        self.values: dict[relax.Var, Value] = {}
        self.tuples: dict[relax.Var, list[Value | None]] = {}
        self.matrices: dict[relax.Var, Matrices] = {}
        self.routings: list[Routing] = []
        self.lengths: dict[Var, tuple[int, int, Routing]] = {}
        self.mixed: list[Mixed] = []
        self.lost: list[tuple[Node, Value]] = []
        self.inputs: dict[relax.Expr, Var] = {}
        self.made: set[relax.Var] = set()  # computed from experts' products, but not known here
        self.keys = 0

    def run(self) -> None:
        last: dict[Routing, Node] = {}
        for node in self.graph:
            self.visit(node)
            value = self.values.get(node.var)
            routing = value.routing if value is not None and value.kinds == "SN" else None
            if value is not None and routing is not None and routing.top == 1 and self._is_output(value.formula):
                last[routing] = node
        # Where a token has one choice there may be no sum: what comes last is the result.
        done = {mixed.routing for mixed in self.mixed}
        self.mixed += [Mixed(n, r, self.values[n.var].formula) for r, n in last.items() if r not in done]

    def _is_output(self, formula: Expr) -> bool:
        """Whether a formula reads a share and the product of a product."""
        leaves = [self.leaves.get(var) for var in variables_of(formula)]
        inner = [
            self.leaves.get(var)
            for leaf in leaves
            if isinstance(leaf, Product)
            for var in variables_of(leaf.core.operand.formula)
        ]
        return any(isinstance(leaf, Share) for leaf in leaves) and any(isinstance(leaf, Product) for leaf in inner)

    def visit(self, node: Node) -> None:
        if node.cast is not None:
            found = self.rules["match_cast"](self, node)
        elif node.op == "getitem":
            parts = self.tuples.get(node.value.tuple_value)
            found = parts[node.value.index] if parts is not None else None
        elif node.op == "var":
            found = self.value(node.value)
        elif node.op in self.rules:
            found = self.rules[node.op](self, node)
        else:
            found = None
        if found is not None:
            self.values[node.var] = found
        elif node.var not in self.tuples and node.var not in self.matrices:
            self._note(node)

    def _note(self, node: Node) -> None:
        if self.is_complete(node):
            return
        used = used_vars(node.value)
        read = [self.values[var] for var in used if var in self.values]
        routed = [value for value in read if value.routing is not None]
        if any(var in self.made for var in used) or any(self.has_product(value) for value in routed):
            self.made.add(node.var)
        if read and isinstance(node.value, relax.Call):
            self.lost.append((node, read[0]))

    def is_complete(self, node: Node) -> bool:
        """Whether a node is a complete sum."""
        return any(mixed.node is node for mixed in self.mixed)

    def has_product(self, value: Value) -> bool:
        """Whether a value is made of an expert's product."""
        return any(isinstance(self.leaves.get(var), Product) for var in variables_of(value.formula))

    # --- what is asked of values ---

    def value(self, expr: relax.Expr) -> Value | None:
        return self.values.get(expr) if isinstance(expr, relax.Var) else None

    def routing_of(self, value: Value) -> Routing | None:
        """The routing of a value's axes, or of what its formula counts."""
        marks = [leaf for var in variables_of(value.formula) if isinstance(leaf := self.leaves.get(var), Mark)]
        return value.routing or (marks[0].routing if marks else None)

    def const(self, expr: relax.Expr) -> relax.Expr | None:
        """The constant that `expr` is, or None."""
        found = self.graph.value(expr)
        return found if isinstance(found, ir.GenericConst) else None

    def weight(self, expr: relax.Expr) -> relax.Expr | None:
        """`expr` as a weight: the constant that it is, or itself if it is computed from constants only; else None."""
        return self.const(expr) or (expr if self._is_fixed(expr, _LONGEST) else None)

    def _is_fixed(self, expr: relax.Expr, steps: int) -> bool:
        if self.const(expr) is not None:
            return True
        node = self.graph.node(expr)
        if node is None or node.cast is not None or not steps:
            return False
        if node.op != "relax.split" and not all(isinstance(dim, int) for dim in dims(expr) or ("?",)):
            return False
        used = used_vars(node.value)
        return bool(used or node.op != "var") and all(self._is_fixed(var, steps - 1) for var in used)

    def dense_share(self, value: Value, outside: float | None = 0.0) -> Share | None:
        """The share of all experts that a value is, `outside` for those that were not chosen; None: anything."""
        leaf = self.leaves.get(value.formula) if isinstance(value.formula, Var) else None
        if not isinstance(leaf, Share) or not leaf.dense:
            return None
        return leaf if outside is None or leaf.outside == outside else None

    def leaf(self, name: str, meaning: object, kind: str = "float32") -> Var:
        var = Var(name, kind)
        self.leaves[var] = meaning
        return var

    def bare(self, expr: relax.Expr) -> relax.Expr:
        """`expr` without the reshapes that made it, and the casts from one float type to another."""
        while (node := self.graph.node(expr)) is not None:
            if node.op == "var":
                expr = node.value
            elif node.op in ("relax.reshape", "relax.squeeze") or _changes_float(node):
                expr = node.value.args[0]
            else:
                break
        return expr

    def is_all(self, expr: relax.Expr, number: float) -> bool:
        """Whether every element of `expr` is this number."""
        return self.everywhere(expr) == number

    def everywhere(self, expr: relax.Expr) -> float | None:
        """The number that every element of `expr` is, or None."""
        node = self.graph.node(expr)
        if node is not None and node.op in ("relax.broadcast_to", "relax.reshape", "relax.astype"):
            return self.everywhere(node.value.args[0])
        if node is not None and node.op == "relax.full":
            return self.everywhere(node.value.args[1])
        if node is not None and node.op in ("relax.zeros", "relax.ones", "relax.zeros_like", "relax.ones_like"):
            return 1.0 if "ones" in node.op else 0.0
        content = constant(self.graph.value(expr))
        if content is None or content.dtype == bool or not content.size:
            return None
        first = content.reshape(-1)[0]
        return float(first) if bool((content == first).all()) else None

    def token_rows(self, source: relax.Expr) -> Var:
        """The leaf for the rows of `source`, one for each token."""
        source = self.bare(source)
        if source not in self.inputs:
            self.inputs[source] = self.leaf("x", Input(source))
        return self.inputs[source]

    def repeated(self, expr: relax.Expr, routing: Routing) -> Value | None:
        """The tokens' rows, all of them for one expert after the other."""
        node, shape = self.graph.node(self.bare(expr)), dims(expr)
        if node is None or node.op not in ("relax.tile", "relax.broadcast_to") or shape is None or len(shape) != 2:
            return None
        rows = dims(node.value.args[0]) or ()
        wide = [dim for dim in rows if not is_one(dim)]
        if len(wide) != 2 or not same_dim(wide[0], routing.tokens) or not same_dim(wide[1], shape[1]):
            return None
        made = [dim for dim in dims(node.var) or () if not is_one(dim)]
        first = list(made) == [routing.experts, *wide]
        if node.op == "relax.tile" and len(made) == 2:
            times = attr(node.value, "repeats")
            first = tuple(times)[-2:] == (routing.experts, 1) and all(n == 1 for n in times[:-2])
        return Value((Axis("X", routing), ELEMENTS), self.token_rows(node.value.args[0])) if first else None

    def _rows(self, expr: relax.Expr, axes: Sequence[Axis]) -> Value | None:
        """A row for every token, whose elements run along the last axis."""
        of_tokens = kinds_of(axes[:-1])
        slots = of_tokens == "S" and all(axis.routing is None or axis.routing.top == 1 for axis in axes)
        if not (of_tokens == "T" or slots) or not scalars.is_float(dtype(expr)):
            return None
        return Value((*axes[:-1], ELEMENTS), self.token_rows(expr))

    def lifted(self, expr: relax.Expr, around: Sequence[Axis], routing: Routing | None) -> Value | None:
        """What has no value of its own as one beside a value along the axes `around`, aligned at the last."""
        shape = dims(expr)
        if shape is None or len(shape) > len(around) or expr in self.made:
            return None
        if (number := scalars.number(self.graph.value(expr))) is not None:
            return Value((ONE,) * len(shape), number)
        last = around[len(around) - len(shape) :]
        if last and last[0].kind == "X" and last[0].routing is not None:
            return self.repeated(expr, last[0].routing)
        axes = tuple(ONE if is_one(dim) else axis for dim, axis in zip(shape, last, strict=True))
        wide = [place for place, axis in enumerate(last) if axis.kind == "1" and not is_one(shape[place])]
        if wide:
            return self._rows(expr, axes) if wide == [len(shape) - 1] else None
        kinds = kinds_of(axes)
        if kinds in ("N", "EN") and (weight := self.weight(expr)) is not None:
            part = Part(0, 1, int(shape[[axis.kind for axis in axes].index("N")]))
            return Value(axes, self.leaf("bias", Vector((weight,), part, kinds == "EN")))
        if kinds in ("S", "TK") and routing is not None and scalars.is_float(dtype(expr)):
            return Value(axes, self.leaf("share", Share(self.bare(expr))))
        return None


def _changes_float(node: Node) -> bool:
    """Whether a node turns one float type into another."""
    return node.op == "relax.astype" and all(scalars.is_float(dtype(e)) for e in (node.value.args[0], node.var))
