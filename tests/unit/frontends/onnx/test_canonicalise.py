"""A step that fails is said, and leaves the model as it was."""

from __future__ import annotations

import onnx
import pytest
from onnx import helper

from dscc.frontends.onnx import canonicalise


def with_function() -> onnx.ModelProto:
    body = helper.make_function("own", "Twice", ["x"], ["y"], [helper.make_node("Add", ["x", "x"], ["y"])], [])
    body.opset_import.append(helper.make_opsetid("", 17))
    value = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ("n",)) for name in "ab"]
    graph = helper.make_graph([helper.make_node("Twice", ["a"], ["b"], domain="own")], "g", value[:1], value[1:])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, functions=[body], opset_imports=opsets)


def test_own_functions_are_inlined(caplog: pytest.LogCaptureFixture) -> None:
    done = canonicalise.canonicalise(with_function())
    assert [node.op_type for node in done.graph.node] == ["Add"]
    assert not caplog.records


def test_a_failing_inliner_is_said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def fail(model: onnx.ModelProto) -> onnx.ModelProto:
        raise RuntimeError("no such schema\nmore")

    monkeypatch.setattr(onnx.inliner, "inline_local_functions", fail)
    model = with_function()
    assert canonicalise.canonicalise(model) is model
    assert [record.getMessage() for record in caplog.records] == [
        "the functions of the model are expanded call by call, since onnx's inliner failed: no such schema"
    ]
