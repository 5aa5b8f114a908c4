"""Element types: casts between all of them, quantization to them, and operators in every type that they allow."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

import dscc
from benchmarks.onnx_types import TYPES, batch, differences
from benchmarks.typed_nodes import CASES
from dscc.elements import CARRIERS, numpy_dtype
from dscc.errors import FrontendError
from dscc.frontends.onnx.values import DTYPES

CODES = {name: code for code, name in DTYPES.items()}
REAL = [name for name in CODES if name != "complex64"]
EVERY = 7  # of the pairs of an operator and a type, one in so many is tried here; benchmarks.onnx_types tries all


def _run(
    nodes: list[onnx.NodeProto],
    feeds: dict[str, Any],
    weights: dict[str, Any] | None = None,
    opset: int = 25,
    outputs: list[str] | None = None,
) -> tuple[list[Any], list[Any]]:
    """What dscc and the reference evaluator make of the nodes; every output of theirs is one of the model's if None."""
    made = outputs or [name for node in nodes for name in node.output]
    graph = helper.make_graph(
        nodes,
        "types",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
            for name, x in feeds.items()
        ],
        [helper.make_empty_tensor_value_info(name) for name in made],
        [onnx.numpy_helper.from_array(x, name) for name, x in (weights or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    with np.errstate(all="ignore"):
        want = [np.asarray(x) for x in ReferenceEvaluator(model).run(None, feeds)]
    return dscc.compile(model).load().run(None, feeds), want


def _same(got: Any, want: Any) -> None:
    """Equal bit for bit, but for NaNs, and for the zeros that types without NaN have in their place."""
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    if want.dtype.name.startswith(("float", "bfloat")):
        a, b = got.astype(np.float64), want.astype(np.float64)
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(np.signbit(a) & (a == 0), np.signbit(b) & (b == 0))
    else:
        np.testing.assert_array_equal(got.astype(np.int64), want.astype(np.int64))


def _floats() -> Any:
    rng = np.random.default_rng(0)
    edges = np.float32([448, 464, 465, 240, 248, 57344, 61440, 61439, 28, 30, 7.5, 7.75, 6, 7, 5, 65504, 65520])
    ties = np.arange(-40, 41, dtype=np.float32) / 8
    powers = np.exp2(np.arange(-24, 18, dtype=np.float32))
    odd = np.array([np.inf, np.nan, 0.0, 1e-9, 3e38], np.float32)
    drawn = (rng.standard_normal(300) * np.exp2(rng.integers(-18, 18, 300))).astype(np.float32)
    positive = np.concatenate([edges, powers, powers * np.float32(1.5), np.abs(drawn), odd])
    return np.concatenate([positive, -positive, ties])


@pytest.mark.parametrize("saturate", [1, 0])
def test_floats_become_every_float(saturate: int) -> None:
    kinds = [name for name in REAL if "float" in name and name not in ("float32", "float8_e8m0fnu")]
    nodes = [helper.make_node("Cast", ["x"], [name], to=CODES[name], saturate=saturate) for name in kinds]
    for got, want in zip(*_run(nodes, {"x": _floats()}), strict=True):
        _same(got, want)


def test_floats_become_every_integer() -> None:
    x = _floats()
    x = x[np.isfinite(x) & (x >= 0) & (x < 2**31)]
    kinds = [name for name in REAL if "float" not in name]
    nodes = [helper.make_node("Cast", ["x"], [name], to=CODES[name]) for name in kinds]
    for got, want in zip(*_run(nodes, {"x": x}), strict=True):
        _same(got, want)


def test_a_nan_is_true() -> None:
    (got,), _ = _run([helper.make_node("Cast", ["x"], ["y"], to=TensorProto.BOOL)], {"x": np.float32([np.nan, -0.0])})
    assert got.tolist() == [True, False]


@pytest.mark.parametrize("target", ["float32", "float16", "int8", "bool"])
def test_every_pattern_of_the_narrow_types(target: str) -> None:
    """All that int4, float8 and the like can hold."""
    feeds = {}
    for name in CARRIERS:
        if name != "complex64" and not (name == "float8_e8m0fnu" and target != "float32"):
            bits = ml_dtypes.iinfo(name).bits if "int" in name else ml_dtypes.finfo(name).bits
            feeds[name] = np.arange(2**bits, dtype=np.uint8).view(numpy_dtype(name))
    if target == "int8":  # what is beyond their range is left open
        feeds = {name: x[np.abs(np.nan_to_num(x.astype(np.float32), nan=999)) < 128] for name, x in feeds.items()}
    nodes = [helper.make_node("Cast", [name], [f"{name}_y"], to=CODES[target]) for name in feeds if name != target]
    for got, want in zip(*_run(nodes, feeds), strict=True):
        _same(got, want)


def test_powers_of_two_round_as_asked() -> None:
    x = np.float32([1.0, 1.25, 1.5, 1.75, 3.0, 2.0**-126, 2.0**126, 1e38, 0.7])
    nodes = [
        helper.make_node("Cast", ["x"], [mode], to=TensorProto.FLOAT8E8M0, round_mode=mode)
        for mode in ("up", "down", "nearest")
    ]
    for got, want in zip(*_run(nodes, {"x": x}), strict=True):
        _same(got, want)


def test_powers_of_two_at_the_ends_of_their_range() -> None:
    """What the standard's table says, and the evaluator does not do."""
    x = np.float32([np.inf, np.nan, 3.4e38, 2.0**-127, 2.0**-130, 0.0])
    nodes = [
        helper.make_node("Cast", ["x"], ["a"], to=TensorProto.FLOAT8E8M0),
        helper.make_node("Cast", ["x"], ["b"], to=TensorProto.FLOAT8E8M0, saturate=0, round_mode="nearest"),
    ]
    (a, b), _ = _run(nodes, {"x": x})
    assert a.view(np.uint8).tolist() == [254, 255, 254, 0, 0, 0]
    assert b.view(np.uint8).tolist() == [255, 255, 255, 0, 255, 255]


@pytest.mark.parametrize("name", [*CARRIERS, "bfloat16"])
def test_what_moves_elements_moves_those_of_every_type(name: str) -> None:
    rng = np.random.default_rng(0)
    dtype = numpy_dtype(name)
    x = rng.integers(0, 3, (2, 3, 4)).astype(dtype)
    weights = {"shape": np.int64([4, 6]), "pads": np.int64([0, 1, 1, 0, 1, 0]), "w": x.copy()}
    nodes = [
        helper.make_node("Transpose", ["x"], ["transposed"], perm=[2, 0, 1]),
        helper.make_node("Reshape", ["x", "shape"], ["reshaped"]),
        helper.make_node("Pad", ["x", "pads"], ["padded"], mode="edge"),
        helper.make_node("Identity", ["w"], ["weight"]),
        helper.make_node("Unsqueeze", ["x", "one"], ["unsqueezed"]),
    ]
    got, want = _run(nodes, {"x": x}, weights | {"one": np.int64([1])})
    for g, w in zip(got, want, strict=True):
        assert (g.dtype, g.shape) == (w.dtype, w.shape)
        np.testing.assert_array_equal(g.view(CARRIERS.get(name, "uint16")), w.view(CARRIERS.get(name, "uint16")))


def test_bits_become_another_type_of_the_same_size() -> None:
    feeds = {"f": np.float32([1.5, -0.0, np.inf]), "b": np.array([True, False]), "u": np.uint8([0, 1, 0x7E, 0xFF])}
    nodes = [
        helper.make_node("BitCast", ["f"], ["f_y"], to=TensorProto.UINT32),
        helper.make_node("BitCast", ["b"], ["b_y"], to=TensorProto.UINT8),
        helper.make_node("BitCast", ["u"], ["u_y"], to=TensorProto.FLOAT8E4M3FN),
        helper.make_node("BitCast", ["u"], ["i_y"], to=TensorProto.INT8),
    ]
    for got, want in zip(*_run(nodes, feeds, opset=26), strict=True):
        _same(got, want)


def test_sizes_of_a_bit_cast_must_agree() -> None:
    node = helper.make_node("BitCast", ["x"], ["y"], to=TensorProto.INT64)
    info = helper.make_tensor_value_info
    graph = helper.make_graph([node], "g", [info("x", 1, [2])], [info("y", 7, [2])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 26)])
    with pytest.raises(FrontendError, match="'float32' has 32 bits and 'int64' 64"):
        dscc.compile(model)


def test_arithmetic_on_patterns_is_refused() -> None:
    info = helper.make_tensor_value_info
    code = TensorProto.FLOAT8E4M3FN
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])], "g", [info("x", code, [2])], [info("y", code, [2])]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)])
    with pytest.raises(FrontendError, match=r"is of type tensor.float8e4m3fn.; the operator takes"):
        dscc.compile(model)


QUANTIZED = ("int8 uint8 int16 uint16 int4 uint4 int2 uint2 float4_e2m1fn float8_e4m3fn float8_e5m2").split()


def test_patterns_are_no_indices() -> None:
    """Elements of any type are moved, but not to where a complex number says; an altered file crashed there."""
    kinds = {"x": "float", "i": "complex64", "u": "float"}
    inputs = ", ".join(f"{kind}[1, 2] {name}" for name, kind in kinds.items())
    text = f"""<ir_version: 10, opset_import: ["": 20]> f ({inputs}) => (float[1, 2] y) {{
        y = ScatterElements<axis = 1>(x, i, u) }}"""
    with pytest.raises(FrontendError, match=r"input 1 \('indices'\) is of type tensor\(complex64\)"):
        dscc.compile(onnx.parser.parse_model(text))


@pytest.mark.parametrize("layout", ["tensor", "axis", "block"])
def test_quantized_and_back_in_every_type(layout: str) -> None:
    """With zero points where the type is an integer; x is 3x7, and blocks of 3 leave one of 1."""
    rng = np.random.default_rng(0)
    shape, extra = {"tensor": ((), {}), "axis": ((7,), {"axis": 1}), "block": ((3, 3), {"axis": 1, "block_size": 3})}[
        layout
    ]
    feeds: dict[str, Any] = {"x": (rng.standard_normal((3, 7)) * 3).astype(np.float32)}
    feeds["s"] = np.asarray(rng.uniform(0.05, 0.9, shape), np.float32)
    nodes = []
    for name in QUANTIZED:
        if "int" in name:
            limits = ml_dtypes.iinfo(name) if numpy_dtype(name).kind == "V" else np.iinfo(name)
            feeds[f"{name}_z"] = np.asarray(rng.integers(max(limits.min, -9), min(limits.max, 9), shape)).astype(
                numpy_dtype(name)
            )
        zero = [f"{name}_z"] if "int" in name else []
        to = {} if zero else {"output_dtype": CODES[name]}
        nodes.append(helper.make_node("QuantizeLinear", ["x", "s", *zero], [f"{name}_q"], **extra, **to))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}_q", "s", *zero], [f"{name}_y"], **extra))
    for got, want in zip(*_run(nodes, feeds), strict=True):
        _same(got, want)


def test_blocks_of_packed_weights() -> None:
    """4- and 2-bit constants are stored with several elements to a byte."""
    rng = np.random.default_rng(0)
    weights: dict[str, Any] = {"s": rng.uniform(0.1, 1, (64, 2)).astype(np.float32)}
    nodes = []
    for name, low, high in (("int4", -8, 8), ("uint4", 0, 16), ("int2", -2, 2), ("uint2", 0, 4)):
        weights[name] = rng.integers(low, high, (64, 32)).astype(numpy_dtype(name))
        weights[f"{name}_z"] = rng.integers(low, high, (64, 2)).astype(numpy_dtype(name))
        nodes.append(
            helper.make_node("DequantizeLinear", [name, "s", f"{name}_z"], [f"{name}_w"], axis=1, block_size=16)
        )
        nodes.append(helper.make_node("MatMul", ["x", f"{name}_w"], [f"{name}_y"]))
    feeds = {"x": rng.standard_normal((3, 64)).astype(np.float32)}
    for got, want in zip(*_run(nodes, feeds, weights), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-4)


def test_the_quotient_is_rounded_as_a_quotient() -> None:
    """Not as the product with an inverse: 0.15 / 0.1 is 1.5000001, and 2.5 * 0.1 would be another one."""
    steps = np.arange(-60, 60, dtype=np.float32) / 2
    feeds = {"x": steps * np.float32(0.1)}
    weights = {"s": np.float32(0.1), "z": np.uint8(100)}
    node = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"])
    for got, want in zip(*_run([node], feeds, weights), strict=True):
        _same(got, want)


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_halves_are_added_up_in_float32(kind: str) -> None:
    """2048 ones: a sum in float16 itself stays at 2048, in bfloat16 at 256."""
    dtype = numpy_dtype(kind)
    feeds = {"x": np.ones((1, 4000), dtype), "w": np.ones((4000, 2), dtype)}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("ReduceSum", ["x"], ["b"])]
    (a, b), _ = _run(nodes, feeds)
    assert a.astype(np.float32).tolist() == [[4000.0, 4000.0]]
    assert b.astype(np.float32).item() == 4000.0
    assert a.dtype == b.dtype == dtype


@pytest.mark.parametrize("kind", TYPES)
def test_operators_in_the_types_that_they_allow(kind: str) -> None:
    taken = [case for case in CASES if case.takes(kind)]
    assert not list(differences(batch(taken[TYPES.index(kind) % EVERY :: EVERY], kind, seed=3)))


def test_comparisons_are_compared() -> None:
    """As torch's exporter divides whole numbers; more of them than a vector takes."""
    x, y = np.arange(-20, 20), np.tile([-3, 0, 5, 7], 10)
    nodes = [
        helper.make_node("Less", ["x", "zero"], ["below"]),
        helper.make_node("Less", ["y", "zero"], ["other"]),
        helper.make_node("Equal", ["below", "true"], ["a"]),
        helper.make_node("Equal", ["below", "other"], ["b"]),
        helper.make_node("Cast", ["b"], ["c"], to=TensorProto.FLOAT),
    ]
    for got, want in zip(*_run(nodes, {"x": x, "y": y}, {"zero": np.array(0), "true": np.array(True)}), strict=True):
        _same(got, want)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "uint32", "uint64"])
def test_numbers_without_sign_go_round(kind: str) -> None:
    """Below 0 and above the largest; what follows may not be simplified as if they did not."""
    most = np.iinfo(kind).max
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.integers(0, most, 35, kind, endpoint=True), np.array([0, 1, most, most - 8], kind)])
    y = rng.permutation(x)
    nodes = [
        helper.make_node(operator, inputs, [name])
        for operator, inputs, name in (
            ("Mul", ["x", "four"], "product"), ("Min", ["product", "x"], "least"), ("Div", ["product", "four"], "part"),
            ("Add", ["x", "y"], "sum"), ("Less", ["sum", "x"], "carry"), ("Max", ["sum", "y"], "most"),
            ("Sub", ["x", "y"], "difference"), ("Greater", ["difference", "x"], "borrow"),
        )
    ]  # fmt: skip
    last = ["least", "part", "carry", "most", "borrow"]
    for got, want in zip(*_run(nodes, {"x": x, "y": y}, {"four": np.array(4, kind)}, outputs=last), strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("operator", ["Tanh", "Sinh", "Asinh", "Atanh", "Erf"])
@pytest.mark.parametrize("kind", ["bfloat16", "double"])
def test_odd_functions_near_zero(operator: str, kind: str) -> None:
    """TVM 0.27 writes the hyperbolic ones as sums of exponentials, of which nothing is left there."""
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 22]> g ({kind}[n] x) => ({kind}[n] y) {{ y = {operator}(x) }}'
    )
    dtype = helper.tensor_dtype_to_np_dtype(model.graph.input[0].type.tensor_type.elem_type)
    x = np.array([1e-12, -3e-8, 2e-4, -0.01, 0.3]).astype(dtype)
    wide = x.astype(np.float64)
    want = np.vectorize(math.erf)(wide) if operator == "Erf" else getattr(np, _NUMPY[operator])(wide)
    got = dscc.compile(model).load().run(None, {"x": x})[0].astype(np.float64)
    np.testing.assert_allclose(got, want, rtol=1e-2 if kind == "bfloat16" else 1e-12)


_NUMPY = {"Tanh": "tanh", "Sinh": "sinh", "Asinh": "arcsinh", "Atanh": "arctanh"}
