"""What is known of a run before it: whether it surely ends soon and in little memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import dscc
from dscc import compiler, effort, selfcheck
from dscc.options import CompileOptions
from dscc.passes.lower.lift_constants import lift_constants

N = helper.make_node
F32, I64, BOOL = 1, 7, 9


def model(nodes: list[onnx.NodeProto], weights: dict[str, Any], outputs: list[str], **inputs: Any) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info(name, F32, shape) for name, shape in inputs.items()],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def loop(trips: int) -> onnx.ModelProto:
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [N("Add", ["s", "one"], ["t"]), N("Identity", ["go"], ["on"])], "body",
        [info("i", I64, []), info("go", BOOL, []), info("s", F32, [2])], [info("on", BOOL, []), info("t", F32, [2])],
    )  # fmt: skip
    weights = {"trips": np.array(trips), "one": np.array(1, np.float32)}
    return model([N("Loop", ["trips", "", "x"], ["y"], body=body)], weights, ["y"], x=[2])


def expanded(*sizes: int) -> onnx.ModelProto:
    """The sum of something large, which a kernel computes without keeping it."""
    nodes = [N("Expand", ["x", "sizes"], ["e"]), N("ReduceSum", ["e"], ["y"], keepdims=0)]
    return model(nodes, {"sizes": np.array(sizes)}, ["y"], x=[1] * len(sizes))


def product(rows: int | str, size: int) -> onnx.ModelProto:
    return model([N("MatMul", ["x", "w"], ["y"])], {"w": np.zeros((size, size), np.float32)}, ["y"], x=[rows, size])


@pytest.mark.parametrize(
    ("made", "bounded"),
    [
        (product("n", 64), True),
        (product("n", 4096), True),
        (product(2**19, 1024), False),
        (product(2**25, 64), False),
        (expanded(64, 64), True),
        (expanded(2**20, 2**19), False),
        (loop(3), False),
        (model([N("Relu", ["x"], ["y"])], {}, ["y"], x=[2**31]), False),
        (model([N("Relu", ["x"], ["y"])], {}, ["y"], x=["a", "b", "c"]), True),
    ],
)
def test_bounded(made: onnx.ModelProto, bounded: bool) -> None:
    options = CompileOptions(jobs=1)
    done = compiler.optimize(made, options, compiler.lowering(options), lambda stage: None)
    assert effort.is_bounded(lift_constants(done.mod).mod) == bounded


def test_the_check_of_a_loop_is_what_it_is_in_this_process() -> None:
    artifact = dscc.compile(loop(3), jobs=1)
    assert artifact.manifest.check["outputs"]["y"]["shape"] == [2]
    assert artifact.manifest.check == selfcheck.record(artifact).manifest.check


def test_a_loop_without_an_end_has_no_check(monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = dscc.compile(loop(2**62), jobs=1)
    assert not artifact.manifest.check
    assert artifact.manifest.outputs[0].shape == (2,)


def test_inputs_that_do_not_fit_into_memory() -> None:
    assert not dscc.compile(model([N("Relu", ["x"], ["y"])], {}, ["y"], x=[2**37]), jobs=1).manifest.check
