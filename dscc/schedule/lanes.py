"""Scalar expressions evaluated for several lanes at once."""

from __future__ import annotations

from collections.abc import Mapping

from tvm import ir
from tvm.ir import Expr, Var

from dscc.schedule.code import Code, broadcast, lanes_of
from dscc.schedule.math import vector_call
from dscc.schedule.operands import parts_of, with_parts


def lift(code: Code, expr: Expr, values: Mapping[Var, Expr]) -> Expr:
    """`expr` with variables replaced by scalars or by vectors, all with the same number of lanes.

    The result is a scalar where no vector is involved. Loads must have been named before. Elementary functions become
    arithmetic, of which `code` receives the steps: TVM 0.27 refuses a Let in the value of a Bind (its analyzer binds
    the variable twice and finds that its two ranges differ).
    """
    if isinstance(expr, Var):
        return values.get(expr, expr)
    parts = [lift(code, part, values) for part in parts_of(expr)]
    lanes = max((lanes_of(part) for part in parts), default=1)
    out = with_parts(expr, [broadcast(part, lanes) for part in parts])
    return code.steps(vector_call(out)) if isinstance(out, ir.Call) else out
