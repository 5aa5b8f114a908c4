"""Control flow that is decided while compiling."""

from __future__ import annotations

from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.registry import converter
from dscc.frontends.onnx.values import Value


@converter("If")
def choose(node: Node, condition: Value) -> list[Value]:
    """The branch that a known condition takes, in the If's place."""
    if condition.constant is None:
        raise node.unsupported(
            f"the condition ('{condition.name}') is computed when the model runs; it must be known while compiling"
        )
    return node.importer.inline(node, node.required("then_branch" if condition.constant.item() else "else_branch"))
