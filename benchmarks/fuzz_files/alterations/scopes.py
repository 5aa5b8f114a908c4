"""Alterations of versions, and nodes that move into functions and subgraphs."""

from __future__ import annotations

import numpy as np
from onnx import helper, numpy_helper

from benchmarks.fuzz_files import fields
from benchmarks.fuzz_files.fields import Random, pick
from benchmarks.fuzz_files.file import File, copied, some


def opset(rng: Random, file: File) -> None:
    imports = file.model.opset_import
    choice = rng.integers(5)
    if choice == 0 and imports:
        del imports[int(rng.integers(len(imports)))]
    elif choice == 1:
        domain = pick(rng, ("", "ai.onnx", "ai.onnx.ml", "x", "com.microsoft"))
        imports.add(domain=domain, version=pick(rng, (1, 9, 99)))
    elif choice == 2:
        file.model.ir_version = pick(rng, fields.NUMBERS)
    else:
        version = int(rng.integers(-1, 29)) if rng.random() < 0.8 else pick(rng, fields.NUMBERS)
        some(rng, list(imports)).version = version


def into_function(rng: Random, file: File) -> None:
    """A node becomes a call of a function that has its body; or a call within a function becomes one of itself."""
    functions = file.model.functions
    if functions and rng.random() < 0.5:
        function, callee = pick(rng, functions), pick(rng, functions)
        node = some(rng, list(function.node))
        node.op_type, node.domain = callee.name, callee.domain
        return
    node = some(rng, list(file.model.graph.node))
    inputs = list(dict.fromkeys(name for name in node.input if name))
    name = f"Made{len(functions)}"
    functions.append(
        helper.make_function(
            "local", name, inputs, [o for o in node.output if o], [copied(node)], list(file.model.opset_import)
        )
    )
    call = helper.make_node(name, inputs, [o for o in node.output if o], domain="local")
    node.CopyFrom(call)
    if not any(each.domain == "local" for each in file.model.opset_import):
        file.model.opset_import.add(domain="local", version=1)


def into_branch(rng: Random, file: File) -> None:
    """A node moves into a branch of an If, or the body of a Loop, nested a few or many times."""
    graph = some(rng, file.graphs())
    node = some(rng, list(graph.node))
    outputs = [name for name in node.output if name]
    inner = copied(node)
    yes, trips = f"yes{len(graph.node)}", f"trips{len(graph.node)}"
    for depth in range(int(pick(rng, (1, 1, 2, 3, 12, 40)))):
        infos = [helper.make_empty_tensor_value_info(name) for name in outputs]
        if rng.random() < 0.7:
            branch = helper.make_graph([inner], f"branch{depth}", [], infos)
            other = branch if depth < 2 else helper.make_graph([copied(node)], f"other{depth}", [], infos)
            inner = helper.make_node("If", [yes], outputs, then_branch=branch, else_branch=other)
        else:
            go = f"go{depth}"
            passed = helper.make_node("Identity", [yes], [go])
            body = helper.make_graph(
                [passed, inner],
                f"body{depth}",
                [helper.make_tensor_value_info(f"i{depth}", 7, []), helper.make_tensor_value_info(f"c{depth}", 9, [])],
                [helper.make_tensor_value_info(go, 9, []), *infos],
            )
            inner = helper.make_node("Loop", [trips, yes], outputs, body=body)
    node.CopyFrom(inner)
    graph.initializer.append(numpy_helper.from_array(np.array(True), yes))
    graph.initializer.append(numpy_helper.from_array(np.array(int(pick(rng, (0, 1, 2, 3)))), trips))
