"""Leave out arithmetic that changes nothing, and write the rest in the cheaper form.

    x * 1, x / 1, x + 0, x - 0, x ** 1       ->  x
    max(x, -inf), min(x, inf), astype(x, type of x)  ->  x
    x / c, x - c                             ->  x * (1 / c) unless it is rounded then, x + (-c)
    (x + a) + b, (x * a) * b                 ->  x + (a + b), x * (a * b) unless it is rounded then
    x ** 2, x ** 3, x ** 0.5, 1 / sqrt(x)    ->  x * x, x * x * x, sqrt(x), rsqrt(x)
    max(x, 0), min(max(x, a), b)             ->  relu(x), clip(x, a, b)
    sum(x, axes) * (1 / n)                   ->  mean(x, axes), where the axes have n elements
    clip(clip(x))                            ->  clip(x)

A rule looks at one call. Constants are combined in double precision and rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax

from dscc.passes.cleanup.local import LocalPass, Rule
from dscc.passes.graph import Graph, Node
from dscc.passes.values import attr, const, constant, dims, dtype, numbers, same_dims, scalar


@dataclass(frozen=True)
class SimplifyArithmetic(LocalPass):
    """Arithmetic that changes nothing goes; the rest takes its cheaper form."""

    name = "simplify-arithmetic"

    @property
    def rules(self) -> Mapping[str, tuple[Rule, ...]]:
        return RULES


def _constant_operand(node: Node, graph: Graph) -> tuple[relax.Expr, np.ndarray, bool] | None:
    """The operand that is no constant, the one that is, and whether the constant stands on the left."""
    left, right = node.value.args
    fixed, swapped = constant(graph.value(right)), False
    if fixed is None:
        fixed, swapped = constant(graph.value(left)), True
    if fixed is None or constant(graph.value(right if swapped else left)) is not None:
        return None
    return (right if swapped else left), fixed, swapped


def _neutral(node: Node, graph: Graph) -> relax.Expr | None:
    found = _constant_operand(node, graph)
    if found is None:
        return None
    data, fixed, swapped = found
    neutral = 0 if node.op in ("relax.add", "relax.subtract") else 1
    if swapped and node.op not in ("relax.add", "relax.multiply"):
        return None
    keeps = dtype(data) == dtype(node.var) and same_dims(dims(data), dims(node.var))
    return data if keeps and fixed.size and bool(np.all(fixed == neutral)) else None


def _divide_by_constant(node: Node, graph: Graph) -> relax.Expr | None:
    found = _constant_operand(node, graph)
    if found is None or found[2] or found[1].dtype.kind != "f" or not np.all(found[1]):
        return None
    data, fixed, _ = found
    if not _normal(1 / fixed) or (_rounds(node, graph) and not np.all(np.frexp(fixed)[0] ** 2 == 0.25)):
        return None
    return relax.op.multiply(data, const(1 / fixed.astype("float64"), str(fixed.dtype)))


def _rounds(node: Node, graph: Graph, depth: int = 4) -> bool:
    """Whether the value is soon rounded to whole numbers, or compared. There the last bit counts: 7.5 and 7.4999995 are
    a step apart, and quotients are often exact where products with a reciprocal are not, unless it is a power of two.
    """
    for user in graph.users(node.var):
        if user.op in _ROUNDING or (user.op == "relax.astype" and not str(dtype(user.var)).startswith(_FLOATS)):
            return True
        if user.op in _STEPS and depth and _rounds(user, graph, depth - 1):
            return True
    return False


_FLOATS = ("float", "bfloat")
_ROUNDING = frozenset({"relax.floor", "relax.ceil", "relax.round", "relax.trunc", "relax.call_tir",
                       "relax.equal", "relax.not_equal", "relax.less", "relax.less_equal", "relax.greater",
                       "relax.greater_equal"})  # fmt: skip
_STEPS = frozenset({"relax.add", "relax.subtract", "relax.multiply", "relax.divide", "relax.clip", "relax.maximum",
                    "relax.minimum", "relax.reshape", "relax.permute_dims", "relax.negative", "relax.where",
                    "relax.expand_dims", "relax.squeeze", "relax.broadcast_to"})  # fmt: skip


def _normal(fixed: np.ndarray) -> bool:
    """Whether no element overflowed or lost digits near zero."""
    size = np.abs(fixed)
    return bool(np.all(np.isfinite(fixed)) and np.all((size >= np.finfo(fixed.dtype).tiny) | (size == 0)))


def _subtract_constant(node: Node, graph: Graph) -> relax.Expr | None:
    found = _constant_operand(node, graph)
    if found is None or found[2] or found[1].dtype.kind != "f":
        return None
    return relax.op.add(found[0], const(-found[1]))


def _merge_constants(node: Node, graph: Graph) -> relax.Expr | None:
    """Two constants in a row: `(x + a) + b`. Only where nothing else needs `x + a`, and the result is not rounded."""
    outer = _constant_operand(node, graph)
    inner = None if outer is None else graph.node(outer[0])
    if outer is None or inner is None or inner.op != node.op or graph.only_user(inner) is not node:
        return None
    first = _constant_operand(inner, graph)
    if first is None or first[1].dtype.kind != "f" or _rounds(node, graph):
        return None
    combine = np.add if node.op == "relax.add" else np.multiply
    both = combine(first[1].astype("float64"), outer[1].astype("float64"))
    both = both.astype(outer[1].dtype)
    if both.size > max(first[1].size, outer[1].size) or not _normal(both):
        return None
    return relax.Call(node.value.op, [first[0], const(both)])


def _power(node: Node, graph: Graph) -> relax.Expr | None:
    data, exponent = node.value.args
    value = scalar(graph.value(exponent))
    if value is None or not same_dims(dims(data), dims(node.var)):
        return None
    if value in (2, 3):
        square = relax.op.multiply(data, data)
        return square if value == 2 else relax.op.multiply(square, data)
    if value == 0.5 and dtype(data).startswith("float"):
        return relax.op.sqrt(data)
    return None


def _reciprocal_root(node: Node, graph: Graph) -> relax.Expr | None:
    over, under = node.value.args
    root = graph.node(under)
    if root is None or root.op != "relax.sqrt" or scalar(graph.value(over)) != 1 or dims(over) != ():
        return None
    return relax.op.rsqrt(root.value.args[0]) if graph.only_user(root) is node else None


def _bounded_by_nothing(node: Node, graph: Graph) -> relax.Expr | None:
    found = _constant_operand(node, graph)
    nothing = -np.inf if node.op == "relax.maximum" else np.inf
    if found is None or not np.all(found[1] == nothing) or not same_dims(dims(found[0]), dims(node.var)):
        return None
    return found[0]


def _mean_of_sum(node: Node, graph: Graph) -> relax.Expr | None:
    found = _constant_operand(node, graph)
    inner = None if found is None else graph.node(found[0])
    if found is None or inner is None or inner.op != "relax.sum" or graph.only_user(inner) is not node:
        return None
    data, written = inner.value.args[0], attr(inner.value, "axis")
    shape = dims(data)
    if shape is None or found[1].size != 1 or not same_dims(dims(found[0]), dims(node.var)):
        return None
    axes = range(len(shape)) if written is None else [axis % len(shape) for axis in written]
    sizes = [shape[axis] for axis in axes]
    if not all(isinstance(size, int) for size in sizes):
        return None
    if not abs(float(found[1].reshape(())) * math.prod(sizes) - 1) <= 1e-6:  # NaN is no reciprocal
        return None
    return relax.op.mean(data, list(axes), attr(inner.value, "keepdims"))


def _relu(node: Node, graph: Graph) -> relax.Expr | None:
    found = _constant_operand(node, graph)
    if found is None or found[1].dtype.kind != "f" or found[1].size != 1 or found[1].any():
        return None
    return relax.op.nn.relu(found[0]) if same_dims(dims(found[0]), dims(node.var)) else None


def _clip_of_both(node: Node, graph: Graph) -> relax.Expr | None:
    high = _constant_operand(node, graph)
    inner = None if high is None else graph.node(high[0])
    if high is None or inner is None or graph.only_user(inner) is not node or high[1].size != 1:
        return None
    if inner.op == "relax.nn.relu":
        data, low = inner.value.args[0], 0.0
    elif inner.op == "relax.maximum" and (found := _constant_operand(inner, graph)) and found[1].size == 1:
        data, low = found[0], float(found[1].reshape(()))
    else:
        return None
    top = float(high[1].reshape(()))
    if high[1].dtype.kind != "f" or low > top or not same_dims(dims(data), dims(node.var)):
        return None
    return relax.op.clip(data, _number(low), _number(top))


def _clip_of_clip(node: Node, graph: Graph) -> relax.Expr | None:
    inner = graph.node(node.value.args[0])
    if inner is None or inner.op not in ("relax.clip", "relax.nn.relu"):
        return None
    outer_bounds, inner_bounds = _bounds(node), _bounds(inner)
    if outer_bounds is None or inner_bounds is None or not dtype(node.var).startswith("float"):
        return None
    low, high = max(outer_bounds[0], inner_bounds[0]), min(outer_bounds[1], inner_bounds[1])
    return relax.op.clip(inner.value.args[0], _number(low), _number(high)) if low <= high else None


def _bounds(node: Node) -> tuple[float, float] | None:
    if node.op == "relax.nn.relu":
        return 0.0, np.inf
    low, high = (numbers(arg) for arg in list(node.value.args)[1:])
    return None if low is None or high is None else (low[0], high[0])


def _number(value: float) -> relax.Expr:
    return tvm.tirx.FloatImm("float32", float(value))


def _same_type_cast(node: Node, graph: Graph) -> relax.Expr | None:
    data = node.value.args[0]
    return data if dtype(data) and dtype(data) == str(attr(node.value, "dtype")) else None


def _cast_of_cast(node: Node, graph: Graph) -> relax.Expr | None:
    """Only where the first cast loses nothing: to more bits of the same kind, or from bool."""
    inner = graph.node(node.value.args[0])
    if inner is None or inner.op != "relax.astype":
        return None
    data = inner.value.args[0]
    if not dtype(data) or not np.can_cast(dtype(data), dtype(inner.var), "safe"):
        return None
    return relax.op.astype(data, str(attr(node.value, "dtype")))


RULES: dict[str, tuple[Rule, ...]] = {
    "relax.add": (_neutral, _merge_constants),
    "relax.subtract": (_neutral, _subtract_constant),
    "relax.multiply": (_neutral, _mean_of_sum, _merge_constants),
    "relax.divide": (_neutral, _divide_by_constant, _reciprocal_root),
    "relax.power": (_neutral, _power),
    "relax.maximum": (_bounded_by_nothing, _relu),
    "relax.minimum": (_bounded_by_nothing, _clip_of_both),
    "relax.clip": (_clip_of_clip,),
    "relax.astype": (_same_type_cast, _cast_of_cast),
}
