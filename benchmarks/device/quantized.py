"""Small quantized models, with weights of random bytes, whose sums have to be exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto as TP
from onnx import helper, numpy_helper

_RNG = np.random.default_rng(31)
_KINDS = {np.int8: TP.INT8, np.uint8: TP.UINT8}


def random(dtype: Any, *shape: int) -> np.ndarray[Any, Any]:
    """Bytes of all values."""
    info = np.iinfo(dtype)
    return _RNG.integers(info.min, info.max + 1, shape).astype(dtype)


def model(nodes: Any, inputs: Any, outputs: Any, constants: Any) -> onnx.ModelProto:
    def infos(values: Any) -> Any:
        return [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in values.items()]

    held = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", infos(inputs), infos(outputs), held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def product(
    depth: int, columns: int, left: Any = np.uint8, right: Any = np.int8, zeros: tuple[int, int] = (7, 3)
) -> onnx.ModelProto:
    """QLinearMatMul of any number of rows, scaled so that results fill their range."""
    w = random(right, depth, columns)
    sample = 0.0002 * (random(left, 64, depth) - float(zeros[0])) @ (w - float(zeros[1]))
    low, high = sample.min(), sample.max()
    both = low < 0 < high
    constants = {
        "xs": np.float32(0.02),
        "xz": left(zeros[0]),
        "w": w,
        "ws": np.float32(0.01),
        "wz": right(zeros[1]),
        "ys": np.float32(max(high, -low) / (127 if both else 255)),
        "yz": np.uint8(128 if both else 0 if low >= 0 else 255),
    }
    node = helper.make_node("QLinearMatMul", ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"], ["y"])
    return model([node], {"x": (_KINDS[left], ["m", depth])}, {"y": (TP.UINT8, ["m", columns])}, constants)


def convolution(
    channels: int, filters: int, kernel: int, size: tuple[int, int] = (9, 11), **attributes: Any
) -> onnx.ModelProto:
    """QLinearConv with a scale and a bias for every filter, over any number of images of this size."""
    constants = {
        "xs": np.float32(0.02),
        "xz": np.uint8(201),
        "w": random(np.int8, filters, channels, kernel, kernel),
        "ws": (_RNG.random(filters) * 0.01 + 0.005).astype(np.float32),
        "wz": np.zeros(filters, np.int8),
        "ys": np.float32(0.02 * channels**0.5 * kernel),
        "yz": np.uint8(120),
        "b": _RNG.integers(-9000, 9000, filters).astype(np.int32),
    }
    node = helper.make_node("QLinearConv", ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"], ["y"], **attributes)
    return model([node], {"x": (TP.UINT8, ["n", channels, *size])}, {"y": (TP.UINT8, None)}, constants)


def dynamic(depth: int, columns: int, zero: int) -> onnx.ModelProto:
    """What dynamic quantization writes: a zero point that is known when it runs, and results in float32."""
    constants = {
        "w": random(np.int8, depth, columns),
        "ws": np.float32(0.01),
        "wz": np.int8(zero),
        "b": _RNG.standard_normal(columns).astype(np.float32),
    }
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("MatMulInteger", ["q", "w", "z", "wz"], ["i"]),
        helper.make_node("Cast", ["i"], ["f"], to=TP.FLOAT),
        helper.make_node("Mul", ["s", "ws"], ["ss"]),
        helper.make_node("Mul", ["f", "ss"], ["g"]),
        helper.make_node("Add", ["g", "b"], ["y"]),
    ]
    shape = {"y": (TP.FLOAT, ["b", "m", columns])}
    return model(nodes, {"x": (TP.FLOAT, ["b", "m", depth])}, shape, constants)


def integers(depth: int, columns: int) -> onnx.ModelProto:
    """MatMulInteger without zero points: sums as they are."""
    node = helper.make_node("MatMulInteger", ["x", "w"], ["y"])
    constants = {"w": random(np.uint8, depth, columns)}
    return model([node], {"x": (TP.INT8, ["m", depth])}, {"y": (TP.INT32, ["m", columns])}, constants)
