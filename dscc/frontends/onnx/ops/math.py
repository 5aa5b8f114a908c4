"""Elementwise arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
from tvm import relax, te, tirx
from tvm.relax import Expr
from tvm.relax import op as R

from dscc.frontends.onnx.axes import axes_of, view
from dscc.frontends.onnx.broadcast import broadcast, broadcast_shape
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.registry import converter
from dscc.frontends.onnx.shapes import reshaped, shape_expr
from dscc.frontends.onnx.values import Value, is_float, scalar, static


def legacy_operands(node: Node, a: Value, b: Value) -> tuple[Value, Value]:
    """The operands of a binary operator; before opset 7 `axis` said where the second one's dimensions belong."""
    axis = node.attr("axis", None)
    if node.opset >= 7 or not node.attr("broadcast", 0) or axis is None:
        return a, b
    trailing = a.ndim - node.axis(axis, a.ndim) - b.ndim
    return a, node.value(reshaped(b.expr, [*b.expr.ty.shape.values, *[1] * trailing]))


def _binary(function: Callable[[Expr, Expr], Expr]) -> Callable[..., Expr]:
    def convert(node: Node, a: Value, b: Value) -> Expr:
        return function(*broadcast(node, *legacy_operands(node, a, b)))

    return convert


def _variadic(function: Callable[[Expr, Expr], Expr]) -> Callable[..., Expr]:
    def convert(node: Node, *xs: Value) -> Expr | Value:
        return reduce(lambda a, b: node.value(function(*broadcast(node, node.value(a), b))), xs)

    return convert


def _unary(function: Callable[[Expr], Expr]) -> Callable[..., Expr]:
    return lambda node, x: function(x.expr)


for _name, _function in {"Add": R.add, "Sub": R.subtract, "Mul": R.multiply}.items():
    converter(_name)(_binary(_function))
for _name, _function in {"Sum": R.add, "Max": R.maximum, "Min": R.minimum}.items():
    converter(_name)(_variadic(_function))
for _name, _function in {
    "Abs": R.abs,
    "Neg": R.negative,
    "Sqrt": R.sqrt,
    "Exp": R.exp,
    "Log": R.log,
    "Floor": R.floor,
    "Ceil": R.ceil,
    "Erf": R.erf,
    "Sin": R.sin,
    "Cos": R.cos,
    "Tan": R.tan,
    "Asin": R.asin,
    "Acos": R.acos,
    "Atan": R.atan,
    "Sinh": R.sinh,
    "Cosh": R.cosh,
    "Tanh": R.tanh,
    "Asinh": R.asinh,
    "Acosh": R.acosh,
    "Atanh": R.atanh,
    "IsNaN": R.isnan,
}.items():
    converter(_name)(_unary(_function))


@converter("Sign")
def sign(node: Node, x: Value) -> Expr:
    return R.minimum(x.expr, scalar(1, x.dtype)) if x.dtype.startswith("uint") else R.sign(x.expr)


@converter("Div")
def div(node: Node, a: Value, b: Value) -> Expr:
    x, y = broadcast(node, *legacy_operands(node, a, b))
    return R.divide(x, y) if is_float(a.dtype) else _kernel(node, x, y, *_guarded(b, tirx.truncdiv, "truncdiv"))


@converter("Mod")
def mod(node: Node, a: Value, b: Value) -> Expr:
    """The remainder has the divisor's sign, or the dividend's with fmod=1."""
    x, y = broadcast(node, a, b)
    if is_float(a.dtype):
        return _kernel(node, x, y, *((_fmod, "fmod") if node.attr("fmod", 0) else (_floor_mod, "floor_mod")))
    if a.dtype.startswith("uint") or node.attr("fmod", 0):
        return _kernel(node, x, y, *_guarded(b, tirx.truncmod, "truncmod"))
    return _kernel(node, x, y, *_guarded(b, tirx.floormod, "floormod"))


def _guarded(divisor: Value, function: Callable[[Expr, Expr], Expr], name: str) -> tuple[Callable[..., Expr], str]:
    """A division of whole numbers that does not trap: x / 0 and x % 0 are 0, as in NumPy, and the least number by -1
    wraps.
    """
    if divisor.constant is not None and not np.isin(divisor.constant.astype(np.int64), (0, -1)).any():
        return function, name

    def guarded(a: Expr, b: Expr) -> Expr:
        dtype = str(b.ty.dtype)
        zero, one = tirx.const(0, dtype), tirx.const(1, dtype)
        if dtype.startswith("uint"):
            return tirx.Select(tirx.EQ(b, zero), zero, function(a, tirx.max(b, one)))
        opposite = zero - a if name == "truncdiv" else zero
        usual = function(a, tirx.Select(tirx.any(tirx.EQ(b, zero), tirx.EQ(b, zero - one)), one, b))
        return tirx.Select(tirx.EQ(b, zero), zero, tirx.Select(tirx.EQ(b, zero - one), opposite, usual))

    return guarded, name


def _fmod(a: Expr, b: Expr) -> Expr:
    """C's fmod: TVM has the intrinsic, and no code generator for it."""
    dtype = str(a.ty.dtype)
    if dtype == "float64":
        return tirx.call_pure_extern(dtype, "fmod", a, b)
    wide = (tirx.Cast("float32", a), tirx.Cast("float32", b)) if dtype != "float32" else (a, b)
    return tirx.Cast(dtype, tirx.call_pure_extern("float32", "fmodf", *wide))


def _floor_mod(a: Expr, b: Expr) -> Expr:
    """The remainder of floats with the sign of the divisor."""
    rest, zero = _fmod(a, b), tirx.const(0, str(a.ty.dtype))
    return tirx.if_then_else(tirx.any(tirx.all(rest < zero, b > zero), tirx.all(rest > zero, b < zero)), rest + b, rest)


def _kernel(node: Node, x: Expr, y: Expr, function: Callable[..., Expr], name: str) -> Expr:
    """A broadcasting binary kernel for what Relax has no operator for."""
    target = broadcast_shape(node, [list(x.ty.shape.values), list(y.ty.shape.values)])

    def compute(a: te.Tensor, b: te.Tensor, shape: Any) -> te.Tensor:
        def at(data: te.Tensor, index: tuple[Any, ...]) -> Any:
            inner = index[len(index) - len(data.shape) :]
            return data(*(0 if static(d) == 1 else i for d, i in zip(data.shape, inner, strict=True)))

        return te.compute(list(shape), lambda *i: function(at(a, i), at(b, i)), name=name)

    return node.te(compute, x, y, shape_expr(target), name=name)


@converter("Pow")
def power(node: Node, a: Value, b: Value) -> Expr:
    """a ** b in the type of a; squares and roots, the common cases, without a call of pow."""
    exponent = b.constant.item() if b.constant is not None and b.constant.size == 1 and b.ndim <= a.ndim else None
    if exponent == 2:
        return R.multiply(a.expr, a.expr)
    if exponent == 0.5 and is_float(a.dtype):
        return R.sqrt(a.expr)
    if exponent == 3:
        return R.multiply(node.emit(R.multiply(a.expr, a.expr)), a.expr)
    x, y = broadcast(node, a, b)
    working = a.dtype if is_float(a.dtype) else "float64"
    result = R.power(_as(node, x, working), _as(node, y, working))
    return result if working == a.dtype else R.astype(node.emit(result), a.dtype)


def _as(node: Node, x: Expr, dtype: str) -> Expr:
    return x if str(x.ty.dtype) == dtype else node.emit(R.astype(x, dtype))


@converter("Reciprocal")
def reciprocal(node: Node, x: Value) -> Expr:
    return R.divide(scalar(1, x.dtype), x.expr)


@converter("Mean")
def mean(node: Node, *xs: Value) -> Expr:
    total = _variadic(R.add)(node, *xs)
    return R.divide(node.value(total).expr, scalar(len(xs), xs[0].dtype))


@converter("Round")
def round_even(node: Node, x: Value) -> Expr:
    """Halves go to the even neighbour."""

    def compute(data: te.Tensor) -> te.Tensor:
        return te.compute(data.shape, lambda *i: tirx.nearbyint(data(*i)), name="round")

    return node.te(compute, x.expr, name="round_even")


@converter("Clip", since=1)
def clip_attributes(node: Node, x: Value) -> Expr:
    """Bounds as attributes, up to opset 10."""
    return _clip(x, node.attr("min", None), node.attr("max", None))


@converter("Clip", since=11)
def clip(node: Node, x: Value, low: Value | None = None, high: Value | None = None) -> Expr | Value:
    if all(bound is None or (bound.constant is not None and bound.constant.size == 1) for bound in (low, high)):
        return _clip(
            x, *(None if bound is None or bound.constant is None else bound.constant.item() for bound in (low, high))
        )
    result = x.expr
    if low is not None:
        result = node.emit(R.maximum(result, node.single(low, "the lower bound")))
    return R.minimum(result, node.single(high, "the upper bound")) if high is not None else node.value(result)


def _clip(x: Value, low: float | None, high: float | None) -> Expr:
    """R.clip takes both bounds as numbers; with one of them, or in integers that a float cannot hold, maximum and
    minimum do it.
    """
    result = x.expr
    if (
        low is not None
        and high is not None
        and is_float(x.dtype)
        and math.isfinite(low)
        and math.isfinite(high)
        and low <= high
    ):
        return R.clip(result, low, high)
    if low is not None:
        result = R.maximum(result, scalar(low, x.dtype))
    if high is not None:
        result = R.minimum(result, scalar(high, x.dtype))
    return result


@converter("IsInf")
def is_inf(node: Node, x: Value) -> Expr:
    positive, negative = node.attr("detect_positive", 1), node.attr("detect_negative", 1)
    if positive and negative:
        return R.isinf(x.expr)
    if not (positive or negative):
        return R.zeros(relax.ShapeExpr(list(x.expr.ty.shape.values)), "bool")
    return R.equal(x.expr, scalar(math.inf if positive else -math.inf, x.dtype))


@converter("BitShift")
def bit_shift(node: Node, a: Value, b: Value) -> Expr:
    x, y = broadcast(node, a, b)
    if node.required("direction") == "LEFT":
        return _kernel(node, x, y, _shift_left, "shift_left")
    return _kernel(node, x, y, _shift_right, "shift_right")


def _too_wide(count: Expr) -> tuple[Expr, int]:
    """Whether a shift is by all bits or more, or negative, which the machine leaves open; and the number of bits."""
    dtype = str(count.ty.dtype)
    bits = np.dtype(dtype).itemsize * 8
    wide = count >= tirx.const(bits, dtype)
    return (wide if dtype.startswith("uint") else tirx.any(wide, count < tirx.const(0, dtype))), bits


def _shift_left(a: Expr, count: Expr) -> Expr:
    """0 where all bits are shifted out."""
    wide, _ = _too_wide(count)
    zero = tirx.const(0, str(a.ty.dtype))
    return tirx.Select(wide, zero, a << tirx.Select(wide, zero, count))


def _shift_right(a: Expr, count: Expr) -> Expr:
    """0, or -1 of a negative number, where all bits are shifted out."""
    wide, bits = _too_wide(count)
    dtype = str(a.ty.dtype)
    if dtype.startswith("uint"):
        return tirx.Select(wide, tirx.const(0, dtype), a >> tirx.Select(wide, tirx.const(0, dtype), count))
    return a >> tirx.Select(wide, tirx.const(bits - 1, dtype), count)


for _name, _function in {"BitwiseAnd": R.bitwise_and, "BitwiseOr": R.bitwise_or, "BitwiseXor": R.bitwise_xor}.items():
    converter(_name)(_binary(_function))
converter("BitwiseNot")(_unary(R.bitwise_not))


@converter("Identity")
def identity(node: Node, x: Value) -> Value:
    return x


@converter("Dropout")
def dropout(node: Node, x: Value) -> tuple[Value, Expr]:
    """At inference the input passes, and the mask is all true; since version 12 there is a training mode."""
    return x, R.ones(relax.ShapeExpr(list(x.expr.ty.shape.values)), "bool" if node.opset >= 10 else x.dtype)


def _cumulative(function: Callable[..., Expr]) -> Callable[..., Any]:
    """Sums or products of all up to each element; with `exclusive` without it, with `reverse` from the end."""

    def convert(node: Node, x: Value, axis: Value) -> Expr:
        if x.ndim == 0:
            raise node.error("its input is a scalar, which has no axis")
        where = axes_of(node, axis, x.ndim, "the axis")[0]

        def run(data: Expr, at: int) -> Expr:
            if not node.attr("reverse", 0):
                return function(data, at, exclusive=bool(node.attr("exclusive", 0)))
            turned = node.emit(R.flip(data, at))
            return R.flip(node.emit(function(turned, at, exclusive=bool(node.attr("exclusive", 0)))), at)

        if isinstance(where, int):
            return run(x.expr, where)
        return reshaped(node.emit(run(view(node, x.expr, where), 1)), x.shape)

    return convert


converter("CumSum")(_cumulative(R.cumsum))
converter("CumProd")(_cumulative(R.cumprod))
