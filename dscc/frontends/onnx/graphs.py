"""Questions about the nodes of an ONNX graph, as they are in the file."""

from __future__ import annotations

from collections.abc import Sequence

import onnx


def needed(nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]) -> list[tuple[int, onnx.NodeProto]]:
    """The nodes that the outputs depend on, each with its number in the graph."""
    wanted = set(outputs)
    kept = []
    for index in range(len(nodes) - 1, -1, -1):
        if any(name in wanted for name in nodes[index].output):
            kept.append((index, nodes[index]))
            wanted.update(nodes[index].input)
            for attribute in nodes[index].attribute:
                if attribute.HasField("g"):
                    wanted.update(outer_names(attribute.g))
    return kept[::-1]


def outer_names(graph: onnx.GraphProto) -> set[str]:
    """Names that a subgraph takes from the graphs around it, also where it makes a value of that name later."""
    inside = {info.name for info in graph.input} | {tensor.name for tensor in graph.initializer} | {""}
    names: set[str] = set()
    for node in graph.node:
        names |= set(node.input) - inside
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                names |= outer_names(inner) - inside
        inside.update(node.output)
    return names | {output.name for output in graph.output} - inside
