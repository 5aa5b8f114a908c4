"""Windows over three dimensions, which become windows over two, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

import dscc

SHAPE = (2, 6, 5, 7, 9)
WINDOW = {"kernel_shape": [3, 3, 3], "pads": [1] * 6}
CASES: dict[str, tuple[str, tuple[int, ...] | None, dict[str, Any]]] = {
    "same": ("Conv", (8, 6, 3, 3, 3), {"pads": [1] * 6}),
    "strides and dilation": (
        "Conv",
        (8, 6, 3, 2, 3),
        {"pads": [1, 0, 1, 2, 1, 0], "strides": [2, 1, 2], "dilations": [2, 1, 1]},
    ),
    "depthwise": ("Conv", (6, 1, 3, 3, 3), {"pads": [1] * 6, "group": 6}),
    "groups": ("Conv", (12, 3, 2, 3, 3), {"pads": [0, 1, 1, 1, 1, 1], "group": 2, "strides": [2, 2, 2]}),
    "slice by slice": ("Conv", (8, 6, 1, 3, 3), {"pads": [0, 1, 1, 0, 1, 1]}),
    "depth only": ("Conv", (8, 6, 3, 1, 1), {"pads": [1, 0, 0, 1, 0, 0]}),
    "transposed": ("ConvTranspose", (6, 8, 2, 2, 2), {"strides": [2, 2, 2]}),
    "transposed by slices": (
        "ConvTranspose",
        (6, 8, 3, 4, 3),
        {"strides": [3, 2, 1], "pads": [0, 1, 1, 0, 1, 1], "output_padding": [0, 1, 0]},
    ),
    "maximum": ("MaxPool", None, {**WINDOW, "strides": [2, 2, 2]}),
    "maximum by slices": ("MaxPool", None, {"kernel_shape": [1, 2, 2], "strides": [1, 2, 2]}),
    "mean": ("AveragePool", None, {"kernel_shape": [2, 3, 3], "strides": [1, 2, 2]}),
    "mean with padding": ("AveragePool", None, {**WINDOW, "count_include_pad": 1}),
}
LEFT = {
    "transposed with overlap": ("ConvTranspose", (6, 8, 3, 3, 3), {"strides": [2, 2, 2], "pads": [1] * 6}),
    "mean of what is there": ("AveragePool", None, WINDOW),
}


def written(operator: str, weight: tuple[int, ...] | None, attrs: dict[str, Any], dims: list[Any]) -> onnx.ModelProto:
    rng = np.random.default_rng(1)
    weights = [] if weight is None else [numpy_helper.from_array(rng.standard_normal(weight).astype("float32"), "w")]
    nodes = [
        helper.make_node(operator, ["x", *[each.name for each in weights]], ["y"], **attrs),
        helper.make_node("Relu", ["y"], ["z"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in (("x", dims), ("z", None))
    ]
    graph = helper.make_graph(nodes, "depth", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize("dims", [list(SHAPE), ["b", 6, "d", "h", "w"]], ids=["known", "open"])
@pytest.mark.parametrize("case", [*CASES, *LEFT])
def test_numbers(tmp_path, case, dims):
    operator, weight, attrs = (CASES | LEFT)[case]
    model = written(operator, weight, attrs, dims)
    x = np.random.default_rng(0).standard_normal(SHAPE).astype("float32")
    want = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]
    got = dscc.compile(model, fallback=False, jobs=1, dump=tmp_path).load().run(None, {"x": x})[0]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    (after,) = tmp_path.glob("*-channels-last.py")
    assert ("3d" in after.read_text()) == (case in LEFT)


def test_what_follows_a_row_of_pixels_stays_in_its_shape(tmp_path):
    """Bias, activation and residual of one-dimensional convolutions are fused with them: no reshape is in between."""
    rng = np.random.default_rng(0)
    weights = {"w": (6, 6, 3), "v": (6, 6, 5), "b": (6,), "c": (6,), "s": (1, 6, 1), "half": ()}
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["p"], pads=[1, 1]),
        helper.make_node("Relu", ["p"], ["q"]),
        helper.make_node("Conv", ["q", "v", "c"], ["r"], pads=[2, 2]),
        helper.make_node("Mul", ["r", "s"], ["t"]),
        helper.make_node("Add", ["q", "t"], ["u"]),
        helper.make_node("Mul", ["u", "half"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["b", 6, "n"]) for name in "xy")
    made = [numpy_helper.from_array(np.float32(rng.standard_normal(shape)), n) for n, shape in weights.items()]
    graph = helper.make_graph(nodes, "rows", [x], [y], made)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    data = rng.standard_normal((2, 6, 11)).astype("float32")
    want = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": data})[0]
    got = dscc.compile(model, fallback=False, jobs=1, dump=tmp_path).load().run(None, {"x": data})[0]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    (after,) = tmp_path.glob("*-channels-last.py")
    assert after.read_text().count("R.reshape(") == 2
