"""The example operator, installed: a model that uses it compiles, in every version of its domain."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import dscc
from dscc import plugins
from dscc.errors import FrontendError, PluginError
from dscc.frontends.onnx import registry

pytest.importorskip("dscc_onnx_soft_threshold", reason="the example plug-ins are not installed; run `make venv`")
DOMAIN = "com.example.signal"


def model(inputs: list[str], version: int = 1, channels: Any = (3,), functions: Any = (), **attributes: Any) -> Any:
    nodes = [helper.make_node("Neg", ["x"], ["n"]),
             helper.make_node("SoftThreshold", inputs, ["y"], "shrink", domain=DOMAIN, **attributes)]  # fmt: skip
    infos = [helper.make_tensor_value_info("x", 1, ["n", 3, "w"]), helper.make_tensor_value_info("t", 1, channels)]
    graph = helper.make_graph(nodes, "g", infos, [helper.make_tensor_value_info("y", 1, None)])
    imports = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, version)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10, functions=list(functions))


def shrunk(x: Any, t: Any) -> Any:
    return np.sign(x) * np.maximum(np.abs(x) - t, 0)


@pytest.mark.parametrize("shape", [(2, 3, 5), (1, 3, 1), (4, 3, 17)])
def test_a_threshold_for_each_channel(shape: tuple[int, ...]) -> None:
    artifact = dscc.compile(model(["n", "t"]), fallback=False, jobs=1)
    assert artifact.manifest.plugins == {"onnx-soft-threshold": "1.0.0"}
    x, t = np.random.default_rng(0).standard_normal(shape).astype("f"), np.array([0.1, 0.5, 2], "f")
    (got,) = artifact.load().run(None, {"x": x, "t": t})
    np.testing.assert_allclose(got, shrunk(-x, t[:, None]), rtol=1e-6)


def test_the_version_that_the_model_imports_decides() -> None:
    x = np.linspace(-2, 2, 12, dtype="f").reshape(2, 3, 2)
    module = dscc.compile(model(["n"], version=7, lambd=1.5), jobs=1).load()
    np.testing.assert_allclose(module.run(None, {"x": x, "t": np.zeros(3, "f")})[0], shrunk(-x, 1.5), rtol=1e-6)
    with pytest.raises(FrontendError, match=r"node 1 'shrink' \(com.example.signal.SoftThreshold\): it has 1 inputs"):
        dscc.compile(model(["n"], version=1, lambd=1.5))


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (model(["n", "t"], channels=(4,)), r"node 1 'shrink' .*: the number of thresholds is 4, expected 3"),
        (model(["n", "t"], channels=(3, 1)), "the threshold has rank 2"),
        (model(["n", "t"], axis=7), "axis 7 is out of range for rank 3"),
        (model(["n", "t"], axis="one"), "attribute 'axis' is of type STRING, expected INT"),
        (model(["n", "t", "t"]), "it has 3 inputs; the operator takes 2"),
    ],
)
def test_what_it_refuses(made: onnx.ModelProto, message: str) -> None:
    with pytest.raises(FrontendError, match=message):
        dscc.compile(made)


def test_a_function_of_the_model_comes_first() -> None:
    """Installing a plug-in changes nothing for a model that says itself what its operator is."""
    body = [helper.make_node("Abs", ["a"], ["b"])]
    function = helper.make_function(DOMAIN, "SoftThreshold", ["a", "t"], ["b"], body, [helper.make_opsetid("", 20)])
    artifact = dscc.compile(model(["n", "t"], functions=[function]), jobs=1)
    x = np.linspace(-2, 2, 12, dtype="f").reshape(2, 3, 2)
    np.testing.assert_array_equal(artifact.load().run(None, {"x": x, "t": np.zeros(3, "f")})[0], np.abs(x))
    assert artifact.manifest.plugins == {}


def test_without_the_plugin_the_operator_is_unknown() -> None:
    plugins.configure(["no:onnx-soft-threshold"])
    try:
        with pytest.raises(FrontendError, match=r"operator 'SoftThreshold' of domain 'com.example.signal'"):
            dscc.compile(model(["n", "t"]))
    finally:
        plugins.configure([])


def test_an_operator_that_dscc_converts_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    cls = plugins.registry().operators["com.example.signal.SoftThreshold@1"]
    monkeypatch.setitem(registry._TABLE, (cls.domain, cls.op), {1: lambda node, x: x})
    message = "'com.example.signal.SoftThreshold' is provided by both 'dscc.frontends' and 'onnx-soft-threshold'"
    with pytest.raises(PluginError, match=message):
        dscc.compile(model(["n", "t"]))
