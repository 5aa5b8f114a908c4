"""How index expressions depend on a loop variable."""

from __future__ import annotations

import tvm_ffi
from tvm import ir
from tvm.ir import Expr, Var
from tvm.sym import Analyzer

from dscc.schedule.code import constant
from dscc.schedule.domain import is_if_then_else
from dscc.schedule.stages import loads


def stride(expr: Expr, var: Var, analyzer: Analyzer) -> int | None:
    """By how much `expr` grows with `var`, if that is a constant; a load inside makes it none."""
    if not mentions(expr, var):
        return 0
    if loads(expr):
        return None
    moved = tvm_ffi.structural_map(expr, (Var, lambda used: used + 1 if used.same_as(var) else used))
    return constant(analyzer.simplify(moved - expr))


def mentions(expr: Expr, var: Var) -> bool:
    """Whether `expr` uses `var`."""
    found: list[Var] = []
    tvm_ffi.structural_walk(expr, (Var, lambda used: found.append(used) if used.same_as(var) else None))
    return bool(found)


def has_condition_on(value: Expr, var: Var) -> bool:
    """Whether a lazy conditional depends on `var`: it may guard loads, so it cannot become a select."""
    found: list[Expr] = []

    def visit(node: ir.Call) -> None:
        if is_if_then_else(node) and mentions(node.args[0], var):
            found.append(node)

    tvm_ffi.structural_walk(value, (ir.Call, visit))
    return bool(found)
