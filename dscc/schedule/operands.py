"""The operands of a scalar expression, and the same expression with others."""

from __future__ import annotations

from collections.abc import Sequence

from tvm import ir, tirx
from tvm.ir import Expr
from tvm.ir.prim.expr import BinaryOpExpr, BitwiseNot, CmpExpr

from dscc.schedule.code import broadcast, lanes_of


def with_parts(expr: Expr, parts: Sequence[Expr]) -> Expr:
    """`expr` with other operands, which may be vectors; leaves are returned as they are."""
    if not parts:
        return expr
    if isinstance(expr, BinaryOpExpr | CmpExpr | tirx.And | tirx.Or | tirx.Not | BitwiseNot | tirx.Select):
        return type(expr)(*parts)
    lanes = lanes_of(parts[0])
    dtype = f"{expr.ty.dtype}x{lanes}" if lanes > 1 else str(expr.ty.dtype)
    if isinstance(expr, tirx.Cast):
        if str(parts[0].ty.dtype).startswith("boolx"):
            # TVM 0.27 refuses to bind a variable to the cast of a comparison of vectors
            zero, one = (broadcast(tirx.const(number, expr.ty.dtype), lanes) for number in (0, 1))
            return tirx.Select(*parts, one, zero)
        return tirx.Cast(dtype, *parts)
    return ir.Call(expr.op, list(parts), expr.attrs, expr.ty_args, expr.span, dtype)


def parts_of(expr: Expr) -> tuple[Expr, ...]:
    """The operands of an expression without loads."""
    if isinstance(expr, BinaryOpExpr | CmpExpr | tirx.And | tirx.Or):
        return (expr.a, expr.b)
    if isinstance(expr, tirx.Cast):
        return (expr.value,)
    if isinstance(expr, tirx.Not | BitwiseNot):
        return (expr.a,)
    if isinstance(expr, tirx.Select):
        return (expr.condition, expr.true_value, expr.false_value)
    if isinstance(expr, ir.Call):
        return tuple(expr.args)
    return ()
