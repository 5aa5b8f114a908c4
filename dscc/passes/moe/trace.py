"""Follows values through a function: what each result is, given what its operands are.

Every rule here is a fact about one operator; a mixture is found where a sum over the choices of a token, or over all
experts, is complete.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import tvm
from tvm import ir, relax, tirx
from tvm.ir import Expr, Var

from dscc.passes.graph import Graph, Node, used_vars
from dscc.passes.moe import scalars
from dscc.passes.moe.merge import Differ, Merge, variables_of, with_leaves
from dscc.passes.moe.routed import (
    ELEMENTS,
    ONE,
    TOKENS,
    Axis,
    Core,
    Input,
    Leaves,
    Mark,
    Part,
    Product,
    Routing,
    Share,
    Value,
    Vector,
    reshaped,
)
from dscc.passes.values import Dim, attr, constant, dims, dtype, numbers, same_dim

Rule = Callable[["Trace", Node], Value | None]


@dataclass(frozen=True, eq=False)
class Matrices:
    """The experts' matrices of all rows of an axis: a constant (experts, .., ..) looked up at the expert of each."""

    axis: Axis
    stack: relax.Expr
    turned: bool = False


@dataclass(frozen=True, eq=False)
class Mixed:
    """A complete sum: the formula of what every slot adds, and over which routing."""

    node: Node
    routing: Routing
    formula: Expr


class Trace:
    """The values of a function's variables, as far as they belong to a routing.

    Attributes:
        leaves: what the variables of formulas stand for.
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
        elif isinstance(node.value, relax.Call) and scalars.operands(node.value) is not None:
            found = self.elementwise(node, scalars.operands(node.value) or [], lambda a: scalars.apply(node.value, a))
        else:
            found = None
        if found is not None:
            self.values[node.var] = found
        elif node.var not in self.tuples and node.var not in self.matrices:
            self._note(node)

    def _note(self, node: Node) -> None:
        if any(mixed.node is node for mixed in self.mixed):
            return
        used = used_vars(node.value)
        read = [self.values[var] for var in used if var in self.values]
        routed = [value for value in read if value.routing is not None]
        if any(var in self.made for var in used) or any(self.has_product(value) for value in routed):
            self.made.add(node.var)
        if read and isinstance(node.value, relax.Call):
            self.lost.append((node, read[0]))

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

    def leaf(self, name: str, meaning: object, kind: str = "float32") -> Var:
        var = Var(name, kind)
        self.leaves[var] = meaning
        return var

    def bare(self, expr: relax.Expr) -> relax.Expr:
        """`expr` without the reshapes that made it."""
        while (node := self.graph.node(expr)) is not None and node.op in ("relax.reshape", "relax.squeeze", "var"):
            expr = node.value if node.op == "var" else node.value.args[0]
        return expr

    def is_all(self, expr: relax.Expr, number: float) -> bool:
        """Whether every element of `expr` is this number."""
        node = self.graph.node(expr)
        if node is not None and node.op in ("relax.broadcast_to", "relax.reshape", "relax.astype"):
            return self.is_all(node.value.args[0], number)
        if node is not None and node.op == "relax.full":
            return self.is_all(node.value.args[1], number)
        if node is not None and node.op in ("relax.zeros", "relax.ones", "relax.zeros_like", "relax.ones_like"):
            return number == (1 if "ones" in node.op else 0)
        content = constant(self.graph.value(expr))
        return content is not None and content.dtype != bool and bool((content == number).all())

    def token_rows(self, source: relax.Expr) -> Var:
        """The leaf for the rows of `source`, one for each token."""
        source = self.bare(source)
        if source not in self.inputs:
            self.inputs[source] = self.leaf("x", Input(source))
        return self.inputs[source]

    def lifted(self, expr: relax.Expr, around: Sequence[Axis], routing: Routing | None) -> Value | None:
        """What has no value of its own as one beside a value along the axes `around`, aligned at the last."""
        shape = dims(expr)
        if shape is None or len(shape) > len(around) or expr in self.made:
            return None
        if (number := scalars.number(self.graph.value(expr))) is not None:
            return Value((ONE,) * len(shape), number)
        axes = tuple(
            ONE if dim == 1 else axis for dim, axis in zip(shape, around[len(around) - len(shape) :], strict=True)
        )
        kinds = "".join(axis.kind for axis in axes if axis.kind != "1")
        constant_ = self.const(expr)
        if constant_ is not None and kinds in ("N", "EN"):
            part = Part(0, 1, int(shape[[axis.kind for axis in axes].index("N")]))
            return Value(axes, self.leaf("bias", Vector((constant_,), part, kinds == "EN")))
        if kinds in ("S", "TK") and routing is not None and scalars.is_float(dtype(expr)):
            return Value(axes, self.leaf("share", Share(self.bare(expr))))
        return None

    # --- elementwise ---

    def elementwise(
        self, node: Node, args: Sequence[relax.Expr], apply: Callable[[list[Expr]], Expr | None]
    ) -> Value | None:
        known = [value for arg in args if (value := self.value(arg)) is not None]
        if not known:
            return None
        routing = next((value.routing for value in known if value.routing is not None), None)
        rank = len(dims(node.var) or ())
        around = self._joined([value.axes for value in known], rank)
        if around is None:
            return None
        dense = self._dense(node, known)
        if dense is not None:
            return dense
        values = []
        for arg in args:
            value = self.value(arg) or self.lifted(arg, around, routing)
            if value is None or value.columns:
                return None
            values.append(value)
        terms = self._terms(node, values)
        if terms is not None:
            return terms
        axes = self._joined([value.axes for value in values], rank)
        if axes is None or any(value.terms for value in values):
            return None
        made = apply([value.formula for value in values])
        if made is None:
            return None
        return Value(axes, made if routing is None else self.settled(made, routing))

    def settled(self, formula: Expr, routing: Routing) -> Expr:
        """A formula in simple terms: integers simplified, counts as they are whatever type they are in."""
        inner = formula
        while isinstance(inner, tirx.Cast):
            inner = inner.value
        if isinstance(inner, Var) and isinstance(self.leaves.get(inner), Mark):
            return inner
        return routing.simplify(formula)

    def _joined(self, each: Sequence[tuple[Axis, ...]], rank: int) -> tuple[Axis, ...] | None:
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
        return tuple(found)

    def _dense(self, node: Node, known: Sequence[Value]) -> Value | None:
        """A product or quotient of shares of all experts with anything of their shape: again zero where they are."""
        first = known[0]
        if node.op not in ("relax.multiply", "relax.divide", "relax.astype"):
            return None
        shares = [value for value in known if "N" not in value.kinds and self._is_dense(value)]
        if not shares or "E" not in shares[0].kinds or any("N" in value.kinds for value in known):
            return None
        if node.op == "relax.divide" and first is not shares[0]:
            return None
        shape = dims(node.var) or ()
        if len(shape) != len(shares[0].axes):
            return None
        if any(axis.kind == "1" and not same_dim(dim, 1) for axis, dim in zip(shares[0].axes, shape, strict=True)):
            return None  # repeated along the other operand's axis
        leaf = self.leaves[variables_of(shares[0].formula)[0]]
        turned = shares[0].kinds == "ET"
        return Value(shares[0].axes, self.leaf("share", replace(leaf, source=node.var, turned=turned)))

    def _is_dense(self, value: Value) -> bool:
        return (
            isinstance(value.formula, Var) and isinstance(leaf := self.leaves.get(value.formula), Share) and leaf.dense
        )

    def experts_of(self, formula: Expr) -> set[int]:
        """The experts whose share of the dense kind a formula reads."""
        leaves = [self.leaves.get(var) for var in variables_of(formula)]
        return {leaf.expert for leaf in leaves if isinstance(leaf, Share) and leaf.dense and leaf.expert >= 0}

    def _terms(self, node: Node, values: Sequence[Value]) -> Value | None:
        """The sum of what some experts add to all tokens."""
        if node.op != "relax.add" or any("N" not in value.kinds and not value.terms for value in values):
            return None
        total: dict[int, Expr] = {}
        for value in values:
            found = value.terms or dict.fromkeys(self.experts_of(value.formula), value.formula)
            if (not value.terms and len(found) != 1) or total.keys() & found.keys():
                return None
            total |= found
        return self.sum_of(node, values[0], total)

    def sum_of(self, node: Node, like: Value, terms: dict[int, Expr], routing: Routing | None = None) -> Value:
        """A value that is the sum over some experts; complete if they are all."""
        routing = routing or self._routing_of(terms) or like.routing
        if routing is not None and sorted(terms) == list(range(routing.experts)):
            try:
                formula = self.merge.formulas([terms[expert] for expert in range(routing.experts)])
                self.mixed.append(Mixed(node, routing, formula))
            except Differ:
                self.lost.append((node, like))
        axes = tuple(TOKENS if axis.kind in "TS" else axis for axis in like.axes)
        return Value(axes, like.formula, (), terms)

    def _routing_of(self, terms: dict[int, Expr]) -> Routing | None:
        for formula in terms.values():
            for var in variables_of(formula):
                leaf = self.leaves.get(var)
                if isinstance(leaf, Share) and leaf.dense:
                    return leaf.routing
        return None

    # --- shape ---

    def reshape(self, node: Node) -> Value | None:
        value = self.value(node.value.args[0])
        old, new = dims(node.value.args[0]), dims(node.var)
        if value is None or old is None or new is None or value.columns:
            return None
        axes = reshaped(value.axes, old, new)
        return None if axes is None else replace(value, axes=axes)

    def permute(self, node: Node) -> Value | None:
        source = node.value.args[0]
        order = attr(node.value, "axes")
        rank = len(dims(source) or ())
        order = tuple(reversed(range(rank))) if order is None else tuple(order)
        if source in self.matrices and order == (0, 2, 1):
            found = self.matrices[source]
            self.matrices[node.var] = Matrices(found.axis, found.stack, not found.turned)
            return None
        value = self.value(source)
        if value is None:
            return None
        made = replace(value, axes=tuple(value.axes[axis] for axis in order))
        if self._is_dense(made) and "E" in made.kinds:
            leaf = self.leaves[made.formula]
            return replace(made, formula=self.leaf("share", replace(leaf, turned=made.kinds == "ET", source=node.var)))
        return made

    def broadcast(self, node: Node) -> Value | None:
        value = self.value(node.value.args[0])
        shape, old = dims(node.var), dims(node.value.args[0])
        if value is None or shape is None or old is None or value.columns:
            return None
        axes = [ONE] * (len(shape) - len(value.axes)) + list(value.axes)
        for place, (axis, dim) in enumerate(zip(axes, shape, strict=True)):
            if axis.kind == "1" and not (isinstance(dim, int) and dim == 1):
                axes[place] = self._repeat(value, dim)
        return None if any(axis.kind == "?" for axis in axes) else replace(value, axes=tuple(axes))

    def _repeat(self, value: Value, dim: Dim) -> Axis:
        """The axis along which a value is repeated."""
        routing = value.routing
        if routing is not None and "T" in value.kinds and "K" not in value.kinds and same_dim(dim, routing.top):
            return Axis("K", routing)
        return ELEMENTS if "N" not in value.kinds else Axis("?")

    def slice(self, node: Node) -> Value | None:
        call = node.value
        value, shape = self.value(call.args[0]), dims(call.args[0])
        parts = [numbers(arg) for arg in call.args[1:4]]
        steps = numbers(call.args[4]) if len(call.args) > 4 else None
        if value is None or shape is None or any(part is None for part in parts):
            return None
        for place, (axis, begin) in enumerate(zip(parts[0] or (), parts[1] or (), strict=True)):
            extent, step = shape[int(axis)], int(steps[place]) if steps else 1
            if not isinstance(extent, int) or value is None:
                return None
            first, last = (
                min(max(int(n) + (extent if n < 0 else 0), 0), extent) for n in (begin, (parts[2] or ())[place])
            )
            value = self.taken(value, int(axis), first, step, len(range(first, last, step)))
        return value

    def split(self, node: Node) -> Value | None:
        value, shape = self.value(node.value.args[0]), dims(node.value.args[0])
        cuts, axis = attr(node.value, "indices_or_sections"), attr(node.value, "axis")
        if value is None or shape is None or not isinstance(shape[axis], int):
            return None
        extent = shape[axis]
        if isinstance(cuts, int):
            cuts = tuple(range(extent // cuts, extent, extent // cuts))
        bounds = [0, *(int(cut) for cut in cuts), extent]
        self.tuples[node.var] = [
            self.taken(value, axis, begin, 1, end - begin) for begin, end in itertools.pairwise(bounds)
        ]
        return None

    def taken(self, value: Value, axis: int, begin: int, step: int, count: int) -> Value | None:
        """Some elements along an axis: all but of the result's elements only single ones."""
        kind = value.axes[axis].kind
        if kind == "1":
            return value
        if kind == "N":
            return replace(value, formula=self._parted(value.formula, Part(begin, step, count)))
        if count != 1:
            return None
        axes = tuple(ONE if place == axis else each for place, each in enumerate(value.axes))
        if kind == "R" and begin < len(value.columns):
            return Value(axes, value.columns[begin])
        routing = value.axes[axis].routing
        if kind != "E" or routing is None:
            return None
        fixed: dict[Var, Expr] = {routing.axis: tirx.const(begin, "int64")}
        for var in variables_of(value.formula):
            leaf = self.leaves.get(var)
            if isinstance(leaf, Share) and leaf.dense and leaf.expert < 0:
                fixed[var] = self.leaf("share", replace(leaf, expert=begin))
            elif isinstance(leaf, Mark) and leaf.kind == "offset" and leaf.expert == -2:
                fixed[var] = self.leaf("offset", replace(leaf, expert=begin), "int64")
            elif isinstance(leaf, Product) and len(leaf.core.weights) == 1:
                return None
        return Value(axes, routing.simplify(with_leaves(value.formula, fixed)))

    def _parted(self, formula: Expr, part: Part) -> Expr:
        new: dict[Var, Expr] = {}
        for var in variables_of(formula):
            leaf = self.leaves.get(var)
            if isinstance(leaf, Product | Vector):
                new[var] = self.leaf(var.name, replace(leaf, part=part.of(leaf.part)))
        return with_leaves(formula, new)

    # --- products ---

    def matmul(self, node: Node) -> Value | None:
        left, right = node.value.args
        if left in self.matrices or right in self.matrices:
            return self._looked_up(node, left, right)
        weight, shape = self.const(right), dims(right)
        if weight is not None and shape is not None and len(shape) in (2, 3):
            return self._dense_product(left, weight, len(shape))
        a, b = self.value(left), self.value(right)
        if a is not None and b is not None and self._is_dense(a) and a.kinds == "TE" and b.kinds == "TEN":
            self.complete_dense(node, a.formula * b.formula)
        return None

    def _dense_product(self, left: relax.Expr, weight: relax.Expr, rank: int) -> Value | None:
        """Rows times a constant, or times those of all experts."""
        value, shape = self.value(left), dims(left)
        if value is None and rank == 3:
            left = self._unrepeated(left)
            shape = dims(left)
        if shape is None or len(shape) < 2 or not scalars.is_float(dtype(left)):
            return None
        if value is None:
            axes = (*(ONE if isinstance(dim, int) and dim == 1 else TOKENS for dim in shape[:-1]), ELEMENTS)
            if axes.count(TOKENS) != 1 or not isinstance(shape[-1], int):
                return None
            value = Value(axes, self.token_rows(left))
        if not value.axes or value.axes[-1].kind != "N" or value.terms or value.columns:
            return None
        axes = value.axes
        count = int(dims(weight)[-1])  # type: ignore[index]
        if rank == 3:
            experts = int(dims(weight)[0])  # type: ignore[index]
            routing = next((r for r in reversed(self.routings) if r.experts == experts), None)
            if routing is None or experts == 1:
                return None
            axes = (ONE,) * (3 - len(axes)) + axes
            if len(axes) != 3 or axes[0].kind not in "1E" or axes[1].kind != "T":
                return None
            axes = (Axis("E", routing), *axes[1:])
        elif "E" in value.kinds:
            return None
        core = Core((weight,), False, value, left)
        return Value(axes, self.leaf("p", Product(core, Part(0, 1, count))))

    def _unrepeated(self, expr: relax.Expr) -> relax.Expr:
        """The rows that were repeated for every expert, or `expr` itself."""
        node = self.graph.node(self.bare(expr))
        shape = dims(expr)
        if node is None or node.op not in ("relax.broadcast_to", "relax.tile") or shape is None or len(shape) != 3:
            return expr
        inner = [dim for dim in dims(node.value.args[0]) or () if not (isinstance(dim, int) and dim == 1)]
        alike = len(inner) == 2 and same_dim(inner[0], shape[1]) and same_dim(inner[1], shape[2])
        return node.value.args[0] if alike else expr

    def _looked_up(self, node: Node, left: relax.Expr, right: relax.Expr) -> Value | None:
        """Every row with the matrix of its expert."""
        first = left in self.matrices
        found, other = self.matrices[left if first else right], right if first else left
        value, shape, out = self.value(other) or self.rows(other, found.axis), dims(other), dims(node.var)
        if value is None or shape is None or out is None or len(shape) != 3 or shape[2 if first else 1] != 1:
            return None
        if value.axes[0] != found.axis or value.kinds != found.axis.kind + "N":
            return None
        core = Core((found.stack,), first != found.turned, value, other)
        axes = (found.axis, ELEMENTS, ONE) if first else (found.axis, ONE, ELEMENTS)
        return Value(axes, self.leaf("p", Product(core, Part(0, 1, int(out[1 if first else 2])))))

    def rows(self, expr: relax.Expr, axis: Axis) -> Value | None:
        """The token's row for every slot, where it was repeated for them by shape alone."""
        shape, routing = dims(expr), axis.routing
        if shape is None or axis.kind != "S" or routing is None:
            return None
        if routing.top == 1 and len(shape) == 3 and same_dim(shape[0], routing.tokens):
            return Value(
                tuple(ONE if dim == 1 else a for a, dim in zip((axis, ELEMENTS, ELEMENTS), shape, strict=True)),
                self.token_rows(expr),
            )
        wide = self.graph.node(self.bare(expr))
        if wide is None or wide.op not in ("relax.broadcast_to", "relax.tile"):
            return None
        outer = [dim for dim in dims(wide.var) or () if not (isinstance(dim, int) and dim == 1)]
        inner = [dim for dim in dims(wide.value.args[0]) or () if not (isinstance(dim, int) and dim == 1)]
        if len(outer) != 3 or len(inner) != 2 or not same_dim(outer[1], routing.top):
            return None
        if not (same_dim(outer[0], inner[0]) and same_dim(inner[0], routing.tokens) and same_dim(outer[2], inner[1])):
            return None
        axes = reshaped((axis, ELEMENTS), (routing.slots, outer[2]), shape)
        return None if axes is None else Value(axes, self.token_rows(wide.value.args[0]))

    # --- sums ---

    def total(self, node: Node) -> Value | None:
        value, shape = self.value(node.value.args[0]), dims(node.value.args[0])
        over, keep = attr(node.value, "axis"), attr(node.value, "keepdims")
        if value is None or shape is None or over is None:
            return None
        over = {axis % len(shape) for axis in over}
        kinds = "".join(axis.kind for place, axis in enumerate(value.axes) if place in over and axis.kind != "1")
        routing = value.routing
        left = tuple(
            ONE if place in over else axis for place, axis in enumerate(value.axes) if keep or place not in over
        )
        if routing is None:
            return None
        if kinds == "K" and value.kinds == "TKN":
            self.mixed.append(Mixed(node, routing, value.formula))
        elif kinds == "E" and value.kinds in ("ETN", "TEN"):
            self.complete_dense(node, value.formula)
        elif kinds == "K" and sorted(value.kinds) == ["E", "K", "T"] and self._is_hot(value, routing):
            order = "".join(axis.kind for axis in left if axis.kind != "1")
            return self.dense(node.var, left, routing, order == "ET")
        elif sorted(kinds) in (["K", "T"], ["S"]) and "E" in value.kinds and self._counts(value, routing):
            return Value(left, self.leaf("count", Mark("count", routing), "int64"))
        return None

    def complete_dense(self, node: Node, formula: Expr) -> None:
        """The sum over all experts of a formula that reads a share of the dense kind."""
        for var in variables_of(formula):
            leaf = self.leaves.get(var)
            if isinstance(leaf, Share) and leaf.dense and leaf.routing is not None:
                self.mixed.append(Mixed(node, leaf.routing, formula))
                return

    def dense(self, source: relax.Var, axes: tuple[Axis, ...], routing: Routing, turned: bool) -> Value:
        """Shares of all experts, zero for those that were not chosen."""
        return Value(axes, self.leaf("share", Share(source, True, turned, routing=routing)))

    def _is_hot(self, value: Value, routing: Routing) -> bool:
        """Whether the formula is zero wherever the place along the experts' axis is not the slot's expert."""
        return self._table(value.formula, routing, 1.7, lambda table, own: not table[~own].any())

    def _counts(self, value: Value, routing: Routing) -> bool:
        return self._table(value.formula, routing, None, lambda table, own: bool((table == own).all()))

    def _table(self, formula: Expr, routing: Routing, share: float | None, holds: Callable[..., bool]) -> bool:
        expert, axis = np.meshgrid(np.arange(routing.experts), np.arange(routing.experts), indexing="ij")
        values: dict[Var, object] = {routing.expert: expert, routing.axis: axis}
        for var in variables_of(formula):
            if isinstance(self.leaves.get(var), Share):
                if share is None:
                    return False
                values[var] = np.full(expert.shape, share)
        try:
            table = np.broadcast_to(np.asarray(scalars.evaluate(formula, values)), expert.shape)
        except scalars.Unknown:
            return False
        return holds(table, expert == axis)


RULES: dict[str, Rule] = {
    "relax.reshape": Trace.reshape,
    "relax.squeeze": Trace.reshape,
    "relax.expand_dims": Trace.reshape,
    "relax.permute_dims": Trace.permute,
    "relax.broadcast_to": Trace.broadcast,
    "relax.strided_slice": Trace.slice,
    "relax.split": Trace.split,
    "relax.matmul": Trace.matmul,
    "relax.sum": Trace.total,
}
