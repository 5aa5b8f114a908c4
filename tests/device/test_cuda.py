"""Run on the CUDA device of this machine: `make device-test`. Artifacts against onnxruntime on the processor."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto as TP
from onnx import helper, numpy_helper

import dscc
from benchmarks.device import quantized
from dscc.errors import DsccError
from dscc.runtime import cuda

RNG = np.random.default_rng(11)
TOLERANCE = {"fp32": 1e-5, "tf32": 5e-3, "fp16": 5e-3, "bf16": 4e-2}  # of the largest element

try:
    CAPABILITY = cuda._device()[1]
except DsccError as missing:
    pytest.skip(str(missing), allow_module_level=True)

TARGET = "cuda:sm_{}{}".format(*CAPABILITY)


def model(nodes, inputs, outputs, constants=None) -> onnx.ModelProto:
    def infos(shapes):
        return [helper.make_tensor_value_info(name, TP.FLOAT, shape) for name, shape in shapes.items()]

    weights = [numpy_helper.from_array(np.float32(value), name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(nodes, "g", infos(inputs), infos(outputs), weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def check(proto: onnx.ModelProto, precision: str, *feeds: dict[str, np.ndarray]) -> None:
    """Every feed five times, of which the last ones are replays of a graph, then all of them once more in turn."""
    module = dscc.compile(proto, target=TARGET, precision=precision).load()
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for feed in [*(feed for feed in feeds for _ in range(5)), *feeds]:
        fresh = {name: normal(*value.shape) for name, value in feed.items()}
        for got, want in zip(module.run(None, fresh), session.run(None, fresh), strict=True):
            assert got.shape == want.shape and got.dtype == want.dtype
            scale = np.abs(want).max(initial=1e-6)
            np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCE[precision] * scale)


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("columns, depth", [(256, 512), (72, 64), (1000, 136), (30, 50), (8, 2048)])
def test_product_with_epilogue(columns, depth, precision):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Add", ["a", "b"], ["s"]),
        helper.make_node("Relu", ["s"], ["r"]),
        helper.make_node("Add", ["r", "x2"], ["y"]),
    ]
    proto = model(
        nodes,
        {"x": ["n", "m", depth], "x2": ["n", "m", columns]},
        {"y": ["n", "m", columns]},
        {"w": normal(depth, columns) / depth**0.5, "b": normal(columns)},
    )
    sizes = [(1, 1), (2, 77), (3, 700), (1, 4097)]
    check(proto, precision, *({"x": normal(n, m, depth), "x2": normal(n, m, columns)} for n, m in sizes))


@pytest.mark.parametrize("precision", TOLERANCE)
def test_products_of_a_batch(precision):
    proto = model(
        [helper.make_node("MatMul", ["x", "z"], ["y"])],
        {"x": ["b", 3, "m", 64], "z": ["b", 3, 64, 40]},
        {"y": ["b", 3, "m", 40]},
    )
    check(proto, precision, *({"x": normal(b, 3, m, 64), "z": normal(b, 3, 64, 40)} for b, m in [(1, 1), (2, 130)]))


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize(
    "channels, filters, kernel, attributes",
    [
        (64, 64, 3, {"pads": [1, 1, 1, 1]}),
        (24, 40, 5, {"pads": [2, 2, 2, 2], "strides": [2, 2]}),
        (256, 72, 1, {"strides": [2, 2]}),
        (16, 32, 3, {"dilations": [2, 2], "pads": [0, 1, 2, 3]}),
        (3, 16, 7, {"strides": [2, 2], "pads": [3, 3, 3, 3]}),
        (32, 32, 3, {"group": 32}),
    ],
)
@pytest.mark.parametrize("sides", [(28, 28), ("h", "w")])
def test_convolution(channels, filters, kernel, attributes, sides, precision):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], **attributes),
        helper.make_node("Relu", ["a"], ["y"]),
    ]
    inner = channels // attributes.get("group", 1)
    weight = normal(filters, inner, kernel, kernel) / (inner * kernel**2) ** 0.5
    proto = model(nodes, {"x": ["n", channels, *sides]}, {"y": ["n", filters, None, None]}, {"w": weight})
    sizes = [(28, 28)] if sides == (28, 28) else [(9, 31), (14, 14)]
    check(proto, precision, *({"x": normal(n, channels, h, w)} for h, w in sizes for n in (1, 3)))


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("size", [32, 64, 128])
def test_attention(size, precision):
    nodes = [
        helper.make_node("Transpose", ["k"], ["kt"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["q", "kt"], ["s"]),
        helper.make_node("Mul", ["s", "scale"], ["t"]),
        helper.make_node("Softmax", ["t"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "v"], ["y"]),
    ]
    shapes = {"q": ["b", 4, "n", size], "k": ["b", 4, "m", size], "v": ["b", 4, "m", size]}
    proto = model(nodes, shapes, {"y": ["b", 4, "n", size]}, {"scale": np.asarray(size**-0.5)})
    check(
        proto,
        precision,
        *(
            {"q": normal(b, 4, n, size), "k": normal(b, 4, m, size), "v": normal(b, 4, m, size)}
            for b, n, m in [(1, 1, 7), (2, 65, 33), (1, 300, 500)]
        ),
    )


@pytest.mark.parametrize(
    "proto, shape",
    [
        (quantized.product(512, 512), (300, 512)),
        (quantized.product(100, 72, zeros=(255, -128)), (129, 100)),
        (quantized.product(61, 33, zeros=(9, 0)), (1, 61)),
        (quantized.convolution(64, 64, 3, (28, 28), pads=[1, 1, 1, 1]), (3, 64, 28, 28)),
        (quantized.convolution(24, 41, 3, (28, 30), pads=[1, 0, 2, 1], strides=[2, 1]), (2, 24, 28, 30)),
        (quantized.convolution(3, 32, 7, (60, 60), pads=[3, 3, 3, 3], strides=[2, 2]), (2, 3, 60, 60)),
    ],
)
def test_quantized(proto, shape):
    """Sums are exact, and so is what they are scaled to."""
    module = dscc.compile(proto, target=TARGET).load()
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for _ in range(5):
        feed = {"x": quantized.random(np.uint8, *shape)}
        np.testing.assert_array_equal(module.run(None, feed)[0], session.run(None, feed)[0])


@pytest.mark.parametrize("zero", [0, 2])
def test_quantized_as_it_runs(zero):
    check(quantized.dynamic(64, 48, zero), "fp32", {"x": normal(2, 40, 64)})
