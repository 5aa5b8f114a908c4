"""Elementwise operators of Relax as formulas over scalars in TIR, and the value of such a formula."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from tvm import ir, relax, tirx
from tvm.ir import Expr, Var

from dscc.passes.values import attr, dtype, numbers, scalar
from dscc.schedule.arithmetic import const

Array = np.ndarray


def _gelu(x: Expr) -> Expr:
    return const(0.5, x) * x * (const(1.0, x) + tirx.erf(x * const(math.sqrt(0.5), x)))


def _gelu_tanh(x: Expr) -> Expr:
    inner = const(math.sqrt(2 / math.pi), x) * (x + const(0.044715, x) * x * x * x)
    return const(0.5, x) * x * (const(1.0, x) + tirx.tanh(inner))


def _sign(x: Expr) -> Expr:
    zero = const(0, x)
    return tirx.Select(x > zero, const(1, x), tirx.Select(x < zero, const(-1, x), zero))


UNARY: dict[str, Callable[[Expr], Expr]] = {
    "negative": lambda x: const(0, x) - x,
    "abs": lambda x: tirx.max(x, const(0, x) - x),
    "exp": tirx.exp,
    "tanh": tirx.tanh,
    "erf": tirx.erf,
    "sigmoid": tirx.sigmoid,
    "sqrt": tirx.sqrt,
    "rsqrt": lambda x: const(1.0, x) / tirx.sqrt(x),
    "square": lambda x: x * x,
    "log": tirx.log,
    "nn.relu": lambda x: tirx.max(const(0, x), x),  # the constant first: NaN stays NaN
    "nn.silu": lambda x: x * tirx.sigmoid(x),
    "nn.gelu": _gelu,
    "nn.gelu_tanh": _gelu_tanh,
    "floor": tirx.floor,
    "ceil": tirx.ceil,
    "trunc": tirx.trunc,
    "sign": _sign,
    "logical_not": tirx.Not,
}
BINARY: dict[str, Callable[[Expr, Expr], Expr]] = {
    "add": tirx.Add,
    "subtract": tirx.Sub,
    "multiply": tirx.Mul,
    "maximum": tirx.Max,
    "minimum": tirx.Min,
    "equal": tirx.EQ,
    "not_equal": tirx.NE,
    "less": tirx.LT,
    "less_equal": tirx.LE,
    "greater": tirx.GT,
    "greater_equal": tirx.GE,
    "logical_and": tirx.And,
    "logical_or": tirx.Or,
    "floor_divide": tirx.FloorDiv,
    "floor_mod": tirx.FloorMod,
}


OPERATORS = (*UNARY, *BINARY, "astype", "clip", "divide", "power", "where")


def is_float(kind: str) -> bool:
    """Whether a type name is that of a float; formulas over elements know only float32."""
    return kind.startswith(("float", "bfloat"))


def operands(call: relax.Call) -> list[relax.Expr]:
    """The tensors of a call of one of `OPERATORS`, in order."""
    name = call.op.name.removeprefix("relax.")
    if name in UNARY or name in ("astype", "clip"):
        return [call.args[0]]
    return list(call.args[: 3 if name == "where" else 2])


def apply(call: relax.Call, args: Sequence[Expr]) -> Expr | None:
    """The formula of an elementwise operator over the formulas of its operands; None if it has none."""
    name = call.op.name.removeprefix("relax.")
    if name in UNARY:
        return UNARY[name](args[0])
    if name == "astype":
        return cast(args[0], attr(call, "dtype"))
    if name == "clip":
        low, high = (numbers(arg) for arg in call.args[1:3])
        if low is None or high is None:
            return None
        return tirx.max(const(low[0], args[0]), tirx.min(const(high[0], args[0]), args[0]))
    if name == "where":
        return tirx.Select(args[0], args[1], args[2])
    if name == "power":
        exponent = scalar(call.args[1]) if not isinstance(args[1], tirx.FloatImm) else float(args[1].value)
        return args[0] * args[0] if exponent == 2 else None
    if str(args[0].ty.dtype) != str(args[1].ty.dtype):
        return None
    if name == "divide":
        return tirx.Div(*args) if is_float(str(args[0].ty.dtype)) else tirx.truncdiv(*args)
    return BINARY[name](*args)


def cast(x: Expr, kind: str) -> Expr:
    """x in another type; the float types are all one."""
    kind = "float32" if is_float(kind) else kind
    return x if str(x.ty.dtype) == kind else tirx.Cast(kind, x)


def number(expr: relax.Expr) -> Expr | None:
    """A constant of one element as a scalar."""
    value = scalar(expr)
    if value is None:
        return None
    kind = dtype(expr)
    if is_float(kind):
        return tirx.const(value, "float32")
    return tirx.const(bool(value), "bool") if kind == "bool" else tirx.const(int(value), kind)


class Unknown(Exception):
    """The formula has no value here."""


_OPERATIONS: dict[type, Callable[..., Any]] = {
    tirx.Add: np.add, tirx.Sub: np.subtract, tirx.Mul: np.multiply, tirx.FloorDiv: np.floor_divide,
    tirx.FloorMod: np.mod, tirx.Mod: np.fmod, tirx.Min: np.minimum, tirx.Max: np.maximum, tirx.EQ: np.equal,
    tirx.NE: np.not_equal, tirx.LT: np.less, tirx.LE: np.less_equal, tirx.GT: np.greater,
    tirx.GE: np.greater_equal, tirx.And: np.logical_and, tirx.Or: np.logical_or, tirx.BitwiseAnd: np.bitwise_and,
    tirx.BitwiseOr: np.bitwise_or, tirx.BitwiseXor: np.bitwise_xor, tirx.LShift: np.left_shift,
    tirx.RShift: np.right_shift,
}  # fmt: skip
_ROUNDED = {"tirx.floor": np.floor, "tirx.ceil": np.ceil, "tirx.trunc": np.trunc}


def evaluate(expr: Expr, values: Mapping[Var, Any]) -> Any:
    """The value of a formula without elementary functions, on numbers or on arrays of one shape.

    Raises:
        Unknown: it contains something else.
    """
    if isinstance(expr, Var):
        if expr not in values:
            raise Unknown
        return values[expr]
    if isinstance(expr, tirx.IntImm | tirx.FloatImm):
        return np.asarray(expr.value).astype(str(expr.ty.dtype))
    if isinstance(expr, tirx.Cast):
        return np.asarray(evaluate(expr.value, values)).astype(str(expr.ty.dtype))
    if isinstance(expr, tirx.Not):
        return np.logical_not(evaluate(expr.a, values))
    if isinstance(expr, tirx.Select):
        return np.where(*(evaluate(part, values) for part in (expr.condition, expr.true_value, expr.false_value)))
    if isinstance(expr, tirx.Div):
        a, b = evaluate(expr.a, values), evaluate(expr.b, values)
        if np.any(np.asarray(b) == 0):
            raise Unknown
        return a / b if np.asarray(a).dtype.kind == "f" else np.trunc(a / b).astype(np.asarray(a).dtype)
    if isinstance(expr, ir.Call) and isinstance(expr.op, ir.Op) and expr.op.name in _ROUNDED:
        return _ROUNDED[expr.op.name](evaluate(expr.args[0], values))
    if type(expr) in _OPERATIONS:
        return _OPERATIONS[type(expr)](evaluate(expr.a, values), evaluate(expr.b, values))
    raise Unknown
