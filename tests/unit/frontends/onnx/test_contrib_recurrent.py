"""DynamicQuantizeLSTM against onnxruntime, which has the only definition of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from dscc.compiler import compile
from dscc.errors import FrontendError
from tests.unit.frontends.onnx.conftest import load

_Feeds = dict[str, np.ndarray[Any, Any]]


def _model(weights: _Feeds, inputs: _Feeds, size: int, hidden: int, direction: str) -> onnx.ModelProto:
    names = ["X", "W", "R", "B", "lengths", "h", "c", "P", "W_scale", "W_zero", "R_scale", "R_zero"]
    node = helper.make_node(
        "DynamicQuantizeLSTM",
        [name if name in weights or name in inputs else "" for name in names],
        ["Y", "Y_h", "Y_c"],
        domain="com.microsoft",
        hidden_size=hidden,
        direction=direction,
    )
    dims: dict[str, list[Any]] = {name: list(value.shape) for name, value in inputs.items()}
    dims["X"] = ["s", "b", size]
    kinds = {name: helper.np_dtype_to_tensor_dtype(value.dtype) for name, value in inputs.items()}
    graph = helper.make_graph(
        [node],
        "test",
        [helper.make_tensor_value_info(name, kinds[name], dims[name]) for name in inputs],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in node.output],
        [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    imports = [helper.make_opsetid("", 14), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def _weights(rng: np.random.Generator, directions: int, size: int, hidden: int, dtype: type, columns: bool) -> _Feeds:
    centre = 128 if dtype is np.uint8 else 0
    each = (directions, 4 * hidden) if columns else (directions,)
    found: _Feeds = {"B": rng.standard_normal((directions, 8 * hidden)).astype(np.float32) / 4}
    for name, rows in (("W", size), ("R", hidden)):
        found[name] = (rng.integers(-127, 128, (directions, rows, 4 * hidden)) + centre).astype(dtype)
        found[f"{name}_scale"] = (rng.random(each).astype(np.float32) + 0.5) / 254
        found[f"{name}_zero"] = np.full(each, centre, dtype)
    return found


@pytest.mark.parametrize(
    ("direction", "batch", "hidden", "dtype", "columns"),
    [
        ("forward", 1, 20, np.int8, False),
        ("bidirectional", 3, 17, np.int8, True),
        ("reverse", 2, 33, np.uint8, False),
    ],
)
def test_agrees(direction: str, batch: int, hidden: int, dtype: type, columns: bool) -> None:
    rng = np.random.default_rng(0)
    directions, size = 2 if direction == "bidirectional" else 1, 7
    weights = _weights(rng, directions, size, hidden, dtype, columns)
    weights["P"] = rng.standard_normal((directions, 3 * hidden)).astype(np.float32) / 4
    feeds = {"X": rng.standard_normal((5, batch, size)).astype(np.float32)}
    model = _model(weights, feeds, size, hidden, direction)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # with more, each quantizes the states of its own part of the batch
    want = onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, feeds)
    for a, b in zip(compile(model).load().run(None, feeds), want, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_weights_may_be_inputs() -> None:
    rng = np.random.default_rng(1)
    weights = _weights(rng, 1, 4, 6, np.int8, True)
    feeds = {"X": rng.standard_normal((3, 2, 4)).astype(np.float32), **weights}
    [*got] = compile(_model({}, feeds, 4, 6, "forward")).load().run(None, feeds)
    known = _model(weights, {"X": feeds["X"]}, 4, 6, "forward")
    for a, b in zip(got, compile(known).load().run(None, {"X": feeds["X"]}), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_refused() -> None:
    rng = np.random.default_rng(2)
    feeds = {"X": np.zeros((3, 2, 4), np.float32)}
    weights = _weights(rng, 1, 4, 6, np.int8, False)
    with pytest.raises(FrontendError, match="W_scale and R_scale are missing"):
        load(_model({name: weights[name] for name in ("W", "R")}, feeds, 4, 6, "forward"))
    with pytest.raises(FrontendError, match="expected"):
        load(_model({**weights, "R_scale": np.ones(5, np.float32)}, feeds, 4, 6, "forward"))
