"""Convolutions of bytes, from the ONNX operators, against onnxruntime and NumPy, exactly."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, numpy_helper, parser

import dscc
from dscc import targets

if targets.resolve(None).machine.dot is None:
    pytest.skip("this processor has no instruction for products of bytes", allow_module_level=True)
GENERATOR = np.random.default_rng(4)


def numbers(dtype: str, *shape: int) -> np.ndarray:
    limits = np.iinfo(dtype)
    return GENERATOR.integers(limits.min, limits.max + 1, shape).astype(dtype)


def conv_integer(kind: str, channels: int, zero: bool, weight: np.ndarray, **window: object) -> ModelProto:
    text = ", ".join(f"{name} = {value}" for name, value in window.items()) or "group = 1"
    inputs = f"{kind}[n, {channels}, h, w] x" + (f", {kind} z" if zero else "")
    model = parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 17]> g ({inputs}) => (int32[a, b, c, d] y)'
        f" {{ y = ConvInteger <{text}> ({'x, k, z' if zero else 'x, k'}) }}"
    )
    model.graph.initializer.append(numpy_helper.from_array(weight, "k"))
    return model


@pytest.mark.parametrize(
    ("channels", "filters", "kernel", "window"),
    [
        (1, 1, (1, 1), {}),
        (3, 19, (3, 3), {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
        (16, 32, (3, 3), {"pads": [1, 0, 2, 1]}),
        (5, 33, (2, 3), {"dilations": [2, 1], "strides": [1, 2]}),
        (64, 40, (1, 1), {"strides": [2, 1]}),
    ],
)
@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("kind", ["uint8", "int8"])
def test_windows(channels: int, filters: int, kernel: tuple[int, int], window: dict, zero: bool, kind: str) -> None:
    weight = numbers("int8", filters, channels, *kernel)
    model = conv_integer(kind, channels, zero, weight, **window)
    artifact = dscc.compile(model)
    rules = {of["rule"] for of in artifact.manifest.kernels["functions"].values()}
    assert any(rule.endswith(("_bytes", "_words")) for rule in rules)
    module = artifact.load()
    # onnxruntime takes no int8 here: the same convolution in float32, exact for sums of this size
    wide = conv_integer("float", channels, False, weight.astype("float32"), **window)
    wide.graph.node[0].op_type = "Conv"
    wide.graph.output[0].type.tensor_type.elem_type = 1
    session = onnxruntime.InferenceSession(wide.SerializeToString(), providers=["CPUExecutionProvider"])
    for n, height, width in ((1, 5, 7), (2, 12, 9), (1, 16, 33)):
        x, z = numbers(kind, n, channels, height, width), np.array(37, kind)
        got = module.run(None, {"x": x, **({"z": z} if zero else {})})[0]
        (want,) = session.run(None, {"x": x.astype("float32") - np.float32(37 if zero else 0)})
        np.testing.assert_array_equal(got, want.astype("int32"))


def test_a_zero_point_of_the_weights_is_left_to_another_rule() -> None:
    model = parser.parse_model(
        """<ir_version: 10, opset_import: ["": 17]> g (uint8[n, 4, h, w] x) => (int32[n, 8, h, w] y) {
            y = ConvInteger (x, k, z, kz)
        }"""
    )
    weight, zero, of_weight = numbers("uint8", 8, 4, 1, 1), np.array(3, "uint8"), np.array(9, "uint8")
    for name, value in (("k", weight), ("z", zero), ("kz", of_weight)):
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    x = numbers("uint8", 2, 4, 5, 6)
    got = dscc.compile(model).load().run(None, {"x": x})[0]
    want = np.einsum("nchw,fc->nfhw", x.astype(int) - 3, weight[:, :, 0, 0].astype(int) - 9)
    np.testing.assert_array_equal(got, want)


def test_between_convolutions_nothing_is_transposed() -> None:
    model = parser.parse_model(
        """<ir_version: 10, opset_import: ["": 17]> g (uint8[n, 4, h, w] x) => (uint8[n, 8, a, b] y) {
            m = QLinearConv <pads = [1, 1, 1, 1]> (x, s, z, k, s, zero, big, z)
            y = QLinearConv <pads = [1, 1, 1, 1], strides = [2, 2]> (m, big, z, l, s, zero, big, z)
        }"""
    )
    weights = {"k": numbers("int8", 8, 4, 3, 3), "l": numbers("int8", 8, 8, 3, 3), "z": np.array(90, "uint8")}
    scales = {"s": np.array(0.01, "float32"), "big": np.array(0.2, "float32"), "zero": np.array(0, "int8")}
    for name, value in {**weights, **scales}.items():
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    artifact = dscc.compile(model)
    names = [name for name, _ in artifact.manifest.kernels["calls"]]
    assert sum("transpose" in name for name in names) == 2  # of the input and of the output
    assert sum("conv2d" in name for name in names) == 2
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = numbers("uint8", 2, 4, 11, 14)
    np.testing.assert_array_equal(artifact.load().run(None, {"x": x})[0], session.run(None, {"x": x})[0])
