"""Products with dequantized weights read their codes: against NumPy, in every form that exporters write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import dscc
from dscc import compiler
from dscc.options import CompileOptions

K, N = 192, 200  # smaller ones are folded to floats before
LIMITS = {"int4": (-8, 7), "uint4": (0, 15), "int8": (-128, 127), "uint8": (0, 255), "int2": (-2, 1)}
RNG = np.random.default_rng(3)
node = helper.make_node


@dataclass(frozen=True)
class Case:
    """A weight: its element type, whether it has zero points, the block, the axis of scales, and how it is stored."""

    kind: str
    zeros: bool
    block: int = 0
    axis: int | None = 0
    turned: bool = False


def made(case: Case) -> tuple[list[onnx.TensorProto], onnx.NodeProto, np.ndarray]:
    """The constants of a dequantized weight, the node, and its numbers."""
    low, high = LIMITS[case.kind]
    element = np.dtype(getattr(ml_dtypes, case.kind)) if case.kind[-1] in "42" else np.dtype(case.kind)
    shape = (N, K) if case.turned else (K, N)
    codes = RNG.integers(low, high, shape, endpoint=True)
    if case.axis is None:
        table: tuple[int, ...] = ()
    elif case.block:
        table = tuple(n // case.block if axis == case.axis else n for axis, n in enumerate(shape))
    else:
        table = (shape[case.axis],)
    scales = (RNG.random(table) + 0.5).astype(np.float32)
    zeros = RNG.integers(low, high, table, endpoint=True) if case.zeros else np.zeros(table, np.int64)
    constants = [numpy_helper.from_array(codes.astype(element), "w"), numpy_helper.from_array(scales, "s")]
    if case.zeros:
        constants.append(numpy_helper.from_array(np.asarray(zeros).astype(element), "z"))

    def spread(numbers: Any) -> np.ndarray:
        if case.axis is None:
            return np.asarray(numbers)
        if case.block:
            return np.repeat(numbers, case.block, case.axis)
        return np.expand_dims(numbers, 1 - case.axis)

    attributes = {"axis": case.axis} if case.axis is not None else {}
    if case.block:
        attributes["block_size"] = case.block
    inputs = ["w", "s", *(["z"] if case.zeros else [])]
    return constants, node("DequantizeLinear", inputs, ["d"], **attributes), (codes - spread(zeros)) * spread(scales)


def model(nodes: Sequence[onnx.NodeProto], constants: Sequence[onnx.TensorProto], kind: int = 1) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", kind, ["n", K])
    y = helper.make_tensor_value_info("y", kind, None)
    graph = helper.make_graph(nodes, "g", [x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)], ir_version=11)


def check(onnx_model: onnx.ModelProto, weight: np.ndarray, bias: float = 0.0) -> None:
    artifact = dscc.compile(onnx_model, jobs=1, fallback=False)
    loaded = artifact.load()
    for rows in (1, 2, 7):
        x = RNG.standard_normal((rows, K)).astype(np.float32)
        (got,) = loaded.run(None, {"x": x})
        want = x.astype(np.float64) @ weight + bias
        np.testing.assert_allclose(got, want, atol=2e-6 * (np.abs(x) @ np.abs(weight)).max(), rtol=0)


def remarks(onnx_model: onnx.ModelProto) -> list[str]:
    options = CompileOptions()
    done = compiler.optimize(onnx_model, options, ",".join(compiler.kernel_passes(options)), lambda stage: None)
    return [remark for remark in done.ctx.remarks if remark.startswith("code-products")]


@pytest.mark.parametrize(
    "case",
    [
        Case("int4", False, block=32),
        Case("uint4", True, block=16),
        Case("int4", True, block=32, axis=1, turned=True),
        Case("int8", True, block=32),
        Case("int2", False, block=48),
        Case("uint8", True, axis=1),
        Case("int8", True, axis=None),
        Case("int4", False, axis=1),
        Case("uint4", True, axis=0, turned=True),
        Case("int4", False, axis=None),
    ],
)
def test_the_codes_are_multiplied(case: Case) -> None:
    constants, dequantize, weight = made(case)
    turn = [node("Transpose", ["d"], ["t"])] if case.turned else []
    built = model([dequantize, *turn, node("MatMul", ["x", "t" if case.turned else "d"], ["y"])], constants)
    assert any("applied" in remark for remark in remarks(built))
    check(built, weight.T if case.turned else weight)


def test_gemm_with_a_bias_and_a_transposed_weight() -> None:
    constants, dequantize, weight = made(Case("uint4", True, block=32, axis=1, turned=True))
    bias = numpy_helper.from_array(np.full(N, 0.5, np.float32), "b")
    built = model([dequantize, node("Gemm", ["x", "d", "b"], ["y"], transB=1)], [*constants, bias])
    assert any("applied" in remark for remark in remarks(built))
    check(built, weight.T, 0.5)


def test_scales_for_every_row_are_left() -> None:
    constants, dequantize, weight = made(Case("int4", True, axis=0))
    built = model([dequantize, node("MatMul", ["x", "d"], ["y"])], constants)
    assert any("1 elements of a column share a scale" in remark for remark in remarks(built))
    check(built, weight)


def test_halves() -> None:
    constants, _, weight = made(Case("int4", False, block=32))
    half = numpy_helper.from_array(numpy_helper.to_array(constants[1]).astype(np.float16), "s")
    dequantize = node("DequantizeLinear", ["w", "s"], ["d"], axis=0, block_size=32)
    built = model([dequantize, node("MatMul", ["x", "d"], ["y"])], [constants[0], half], TensorProto.FLOAT16)
    assert any("applied" in remark for remark in remarks(built))
    x = RNG.standard_normal((3, K)).astype(np.float16)
    (got,) = dscc.compile(built, jobs=1, fallback=False).load().run(None, {"x": x})
    assert got.dtype == np.float16
    np.testing.assert_allclose(got.astype(np.float64), x.astype(np.float64) @ weight, rtol=3e-3, atol=0.05)


def test_a_constant_in_a_shape_of_open_sizes() -> None:
    """It is no weight that can be read, and none of a product of codes."""
    w = numpy_helper.from_array(RNG.standard_normal((6, 8)).astype(np.float32), "w")
    one = numpy_helper.from_array(np.array([-1]), "one")
    nodes = [
        node("Shape", ["x"], ["columns"], start=1),
        node("Concat", ["columns", "one"], ["shape"], axis=0),
        node("Reshape", ["w", "shape"], ["d"]),
        node("MatMul", ["x", "d"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", 1, ["n", "k"])
    graph = helper.make_graph(nodes, "g", [x], [helper.make_tensor_value_info("y", 1, None)], [w, one])
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    loaded = dscc.compile(built, jobs=1).load()
    for k in (4, 16):
        data = RNG.standard_normal((3, k)).astype(np.float32)
        (got,) = loaded.run(None, {"x": data})
        np.testing.assert_allclose(got, data @ numpy_helper.to_array(w).reshape(k, -1), atol=1e-5)


def test_a_product_of_codes_is_no_weight_of_the_next_product() -> None:
    """Though it is known which matrix is in it, as experts are read."""
    codes = numpy_helper.from_array(RNG.integers(0, 256, (8, 1, 8)).astype(np.uint8), "w")
    scales = numpy_helper.from_array((RNG.random((8, 1)) + 0.5).astype(np.float32), "s")
    inputs = [helper.make_tensor_value_info(name, 1, shape) for name, shape in (("x", [3, 8]), ("v", [8, 3]))]
    nodes = [
        node("MatMulNBits", ["x", "w", "s"], ["p"], domain="com.microsoft", K=8, N=8, bits=4, block_size=16),
        node("MatMul", ["v", "p"], ["y"]),
    ]
    outputs = [helper.make_tensor_value_info(name, 1, None) for name in ("p", "y")]
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [codes, scales])
    loaded = dscc.compile(helper.make_model(graph, opset_imports=opsets, ir_version=10), jobs=1).load()
    x, v = RNG.standard_normal((3, 8)).astype(np.float32), RNG.standard_normal((8, 3)).astype(np.float32)
    product, result = loaded.run(None, {"x": x, "v": v})
    np.testing.assert_allclose(result, v @ product, rtol=1e-4, atol=1e-4)
