"""LSTM, GRU and RNN against onnxruntime, over attributes and odd shapes; the definition and the scheduled kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from dscc.compiler import compile
from dscc.errors import FrontendError
from dscc.frontends.onnx.frontend import OnnxFrontend
from dscc.options import CompileOptions
from dscc.runtime.module import Module
from tests.unit.frontends.onnx.conftest import executable

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_FUNCTIONS = {"LSTM": 3, "GRU": 2, "RNN": 1}
_NAMES = [
    "Sigmoid",
    "Tanh",
    "Relu",
    "Affine",
    "LeakyRelu",
    "ThresholdedRelu",
    "ScaledTanh",
    "HardSigmoid",
    "Elu",
    "Softsign",
    "Softplus",
]
_TWO = {"Affine", "ScaledTanh", "HardSigmoid"}
_ONE = {"LeakyRelu", "ThresholdedRelu", "Elu"} | _TWO


def _case(seed: int) -> tuple[str, dict[str, Any], dict[str, np.ndarray], list[str]]:
    """Operator, attributes, values of its inputs, and which of these are inputs of the model."""
    rng = np.random.default_rng(seed)

    def chance(share: float) -> bool:
        return bool(rng.random() < share)

    op = ["LSTM", "GRU", "RNN"][seed % 3]
    length, batch, size = (int(n) for n in (rng.integers(1, 8), rng.choice([1, 1, 2, 3, 5, 17]), rng.integers(1, 9)))
    hidden = int(rng.choice([1, 2, 3, 5, 8, 16, 17, 20, 33, 40]))
    direction = str(rng.choice(["forward", "reverse", "bidirectional"]))
    directions, gates = 2 if direction == "bidirectional" else 1, _GATES[op]
    attrs: dict[str, Any] = {"direction": direction, "hidden_size": hidden}

    def tensor(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) * 0.5).astype(np.float32)

    values = {
        "X": tensor(length, batch, size),
        "W": tensor(directions, gates * hidden, size),
        "R": tensor(directions, gates * hidden, hidden),
    }
    if chance(0.7):
        values["B"] = tensor(directions, 2 * gates * hidden)
    if chance(0.4):
        values["sequence_lens"] = rng.integers(0, length + 1, batch).astype(np.int32)
    if chance(0.5):
        values["initial_h"] = tensor(directions, batch, hidden)
    if op == "LSTM" and chance(0.5):
        values["initial_c"] = tensor(directions, batch, hidden)
    if op == "LSTM" and chance(0.4):
        values["P"] = tensor(directions, 3 * hidden)
    if chance(0.5):
        names = [str(rng.choice(_NAMES)) for _ in range(_FUNCTIONS[op] * directions)]
        attrs["activations"] = names
        if chance(0.7) or {"Affine", "ScaledTanh"} & set(names):  # whose defaults nothing defines
            attrs["activation_alpha"] = [float(rng.uniform(0.1, 0.9)) for name in names if name in _ONE]
            attrs["activation_beta"] = [float(rng.uniform(0.1, 0.9)) for name in names if name in _TWO]
    if chance(0.3):
        attrs["clip"] = float(rng.uniform(0.2, 1.5))
    if op == "LSTM" and chance(0.3):
        attrs["input_forget"] = 1
    if op == "GRU" and chance(0.5):
        attrs["linear_before_reset"] = 1
    inputs = ["X", *(name for name in values if name != "X" and chance(0.3))]
    if "sequence_lens" in values:
        inputs = list(dict.fromkeys([*inputs, "sequence_lens"]))
    return op, attrs, values, inputs


_INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
_OPEN = {
    "X": ("s", "b", None),
    "sequence_lens": ("b",),
    "initial_h": (None, "b", None),
    "initial_c": (None, "b", None),
}


def _model(
    op: str, attrs: dict[str, Any], values: dict[str, np.ndarray], inputs: list[str], opset: int = 14
) -> onnx.ModelProto:
    """One node; lengths and batch of the model's inputs are symbolic."""
    names = [name if name in values else "" for name in _INPUTS[: 8 if op == "LSTM" else 6]]
    attrs = {name: value for name, value in attrs.items() if value != []}
    if not attrs.get("layout"):
        dims = {name: [d or n for d, n in zip(_OPEN.get(name, v.shape), v.shape, strict=True)] for name, v in values.items()}
    else:
        dims = {name: list(v.shape) for name, v in values.items()}
    outputs = ["Y", "Y_h", "Y_c"][: 3 if op == "LSTM" else 2]
    kinds = {name: helper.np_dtype_to_tensor_dtype(value.dtype) for name, value in values.items()}
    graph = helper.make_graph(
        [helper.make_node(op, names, outputs, **attrs)],
        "test",
        [helper.make_tensor_value_info(name, kinds[name], dims[name]) for name in inputs],
        [helper.make_tensor_value_info(name, kinds["X"], None) for name in outputs],
        [onnx.numpy_helper.from_array(value, name) for name, value in values.items() if name not in inputs],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def _expected(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)


def _same(got: list[np.ndarray], want: list[np.ndarray], tolerance: float = 2e-5) -> None:
    for a, b in zip(got, want, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("seed", range(36))
def test_scheduled(seed: int) -> None:
    op, attrs, values, inputs = _case(seed)
    model = _model(op, attrs, values, inputs)
    feeds = {name: values[name] for name in inputs}
    _same(compile(model).load().run(None, feeds), _expected(model, feeds))


@pytest.mark.parametrize("seed", range(100, 112))
def test_definition(seed: int) -> None:
    op, attrs, values, inputs = _case(seed)
    model = _model(op, attrs, values, inputs)
    feeds = {name: values[name] for name in inputs}
    _same(executable(OnnxFrontend().load(model, CompileOptions()))(feeds), _expected(model, feeds))
