"""The forms in which each value of a function is at hand: itself, or with its dimensions in another order.

A *form* of a value `v` is a pair of an order and an expression: `expr` is `permute_dims(v, order)`. Operators put the
forms that they produce here and ask for the forms that they need; a `permute_dims` is written only when somebody asks
for one that is not there. So a permutation in the source costs nothing by itself, and two that undo each other never
come about.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import tvm
from tvm import relax

from dscc.passes.graph import Graph, Node
from dscc.passes.values import Dim, at_sizes, const, constant, dim, dims, dtype, rank, same_dim, same_dims

Order: TypeAlias = tuple[int, ...]

NOMINAL = 32  # what an open dimension counts as when bytes are compared


def identity(ndim: int) -> Order:
    """The order that changes nothing."""
    return tuple(range(ndim))


def inverse(order: Order) -> Order:
    """The order that undoes `order`."""
    return tuple(order.index(axis) for axis in range(len(order)))


def channels_last(ndim: int) -> Order:
    """(0, 2, 3, 1) and its like."""
    return (0, *range(2, ndim), 1)


def permuted(shape: tuple[Dim, ...], order: Order) -> tuple[Dim, ...]:
    """The dimensions in another order."""
    return tuple(shape[axis] for axis in order)


class Forms:
    """What is at hand while a function is walked from its inputs to its outputs."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._forms: dict[relax.Var, dict[Order, relax.Expr]] = {}
        self._fields: dict[relax.Var, list[dict[Order, relax.Expr]]] = {}
        self._flat: dict[relax.Var, relax.Expr] = {}
        self._ones: list[Dim] = []  # open dimensions of which a match_cast has checked that they are 1

    def learn(self, node: Node) -> None:
        """What `match_cast(R.shape([...]), R.Shape([...]))` checks when it runs is known to be so behind it."""
        if isinstance(node.value, relax.ShapeExpr) and isinstance(node.cast, relax.ShapeType) and node.cast.values:
            for found, wanted in zip(node.value.values, node.cast.values, strict=True):
                if same_dim(dim(wanted), 1) and not same_dim(dim(found), 1) and not self._is_one(found):
                    self._ones.append(found)

    def known(self, value: relax.Expr) -> tuple[Dim, ...] | None:
        """The dimensions of `value`, those that were found to be 1 when they were checked written as 1."""
        shape = dims(value)
        if shape is None or not self._ones:
            return shape
        return tuple(1 if self._is_one(d) else d for d in shape)

    def _is_one(self, size: Dim) -> bool:
        return not isinstance(size, int) and any(same_dim(size, one) for one in self._ones)

    def at_hand(self, value: relax.Expr) -> dict[Order, relax.Expr]:
        """The forms of a variable or constant that exist, the one that was made first in front."""
        if isinstance(value, relax.Var) and value in self._forms:
            return self._forms[value]
        ndim = rank(value)
        return {} if ndim is None else {identity(ndim): value}

    def put(self, value: relax.Var, order: Order, expr: relax.Expr) -> None:
        """`expr` is a form of `value`."""
        forms = self._forms.setdefault(value, {})
        if order not in forms:
            forms[order] = expr
            if order == identity(len(order)) and not expr.same_as(value):
                self._define(value, expr)

    def _define(self, value: relax.Var, expr: relax.Expr) -> relax.Expr:
        """Let `value` itself be `expr`, for all its readers; returns the variable that they read from now on."""
        definition = self.graph.node(value)
        if definition is not None:
            self.graph.replace(definition, expr)
        made = self.graph.resolve(value)
        forms = self._forms[value]
        forms[identity(rank(value) or 0)] = made
        if isinstance(made, relax.Var):
            self._forms[made] = forms
        return made

    def put_flat(self, node: Node, order: Order, flat: relax.Expr) -> None:
        """`flat` is a form of what `node` computes but for its shape: that of an operator over two dimensions."""
        flat = self.graph.emit(node, flat, node.var.name)
        lying = permuted(dims(node.var) or (), order)
        made = flat if same_dims(dims(flat), lying) else self.graph.emit(node, relax.op.reshape(flat, list(lying)))
        if made is not flat and isinstance(made, relax.Var):
            self._flat[made] = flat
        self.put(node.var, order, made)

    def flat(self, form: relax.Expr) -> relax.Expr | None:
        """What `form` is a reshape of, if `put_flat` made it."""
        return self._flat.get(form) if isinstance(form, relax.Var) else None

    def put_fields(self, value: relax.Var, order: Order, expr: relax.Expr) -> None:
        """`expr` is a tuple whose fields are forms of those of `value`."""
        self._fields[value] = [{order: relax.TupleGetItem(expr, i)} for i in range(len(value.ty.fields))]

    def field(self, value: relax.Var, index: int) -> dict[Order, relax.Expr] | None:
        """The forms of a field of a tuple, where an operator put them."""
        return self._fields[value][index] if value in self._fields else None

    def is_moved(self, value: relax.Expr) -> bool:
        """Whether `value` itself is not at hand, only other forms of it."""
        return (
            isinstance(value, relax.Var)
            and value in self._forms
            and identity(rank(value) or 0) not in self._forms[value]
        )

    def get(self, value: relax.Expr, order: Order, before: Node) -> relax.Expr:
        """`value` in the order asked for, permuted in front of `before` if it is not at hand."""
        forms = self.at_hand(value)
        if order in forms:
            return forms[order]
        fixed = constant(self.graph.value(value))
        if fixed is not None:
            return const(np.transpose(fixed, order))
        have, expr = next(iter(forms.items()))
        defined = order == identity(len(order)) and self.graph.node(value) is not None
        found = self._without_moving(value, {have: expr} if defined else forms, order)
        if found is None and defined:  # forms that were made later come behind the place where it was computed before
            found = self._without_moving(value, forms, order)
            defined = found is None
        if found is None:
            found = relax.op.permute_dims(expr, [have.index(axis) for axis in order])
        self._forms.setdefault(value, dict(forms))
        if defined:
            return self._define(value, found)  # under its own name, where it was computed before
        made = self.graph.emit(before, found, value.name)
        self._forms[value][order] = made
        return made

    def _without_moving(self, value: relax.Expr, forms: dict[Order, relax.Expr], order: Order) -> relax.Expr | None:
        """A reshape, where some form differs only in the places of dimensions that are 1."""
        shape = dims(value)
        if shape is None:
            return None
        for have, expr in forms.items():
            if [a for a in have if shape[a] != 1] == [a for a in order if shape[a] != 1]:
                return self.reshaped(expr, permuted(shape, order))
        return None

    def reshaped(self, expr: relax.Expr, shape: tuple[Dim, ...] | list[Dim]) -> relax.Expr:
        """`expr` in another shape; what it was reshaped from, if that has this shape."""
        source = self.graph.node(expr)
        if source is not None and source.op == "relax.reshape":
            expr = source.value.args[0]
        return expr if same_dims(dims(expr), tuple(shape)) else relax.op.reshape(expr, list(shape))

    def cost(self, value: relax.Expr, order: Order) -> float:
        """The bytes that asking for this form would move; 0 if nothing would be."""
        forms, shape = self.at_hand(value), dims(value)
        if order in forms or isinstance(self.graph.value(value), tvm.ir.GenericConst):
            return 0.0
        if shape is None:
            return math.inf
        for have in forms:
            if [a for a in have if shape[a] != 1] == [a for a in order if shape[a] != 1]:
                return 0.0
        return math.prod(_nominal(d) for d in shape) * np.dtype(dtype(value)).itemsize


def _nominal(size: Dim) -> float:
    value = at_sizes(size, {}, NOMINAL)
    return float(NOMINAL if value is None else value)
