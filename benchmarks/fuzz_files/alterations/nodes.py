"""Alterations of nodes, of the edges between them and of names."""

from __future__ import annotations

import onnx

from benchmarks.fuzz_files import fields
from benchmarks.fuzz_files.fields import Random, pick
from benchmarks.fuzz_files.file import File, copied, some

_OPERATORS = sorted({schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""})


def edge(rng: Random, file: File) -> None:
    node = some(rng, [node for node in file.nodes() if node.input])
    node.input[int(rng.integers(len(node.input)))] = pick(rng, file.names())


def more_or_fewer_edges(rng: Random, file: File) -> None:
    node = some(rng, file.nodes())
    names = pick(rng, (node.input, node.output))
    if names and rng.random() < 0.6:
        del names[int(rng.integers(len(names)))]
    else:
        names.append(pick(rng, file.names()))


def output_name(rng: Random, file: File) -> None:
    node = some(rng, [node for node in file.nodes() if node.output])
    node.output[int(rng.integers(len(node.output)))] = pick(rng, file.names())


def rename(rng: Random, file: File) -> None:
    """One name everywhere, to something odd or to another one."""
    old, new = pick(rng, file.names()), pick(rng, (*fields.TEXTS, *file.names()[:8]))
    for node in file.nodes():
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    for kind in ("ValueInfoProto", "TensorProto"):
        for each in fields.messages(file.model, kind):
            if each.name == old:
                each.name = new


def operator(rng: Random, file: File) -> None:
    node = some(rng, file.nodes())
    node.op_type = some(rng, _OPERATORS)
    if rng.random() < 0.1:
        node.domain = pick(rng, ("ai.onnx", "ai.onnx.ml", "com.microsoft", "local", "org.x"))


def node_list(rng: Random, file: File) -> None:
    """A node is left out, doubled or moved."""
    graph = some(rng, file.graphs())
    nodes = [copied(node) for node in graph.node]
    index, target = (int(rng.integers(len(nodes))) for _ in range(2))
    node = nodes[index] if rng.random() < 0.4 else nodes.pop(index)
    if rng.random() < 0.6:
        nodes.insert(target, node)
    del graph.node[:]
    graph.node.extend(nodes)
