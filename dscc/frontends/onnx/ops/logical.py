"""Comparison, logic and selection."""

from __future__ import annotations

from collections.abc import Callable

from tvm.relax import Expr
from tvm.relax import op as R

from dscc.frontends.onnx.broadcast import broadcast
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.ops.math import legacy_operands
from dscc.frontends.onnx.registry import converter
from dscc.frontends.onnx.values import Value


def _binary(function: Callable[[Expr, Expr], Expr]) -> Callable[..., Expr]:
    return lambda node, a, b: function(*broadcast(node, *legacy_operands(node, a, b)))


@converter("Equal")
def equal(node: Node, a: Value, b: Value) -> Expr:
    left, right = broadcast(node, *legacy_operands(node, a, b))
    if a.dtype == "bool":
        # TVM 0.27 compares vectors of booleans as numbers with a point, which LLVM refuses.
        return R.logical_not(node.emit(R.logical_xor(left, right)))
    return R.equal(left, right)


for _name, _function in {
    "Less": R.less,
    "LessOrEqual": R.less_equal,
    "Greater": R.greater,
    "GreaterOrEqual": R.greater_equal,
    "And": R.logical_and,
    "Or": R.logical_or,
    "Xor": R.logical_xor,
}.items():
    converter(_name)(_binary(_function))


@converter("Not")
def logical_not(node: Node, x: Value) -> Expr:
    return R.logical_not(x.expr)


@converter("Where")
def where(node: Node, condition: Value, a: Value, b: Value) -> Expr:
    return R.where(*broadcast(node, condition, a, b))
