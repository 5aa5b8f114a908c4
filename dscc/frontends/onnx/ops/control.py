"""If: the branch that a known condition takes, in the If's place; else both as regions."""

from __future__ import annotations

from typing import Any

from tvm import relax

from dscc import library
from dscc.frontends.onnx import regions
from dscc.frontends.onnx.kinds import join, kind_of, restrict, result_type, wrap
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.registry import converter
from dscc.frontends.onnx.shapes import shape_expr
from dscc.frontends.onnx.values import Value


@converter("If", patterns=True)
def choose(node: Node, condition: Value) -> list[Value]:
    """The outputs of the branch that `condition`, a tensor of one element, takes."""
    graphs = [node.required("then_branch"), node.required("else_branch")]
    if condition.constant is not None:
        return node.importer.subgraph(node, graphs[0 if condition.constant.item() else 1], dict(node.scope))
    known = node.dims.names
    captured = regions.Captured(node, graphs)
    drafts = [regions.draft(node, graph, {}, [], captured) for graph in graphs]
    used = set().union(*(draft.used() for draft in drafts))
    inside = [param for param in captured.params if param in used]
    symbols = regions.free_symbols(drafts, inside)
    sizes = [relax.Var("sizes", relax.ShapeType(symbols))] if symbols else []
    functions = [
        regions.region(node, what, draft, sizes, inside) for what, draft in zip(("then", "else"), drafts, strict=True)
    ]
    kinds = _kinds(node, known, *(draft.values for draft in drafts))
    arguments = [*([shape_expr(symbols)] if symbols else []), *(captured.values[param].expr for param in inside)]
    call = library.call(
        "if", [*functions, condition.expr, *arguments], relax.TupleType([result_type(kind) for kind in kinds])
    )
    result = node.bb.emit(call)
    return [
        wrap(node.bb, node.dims, kind, node.bb.emit(relax.TupleGetItem(result, index)), name)
        for index, (kind, name) in enumerate(zip(kinds, node.proto.output, strict=False))
    ]


def _kinds(node: Node, known: frozenset[str], first: list[Value], second: list[Value]) -> list[Any]:
    if len(first) != len(second):
        raise node.error(f"then_branch has {len(first)} outputs and else_branch {len(second)}; they must be as many")
    kinds = []
    for index, pair in enumerate(zip(first, second, strict=True)):
        try:
            kinds.append(join(node.dims, *(restrict(kind_of(value), known) for value in pair)))
        except ValueError as err:
            raise node.error(f"output {index} is not the same in both branches: {err}") from err
    return kinds
