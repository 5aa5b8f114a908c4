"""The rules of AMD's devices, executed on the processor here and compared with onnxruntime; see benchmarks/hip_here."""

from __future__ import annotations

import platform
import re

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto as TP
from onnx import helper, numpy_helper

import dscc
from dscc import emit
from dscc.errors import DsccError
from dscc.options import CompileOptions
from dscc.targets.rocm import clang

if platform.machine() != "x86_64":
    pytest.skip("the stand-in for HIP is compiled for x86-64", allow_module_level=True)

TOLERANCE = {"fp32": 2e-6, "fp16": 3e-3, "bf16": 2e-2}  # of the largest element
BFLOATS = [("gfx942", "bf16"), ("gfx1100", "bf16"), ("gfx1201", "bf16")]
FAMILIES = [("gfx942", "fp16"), ("gfx90a", "fp32"), ("gfx1100", "fp16"), ("gfx1201", "fp16")]
RNG = np.random.default_rng(8)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def model(nodes, inputs, outputs, constants=None) -> onnx.ModelProto:
    def infos(values):
        return [helper.make_tensor_value_info(name, TP.FLOAT, shape) for name, shape in values.items()]

    held = [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(nodes, "g", infos(inputs), infos(outputs), held)
    domains = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=domains, ir_version=9)


def attention(heads: int, size: int, value_size: int, causal: bool = False, bias: list | None = None):
    shapes = {"q": ["b", "s", heads * size], "k": ["b", "t", heads * size], "v": ["b", "t", heads * value_size]}
    inputs = ["q", "k", "v"]
    if bias:
        shapes["bias"] = bias
        inputs += ["", "", "bias"]
    node = helper.make_node(
        "MultiHeadAttention", inputs, ["y"], domain="com.microsoft", num_heads=heads, unidirectional=int(causal)
    )
    return model([node], shapes, {"y": ["b", "s", heads * value_size]})


def rules(artifact: dscc.Artifact) -> set[str]:
    return {kernel["rule"] for kernel in artifact.manifest.kernels["functions"].values()}


def check(proto: onnx.ModelProto, arch: str, precision: str, rule: str, *feeds: dict[str, np.ndarray]) -> None:
    """Outputs are onnxruntime's, and the rule has made one of the kernels."""
    artifact = dscc.compile(proto, target=f"rocm:{arch}", precision=precision)
    assert rule in rules(artifact)
    module, session = artifact.load(), onnxruntime.InferenceSession(proto.SerializeToString())
    for feed in feeds:
        for got, want in zip(module.run(None, feed), session.run(None, feed), strict=True):
            assert got.shape == want.shape
            assert np.abs(got - want).max() <= TOLERANCE[precision] * np.abs(want).max()


@pytest.mark.parametrize("arch, precision", FAMILIES + BFLOATS)
@pytest.mark.parametrize("rows, depth, columns", [("n", 70, 50), ("n", 64, 80)])
def test_products(amd_here, arch, precision, rows, depth, columns):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Relu", ["a"], ["y"])]
    proto = model(nodes, {"x": [rows, depth]}, {"y": [rows, columns]}, {"w": normal(depth, columns)})
    check(proto, arch, precision, "matrix-product", *({"x": normal(n, depth)} for n in (1, 37, 130)))


@pytest.mark.parametrize("arch, precision", [("gfx942", "fp16"), ("gfx1100", "bf16")])
def test_convolutions(amd_here, arch, precision):
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1], strides=[2, 2])
    proto = model([node], {"x": ["n", 24, "h", "w_"]}, {"y": ["n", 40, None, None]}, {"w": normal(40, 24, 3, 3)})
    check(proto, arch, precision, "matrix-conv", {"x": normal(2, 24, 9, 14)})


@pytest.mark.parametrize("arch, precision", FAMILIES + BFLOATS)
@pytest.mark.parametrize(
    "heads, size, value_size, causal, bias",
    [(2, 24, 24, True, None), (2, 32, 16, False, ["b", 1, "s", "t"]), (2, 5, 5, True, None)],
)
def test_attention(amd_here, arch, precision, heads, size, value_size, causal, bias):
    feeds = []
    for batch, queries, keys in ((1, 1, 1), (2, 17, 33), (1, 130, 70)):
        keys = queries if causal else keys
        widths = {"q": (queries, size), "k": (keys, size), "v": (keys, value_size)}
        feed = {name: normal(batch, length, heads * width) for name, (length, width) in widths.items()}
        feeds.append(feed | ({"bias": normal(batch, 1, queries, keys)} if bias else {}))
    check(attention(heads, size, value_size, causal, bias), arch, precision, "matrix-attention", *feeds)


def test_lanes_that_are_apart_are_found(amd_here, monkeypatch):
    """The stand-in refuses an exchange between lanes that not all of them reach, as a device would not."""
    from tvm import tirx

    monkeypatch.setattr(tirx, "call_extern", tirx.call_pure_extern)
    artifact = dscc.compile(attention(2, 16, 16), target="rocm:gfx942", precision="fp16")
    q, k = normal(1, 20, 32), normal(1, 30, 32)
    with pytest.raises(DsccError, match="threads wait for ever"):
        artifact.load().run(None, {"q": q, "k": k, "v": k})


@pytest.mark.parametrize("arch, precision", [*FAMILIES, ("gfx950", "fp16"), ("gfx1100", "bf16")])
@pytest.mark.parametrize("size", [24, 64, 128])
def test_attention_does_not_spill(arch, precision, size):
    for bias in (None, ["b", 2, "s", "t"]):
        options = CompileOptions(target=f"rocm:{arch}", precision=precision)
        assembly = emit.emit(attention(2, size, size, bias is None, bias), options, "asm")
        counts = re.findall(r"\.(\w+)_spill_count:\s+(\d+)", str(assembly))
        assert counts and all(int(count) == 0 for _, count in counts)
        assert re.search("v_(mfma|wmma)_f32_16x16x", str(assembly))


def test_heads_of_256(amd_here):
    """More than a lane of RDNA's has registers for."""
    feed = {"q": normal(1, 3, 256), "k": normal(1, 5, 256), "v": normal(1, 5, 256)}
    proto = attention(1, 256, 256)
    check(proto, "gfx942", "fp16", "matrix-attention", feed)
    assert "matrix-attention" not in rules(dscc.compile(proto, target="rocm:gfx1100", precision="fp16"))


def test_types_of_16_bits_do_not_meet_on_the_device(amd_here):
    """One stands for the other in OpenCL C: a kernel of both runs on the host."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Cast", ["a"], ["y"], to=TP.FLOAT16)]
    proto = model(nodes, {"x": ["n", 32]}, {"y": ["n", 32]}, {"w": normal(32, 32)})
    proto.graph.output[0].type.tensor_type.elem_type = TP.FLOAT16
    artifact = dscc.compile(proto, target="rocm:gfx942", precision="bf16")
    assert {rule.partition(":")[0] for rule in rules(artifact)} == {"elementwise", "host"}
    x, w = normal(5, 32), numpy_helper.to_array(proto.graph.initializer[0])
    (got,) = artifact.load().run(None, {"x": x})
    assert got.dtype == np.float16 and np.abs(got - x @ w).max() <= 2e-2 * np.abs(x @ w).max()


def test_kernels_that_spill_are_not_unrolled(monkeypatch):
    """Attention in float32 without matrix instructions, with a bias: more values at once than registers."""

    def spilled() -> int:
        options = CompileOptions(target="rocm:gfx1100")
        assembly = str(emit.emit(attention(4, 32, 48, True, ["b", 1, "s", "t"]), options, "asm"))
        return sum(int(count) for count in re.findall(r"\.vgpr_spill_count:\s+(\d+)", assembly))

    assert spilled() == 0
    monkeypatch.setattr(clang, "_rolled", lambda source, names: source)
    assert spilled() > 0
