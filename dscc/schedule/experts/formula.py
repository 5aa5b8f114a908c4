"""Formulas over scalars as text, so that functions that compute the same are equal whatever their variables.

gate * sigmoid(gate) * up     ["Mul", ["Mul", "p0", ["call", "tirx.sigmoid", "p0"]], "p1"]
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tvm import ir, tirx
from tvm.ir import Expr, Var
from tvm.ir.prim.expr import BinaryOpExpr, CmpExpr

from dscc.schedule.operands import parts_of

_KINDS = (
    "Add", "Sub", "Mul", "Div", "Mod", "FloorDiv", "FloorMod", "Min", "Max",
    "EQ", "NE", "LT", "LE", "GT", "GE", "And", "Or", "Not", "Select",
)  # fmt: skip


def text(expr: Expr, names: Mapping[Var, str]) -> str:
    """`expr` as JSON, its variables under `names`.

    Raises:
        ValueError: there is something in it that has no text.
    """
    return json.dumps(_plain(expr, names))


def _plain(expr: Expr, names: Mapping[Var, str]) -> Any:
    if isinstance(expr, Var):
        if expr not in names:
            raise ValueError(f"variable '{expr.name}' has no name in the formula")
        return names[expr]
    if isinstance(expr, tirx.FloatImm | tirx.IntImm):
        return ["const", expr.value, str(expr.ty.dtype)]
    parts = [_plain(part, names) for part in parts_of(expr)]
    if isinstance(expr, tirx.Cast):
        return ["cast", str(expr.ty.dtype), *parts]
    if isinstance(expr, ir.Call) and isinstance(expr.op, ir.Op) and parts:
        return ["call", expr.op.name, *parts]
    kind = type(expr).__name__
    if isinstance(expr, BinaryOpExpr | CmpExpr | tirx.And | tirx.Or | tirx.Not | tirx.Select) and kind in _KINDS:
        return [kind, *parts]
    raise ValueError(f"'{expr}' has no text")


def build(formula: str, values: Mapping[str, Expr]) -> Expr:
    """The expression that `text` wrote, over `values`, scalars."""
    return _built(json.loads(formula), values)


def _built(node: Any, values: Mapping[str, Expr]) -> Expr:
    if isinstance(node, str):
        return values[node]
    kind, *rest = node
    if kind == "const":
        return tirx.const(rest[0], rest[1])
    if kind == "cast":
        return tirx.Cast(rest[0], _built(rest[1], values))
    if kind == "call":
        args = [_built(part, values) for part in rest[1:]]
        return ir.Call(ir.Op.get(rest[0]), args, None, [], None, args[0].ty.dtype)
    return getattr(tirx, kind)(*[_built(part, values) for part in rest])


def names(formula: str) -> frozenset[str]:
    """The variables of a formula."""
    found: set[str] = set()

    def visit(node: Any) -> None:
        if isinstance(node, str):
            found.add(node)
        elif node[0] != "const":
            for part in node[2 if node[0] in ("cast", "call") else 1 :]:
                visit(part)

    visit(json.loads(formula))
    return frozenset(found)
