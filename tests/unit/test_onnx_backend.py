"""dscc as a backend in ONNX's sense."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from dscc import onnx_backend
from dscc.errors import DsccError, InputError


def model(operator: str = "Relu") -> onnx.ModelProto:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in "xy")
    nodes = [helper.make_node(operator, ["x"], ["r"]), helper.make_node("Add", ["r", "x"], ["y"])]
    opset = helper.make_opsetid("", 20)
    return helper.make_model(helper.make_graph(nodes, "g", [x], [y]), opset_imports=[opset])


X = np.array([[1, -2, 3]], np.float32)


def test_prepare_takes_inputs_in_three_forms():
    prepared = onnx_backend.prepare(model(), "CPU:0")
    for inputs in ([X], {"x": X}, X):
        outputs = prepared.run(inputs)
        assert outputs[0].tolist() == [[2, -2, 6]]
        assert outputs["y"] is outputs[0]
    with pytest.raises(InputError, match="input 'x': expected type float32, got float64"):
        prepared.run([X.astype(np.float64)])


def test_run_model():
    assert onnx_backend.run_model(model(), [X])[0].tolist() == [[2, -2, 6]]


def test_run_node():
    node = helper.make_node("Clip", ["x", "", "high"], ["y"])
    for info in (None, [(np.dtype(np.float32), (1, 3))]):
        outputs = onnx_backend.run_node(node, [X, np.float32(2)], outputs_info=info, opset_version=13)
        assert outputs[0].tolist() == [[1, -2, 2]]


def test_devices():
    assert onnx_backend.supports_device("CPU")
    assert not onnx_backend.supports_device("CUDA")
    assert not onnx_backend.supports_device("TOASTER")
    with pytest.raises(DsccError, match="unknown device 'CUDA:1'; known: CPU"):
        onnx_backend.prepare(model(), "CUDA:1")


def test_is_compatible():
    assert onnx_backend.is_compatible(model())
    assert not onnx_backend.is_compatible(model("NoSuchOperator"))


def test_a_model_that_is_not_valid():
    broken = model()
    broken.graph.node[0].input[0] = "nowhere"
    with pytest.raises(onnx.checker.ValidationError, match="nowhere"):
        onnx_backend.prepare(broken)
