"""Engines that a model would end the process with."""

from __future__ import annotations

import sys
from typing import Any, ClassVar

import onnx
import pytest
from onnx import helper

from dscc.frontends.onnx import trial
from dscc.frontends.onnx.cut import FallbackWarning
from dscc.frontends.onnx.frontend import OnnxFrontend
from dscc.options import CompileOptions
from dscc.runtime.engines import Engine, EngineError, Item

N = helper.make_node


class Fragile(Engine):
    """Its name is not known in the child, so that what happens there is up to the test."""

    name: ClassVar[str] = "fragile"
    package: ClassVar[str] = "onnx"
    native: ClassVar[bool] = True

    def __init__(self, model: bytes, threads: int):
        pass

    def run(self, inputs: Any) -> list[Item]:
        return []


@pytest.mark.parametrize(
    ("child", "reason"),
    [("import os; os.abort()", r"it ends the process \(SIGABRT\)"), ("import time; time.sleep(9)", "takes more than")],
)
def test_what_ends_or_stalls_the_child_is_refused(child: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_CHILD", child)
    monkeypatch.setattr(trial, "LIMIT_S", 1.0)
    with pytest.raises(EngineError, match=reason):
        trial.make(Fragile, child.encode())
    monkeypatch.setattr(trial, "_death", lambda *_: pytest.fail("the same model was tried twice"))
    with pytest.raises(EngineError, match=reason):
        trial.make(Fragile, child.encode())


def test_what_only_fails_in_the_child_is_for_the_engine_itself_to_say() -> None:
    assert isinstance(trial.make(Fragile, sys.executable.encode()), Fragile)


def test_graphs_nested_so_deep_that_onnxruntime_dies() -> None:
    """onnxruntime 1.32 does, and the next engine is taken; a later one may not."""
    inner = N("StringNormalizer", ["text"], ["y"], case_change_action="LOWER")
    for depth in range(12):
        infos = [helper.make_empty_tensor_value_info("y")]
        branch = helper.make_graph([inner], f"then{depth}", [], infos)
        other = helper.make_graph([N("Identity", ["text"], ["y"])], f"else{depth}", [], infos)
        inner = N("If", ["yes"], ["y"], then_branch=branch, else_branch=other)
    graph = helper.make_graph(
        [inner], "nested", [helper.make_tensor_value_info("text", onnx.TensorProto.STRING, ["n"])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.STRING, ["n"])],
        [helper.make_tensor("yes", onnx.TensorProto.BOOL, [], [True])],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    with pytest.warns(FallbackWarning, match="on onnxruntime|on reference"):
        OnnxFrontend().load(model, CompileOptions())
