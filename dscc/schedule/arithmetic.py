"""Arithmetic written as expressions of any element type and number of lanes: constants in the type of an operand,
polynomials, and names for what is used more than once.

    @closed
    def cube_and_more(let, x):
        square = let(x * x)
        return square * x + square
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from tvm import ir, tirx
from tvm.ir import Expr

from dscc.schedule.operands import parts_of, with_parts


def dtype_of(x: Expr) -> str:
    """The type of an expression with its lanes: `float32x16`."""
    return str(x.ty.dtype)


def like(x: Expr, code: str) -> str:
    """The type of `x` with another element type: `int32x16` for `float32x16`."""
    _, _, lanes = dtype_of(x).partition("x")
    return f"{code}x{lanes}" if lanes else code


def const(value: float, x: Expr) -> Expr:
    """`value` in the type of `x`, in all lanes."""
    return tirx.const(value, dtype_of(x))


def polynomial(coefficients: Sequence[float], x: Expr) -> Expr:
    """The polynomial with these coefficients, highest power first, by Horner's rule."""
    total = const(coefficients[0], x)
    for coefficient in coefficients[1:]:
        total = total * x + const(coefficient, x)
    return total


_INFINITIES = {
    "float64": ("uint64", 0x7FF0 << 48),
    "float32": ("uint32", 0x7F800000),
    "float16": ("uint16", 0x7C00),
    "bfloat16": ("uint16", 0x7F80),
}


def is_nan(x: Expr) -> Expr:
    """Whether x is not a number, asked of its bits: TVM 0.27 takes `x != x` for false, of floats too.

    To be seen with `tvm.sym.Analyzer().simplify(tirx.NE(x, x))`.
    """
    integer, infinity = _INFINITIES[dtype_of(x).partition("x")[0]]
    bits = tirx.reinterpret(like(x, integer), x)
    size = bits & tirx.const((1 << (int(integer[4:]) - 1)) - 1, dtype_of(bits))
    return size > tirx.const(infinity, dtype_of(bits))


def clamp(x: Expr, low: float, high: float) -> Expr:
    """`x` between two bounds; NaN stays NaN."""
    return tirx.min(const(high, x), tirx.max(const(low, x), x))


class Lets:
    """Straight-line code: `let(value)` names a value that is used more than once, `close(result)` makes one expression.

    The result is a chain `Let(a, .., Let(b, .., result))`. A Let in the value of another Let would be right too, but
    TVM's simplifier visits a value several times, and so takes time exponential in that depth.
    """

    def __init__(self) -> None:
        self._bound: list[tuple[tirx.Var, Expr]] = []

    def __call__(self, value: Expr) -> Expr:
        value = self._taken(value)
        if isinstance(value, tirx.Var | tirx.IntImm | tirx.FloatImm):
            return value
        var = tirx.Var("t", value.ty)
        self._bound.append((var, value))
        return var

    def _taken(self, expr: Expr) -> Expr:
        """`expr` with its Lets taken into this chain, but for those of a branch that may not be evaluated."""
        if isinstance(expr, tirx.Let):
            self._bound.append((expr.var, expr.value))
            return self._taken(expr.body)
        parts = () if isinstance(expr, ir.Call) else parts_of(expr)
        taken = [self._taken(part) for part in parts]
        same = all(new.same_as(old) for new, old in zip(taken, parts, strict=True))
        return expr if same else with_parts(expr, taken)

    def close(self, result: Expr) -> Expr:
        for var, value in reversed(self._bound):
            result = tirx.Let(var, value, result)
        return result


def closed(steps: Callable[..., Expr]) -> Callable[..., Expr]:
    """The function of expressions that `steps(let, *args)` writes as straight-line code."""

    @functools.wraps(steps)
    def function(*args: Expr) -> Expr:
        let = Lets()
        return let.close(steps(let, *(let(arg) for arg in args)))

    return function


def plain(steps: Callable[..., Expr]) -> Callable[..., Expr]:
    """As `closed`, for a function that uses its arguments once: a name is made only for one that is straight-line
    code itself. TVM 0.27 puts the value of a scalar in every place where it is used, and then complains about names
    that are bound twice.
    """
    chained = closed(steps)

    @functools.wraps(steps)
    def function(*args: Expr) -> Expr:
        return chained(*args) if any(isinstance(arg, tirx.Let) for arg in args) else steps(None, *args)

    return function
