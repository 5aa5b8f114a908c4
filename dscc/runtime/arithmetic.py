"""Formulas over sizes as the manifest holds them: Python's operators, and TVM's spelling of `T.min(n, T.int64(5))`."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping

_BINARY: Mapping[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_CALLS: Mapping[str, Callable[..., int]] = {"min": min, "max": max, "int64": int}


def evaluate(text: str, sizes: Mapping[str, int]) -> int:
    """The value of a formula.

    Args:
        sizes: of the names in it.

    Raises:
        ValueError: it divides by 0, or has something in it that is not known here, as what only a run can tell.
    """

    def value(node: ast.expr) -> int:
        match node:
            case ast.Constant(value=int(number)):
                return number
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -value(operand)
            case ast.Name(id=name) if name in sizes:
                return sizes[name]
            case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _BINARY:
                return _BINARY[type(sign)](value(left), value(right))
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=args) if name in _CALLS:
                return _CALLS[name](*map(value, args))
        raise ValueError(f"'{ast.unparse(node)}' is no formula over {', '.join(sizes)}")

    try:
        return value(ast.parse(text, mode="eval").body)
    except (SyntaxError, ZeroDivisionError) as err:
        raise ValueError(f"'{text}': {err}") from err
