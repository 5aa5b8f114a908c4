"""Steps of optimisers: tensors in, their next values out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tvm.relax import Expr
from tvm.relax import op as R

from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.registry import converter
from dscc.frontends.onnx.shapes import reshaped
from dscc.frontends.onnx.values import Value, scalar

_DOMAIN = "ai.onnx.preview.training"


def _groups(node: Node, tensors: Sequence[Value], count: int) -> list[tuple[Value, ...]]:
    """The tensors that belong together, of `count` lists in a row: [x1, x2, g1, g2] is (x1, g1), (x2, g2)."""
    if not tensors or len(tensors) % count:
        raise node.error(f"{len(tensors)} tensors are given besides R and T; there must be {count} for each variable")
    size = len(tensors) // count
    return [_alike(node, tensors[at], tensors[at + size :: size]) for at in range(size)]


def _alike(node: Node, x: Value, others: Sequence[Value]) -> tuple[Value, ...]:
    """A variable, and what belongs to it, which has its shape."""
    stated = []
    for value in others:
        if value.ndim != x.ndim:
            raise node.error(f"'{value.name}' has rank {value.ndim}, and '{x.name}' has rank {x.ndim}")
        expr = node.restate(value.expr, x.shape, f"'{value.name}'")
        stated.append(Value(value.name, node.bb, expr=expr, element=value.element))
    return (x, *stated)


def _listed(results: Sequence[tuple[Expr, ...]]) -> tuple[Expr, ...]:
    """The other way round."""
    return tuple(each for part in zip(*results, strict=True) for each in part)


class _Terms:
    """Arithmetic of one variable's type."""

    def __init__(self, node: Node, x: Value, rate: Value, count: Value):
        self._node, self.dtype = node, x.dtype
        self.rate = self.number(rate)
        self.count = self.number(count)

    def number(self, value: Value) -> Expr:
        """A scalar, or a list of one, as a tensor of rank 0 of the variable's type."""
        flat = self._node.emit(reshaped(value.expr, []))
        return flat if value.dtype == self.dtype else self._node.emit(R.astype(flat, self.dtype))

    def constant(self, value: float) -> Expr:
        return scalar(value, self.dtype)

    def of(self, function: Callable[[Expr, Expr], Expr], a: Expr | float, b: Expr | float) -> Expr:
        left, right = (self.constant(x) if isinstance(x, float | int) else x for x in (a, b))
        return self._node.emit(function(left, right))

    def add(self, a: Expr | float, b: Expr | float) -> Expr:
        return self.of(R.add, a, b)

    def subtract(self, a: Expr | float, b: Expr | float) -> Expr:
        return self.of(R.subtract, a, b)

    def multiply(self, a: Expr | float, b: Expr | float) -> Expr:
        return self.of(R.multiply, a, b)

    def divide(self, a: Expr | float, b: Expr | float) -> Expr:
        return self.of(R.divide, a, b)

    def root(self, a: Expr) -> Expr:
        return self._node.emit(R.sqrt(a))

    def regularised(self, x: Value, gradient: Value) -> Expr:
        return self.add(self.multiply(self._node.attr("norm_coefficient", 0.0), x.expr), gradient.expr)

    def begun(self, after: Expr, before: Expr | float) -> Expr:
        """`after` the first iteration, else `before`."""
        first = before if not isinstance(before, float) else self.constant(before)
        started = self._node.emit(R.greater(self.count, self.constant(0.0)))
        return self._node.emit(R.where(started, after, first))


@converter("Adagrad", domain=_DOMAIN)
def adagrad(node: Node, rate: Value, count: Value, *tensors: Value) -> tuple[Expr, ...]:
    results = []
    for x, gradient, square in _groups(node, tensors, 3):
        t = _Terms(node, x, rate, count)
        slowed = t.divide(t.rate, t.add(1.0, t.multiply(t.count, node.attr("decay_factor", 0.0))))
        slope = t.regularised(x, gradient)
        total = t.add(square.expr, t.multiply(slope, slope))
        step = t.divide(t.multiply(slowed, slope), t.add(t.root(total), node.attr("epsilon", 1e-6)))
        results.append((t.subtract(x.expr, step), total))
    return _listed(results)


@converter("Momentum", domain=_DOMAIN)
def momentum(node: Node, rate: Value, count: Value, *tensors: Value) -> tuple[Expr, ...]:
    mode = node.required("mode")
    if mode not in ("standard", "nesterov"):
        raise node.error(f"mode is '{mode}'; allowed: standard, nesterov")
    alpha, beta = node.required("alpha"), node.required("beta")
    results = []
    for x, gradient, velocity in _groups(node, tensors, 3):
        t = _Terms(node, x, rate, count)
        slope = t.regularised(x, gradient)
        share = t.begun(t.constant(beta), 1.0)
        moved = t.add(t.multiply(alpha, velocity.expr), t.multiply(share, slope))
        step = t.add(slope, t.multiply(alpha, moved)) if mode == "nesterov" else moved
        results.append((t.subtract(x.expr, t.multiply(t.rate, step)), moved))
    return _listed(results)


@converter("Adam", domain=_DOMAIN)
def adam(node: Node, rate: Value, count: Value, *tensors: Value) -> tuple[Expr, ...]:
    alpha, beta = node.attr("alpha", 0.9), node.attr("beta", 0.999)
    results = []
    for x, gradient, mean, square in _groups(node, tensors, 4):
        t = _Terms(node, x, rate, count)
        slope = t.regularised(x, gradient)
        new_mean = t.add(t.multiply(alpha, mean.expr), t.multiply(1 - alpha, slope))
        new_square = t.add(t.multiply(beta, square.expr), t.multiply(1 - beta, t.multiply(slope, slope)))
        # Both begin at 0, which the rate makes up for; not in iteration 0, where that would be 0 / 0.
        low, high = (t.subtract(1.0, t.of(R.power, each, t.count)) for each in (alpha, beta))
        corrected = t.begun(t.divide(t.multiply(t.rate, t.root(high)), low), t.rate)
        root = t.add(t.root(new_square), node.attr("epsilon", 1e-6))
        new = t.subtract(x.expr, t.multiply(corrected, t.divide(new_mean, root)))
        kept = 1 - node.attr("norm_coefficient_post", 0.0)
        results.append((t.multiply(kept, new), new_mean, new_square))
    return _listed(results)
