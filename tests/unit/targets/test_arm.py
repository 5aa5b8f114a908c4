"""Artifacts for ARM, executed under qemu on processors with different instruction sets, against onnxruntime."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper, parser

import dscc
from benchmarks import cross
from dscc import emit
from dscc.artifact import host
from dscc.options import CompileOptions

if cross.missing("aarch64"):
    pytest.skip("qemu-user and g++-aarch64-linux-gnu are needed", allow_module_level=True)

HEADER = '<ir_version: 10, opset_import: ["": 17, "com.microsoft": 1]>\n'
Arrays = Mapping[str, np.ndarray[Any, Any]]


def normal(seed: int, *shape: int, dtype: str = "float32") -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def build(text: str, **weights: np.ndarray[Any, Any]) -> onnx.ModelProto:
    """The model of a graph in onnx's text form, with weights by name."""
    model = parser.parse_model(HEADER + text)
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in weights.items())
    return model


def dense() -> tuple[onnx.ModelProto, list[Arrays]]:
    """Products with symbolic rows, normalisation, and elementary functions."""
    model = build(
        """dense (float[n, 40] x) => (float[n, 27] y) {
            a = MatMul (x, w)
            b = Add (a, bias)
            c = LayerNormalization (b, scale)
            d = Erf (c)
            e = Tanh (b)
            f = Mul (d, e)
            g = MatMul (f, v)
            y = Softmax (g)
        }""",
        w=normal(1, 40, 33), bias=normal(2, 33), scale=normal(3, 33), v=normal(4, 33, 27),
    )  # fmt: skip
    return model, [{"x": normal(n, n, 40)} for n in (1, 5, 37)]


def convolutional() -> tuple[onnx.ModelProto, list[Arrays]]:
    """Convolutions of every kind over images of symbolic size."""
    model = build(
        """conv (float[n, 3, h, w] x) => (float[n, 20, a, b] y) {
            c1 = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, k1)
            r1 = Relu (c1)
            c2 = Conv <pads = [1, 1, 1, 1]> (r1, k2)
            r2 = HardSwish (c2)
            c3 = Conv <pads = [2, 2, 2, 2], group = 32> (r2, k3)
            p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (c3)
            u = ConvTranspose <strides = [2, 2]> (p, k4)
            y = Sigmoid (u)
        }""",
        k1=normal(1, 16, 3, 3, 3) / 5, k2=normal(2, 32, 16, 3, 3) / 12, k3=normal(3, 32, 1, 5, 5) / 5,
        k4=normal(4, 32, 20, 2, 2) / 6,
    )  # fmt: skip
    return model, [{"x": normal(h, n, 3, h, w)} for n, h, w in ((1, 24, 40), (2, 33, 19))]


def recurrent() -> tuple[onnx.ModelProto, list[Arrays]]:
    """An LSTM, and attention over its outputs."""
    model = build(
        """lstm (float[t, b, 12] x) => (float[b, t, 24] y) {
            h = LSTM <hidden_size = 24> (x, w, r)
            one = Constant <value_ints = [1]> ()
            s = Squeeze (h, one)
            q = Transpose <perm = [1, 0, 2]> (s)
            k = Transpose <perm = [1, 2, 0]> (s)
            scores = MatMul (q, k)
            p = Softmax (scores)
            y = MatMul (p, q)
        }""",
        w=normal(1, 1, 96, 12) / 4, r=normal(2, 1, 96, 24) / 5,
    )  # fmt: skip
    return model, [{"x": normal(t, t, b, 12)} for t, b in ((7, 1), (13, 3))]


def half() -> tuple[onnx.ModelProto, list[Arrays]]:
    """Arithmetic on float16, which some of the processors have in registers."""
    model = build(
        """half (float16[n, 48] x) => (float16[n, 21] y) {
            a = Mul (x, s)
            b = Add (a, x)
            c = MatMul (b, w)
            y = Relu (c)
        }""",
        s=normal(1, 48, dtype="float16"), w=(normal(2, 48, 21) / 7).astype("float16"),
    )  # fmt: skip
    return model, [{"x": normal(n, n, 48, dtype="float16")} for n in (1, 19)]


def integers() -> tuple[onnx.ModelProto, list[Arrays]]:
    """Products of bytes of every signedness, with zero points of the tensor and of columns."""
    generator = np.random.default_rng(0)

    def weights(dtype: str, *shape: int) -> np.ndarray[Any, Any]:
        limits = np.iinfo(dtype)
        return generator.integers(limits.min, limits.max + 1, shape).astype(dtype)

    model = build(
        """integers (float[n, 45] x) => (int32[n, 33] y, uint8[n, 19] z, int32[n, 8] t) {
            q, s, zero = DynamicQuantizeLinear (x)
            y = MatMulInteger (q, w, zero, wz)
            z = QLinearMatMul (q, s, zero, v, vs, vz, zs, zero)
            f = Cast <to = 3> (x)
            t = MatMulInteger (f, u)
        }""",
        w=weights("int8", 45, 33), wz=weights("int8", 33), v=weights("uint8", 45, 19), vs=np.array(0.02, "float32"),
        vz=np.array(131, "uint8"), zs=np.array(0.7, "float32"), u=weights("int8", 45, 8),
    )  # fmt: skip
    return model, [{"x": normal(n, n, 45) * 9} for n in (1, 2, 7, 37)]


def coded() -> tuple[onnx.ModelProto, list[Arrays]]:
    """Products of reals and codes of few bits."""
    generator = np.random.default_rng(0)

    def codes(*shape: int) -> np.ndarray[Any, Any]:
        return generator.integers(0, 256, shape).astype("uint8")

    model = build(
        """coded (float[n, 72] x) => (float[n, 33] y, float[n, 33] z) {
            y = com.microsoft.MatMulNBits <K = 72, N = 33, bits = 4, block_size = 16> (x, w, s, t)
            z = com.microsoft.MatMulNBits <K = 72, N = 33, bits = 8, block_size = 16> (x, v, s)
        }""",
        w=codes(33, 5, 8), s=normal(1, 33, 5), t=codes(33, 3), v=codes(33, 5, 16),
    )  # fmt: skip
    return model, [{"x": normal(n, n, 72)} for n in (1, 2, 19)]


def quantized() -> tuple[onnx.ModelProto, list[Arrays]]:
    """Convolutions of bytes."""
    generator = np.random.default_rng(0)
    model = build(
        """quantized (float[n, 3, h, w] x) => (uint8[n, 21, a, b] y) {
            q, s, zero = DynamicQuantizeLinear (x)
            c = QLinearConv <pads = [1, 1, 1, 1]> (q, s, zero, k, ks, kz, cs, cz)
            y = QLinearConv <strides = [2, 2]> (c, cs, cz, l, ls, lz, cs, cz)
        }""",
        k=generator.integers(-128, 128, (18, 3, 3, 3)).astype("int8"), ks=np.array(0.01, "float32"),
        kz=np.array(0, "int8"), cs=np.array(0.3, "float32"), cz=np.array(120, "uint8"),
        l=generator.integers(-128, 128, (21, 18, 3, 2)).astype("int8"), ls=np.full(21, 0.005, "float32"),
        lz=np.zeros(21, "int8"),
    )  # fmt: skip
    return model, [{"x": normal(n, n, 3, h, w)} for n, h, w in ((1, 9, 14), (2, 16, 7))]


def library() -> tuple[onnx.ModelProto, list[Arrays]]:
    """Functions in C that come with the model's library: a sort, a search, a loop."""
    model = build(
        """library (float[n, 30] x) => (float[n, 5] values, int64[n, 5] places, int64[2, k] where, float[n, 30] y) {
            five = Constant <value_ints = [5]> ()
            zero = Constant <value_float = 0.0> ()
            values, places = TopK (x, five)
            positive = Greater (x, zero)
            where = NonZero (positive)
            steps = Constant <value_int = 3> ()
            yes = Cast <to = 9> (steps)
            y = Loop (steps, yes, x) <body = step (int64 i, bool on, float[n, 30] v) => (bool go, float[n, 30] out) {
                go = Identity (on)
                half = Constant <value_float = 0.5> ()
                out = Mul (v, half)
            }>
        }""",
    )
    return model, [{"x": normal(n, n, 30)} for n in (1, 9)]


@pytest.fixture(scope="module")
def emulated() -> cross.Emulated:
    return cross.emulated("aarch64")


def compare(emulated: cross.Emulated, model: Any, target: str, cpu: str, feeds: list[Arrays], folder: Path) -> None:
    artifact = dscc.compile(model, target=target, fallback=False)
    artifact.save(folder / "model.dscc")
    source = model if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    for one in feeds:
        got = emulated.run(folder / "model.dscc", list(one.values()), cpu, threads=2)
        want = session.run(None, dict(one))
        assert len(got) == len(want)
        for ours, theirs in zip(got, want, strict=True):
            assert cross.error(ours, theirs) <= 1e-3


@pytest.mark.parametrize(
    ("make", "target", "cpu"),
    [
        (dense, "arm:cortex-a72", "cortex-a72"),
        (convolutional, "arm:cortex-a76", "cortex-a76"),
        (recurrent, "arm:neoverse-n1", "neoverse-n1"),
        (half, "arm:cortex-a53", "cortex-a53"),
        (half, "arm:apple-m1", "max"),
        (integers, "arm:cortex-a72", "cortex-a72"),
        (integers, "arm:neoverse-n1", "neoverse-n1"),
        (integers, "arm:neoverse-v1", "max"),
        (coded, "arm:cortex-a72", "cortex-a72"),
        (coded, "arm:cortex-a76", "cortex-a76"),
        (quantized, "arm:cortex-a72", "cortex-a72"),
        (quantized, "arm:cortex-a76", "cortex-a76"),
        (quantized, "arm:neoverse-v2", "max"),
        (library, "arm:generic", "cortex-a53"),
        (dense, "arm:neoverse-v2", "max"),
    ],
)
def test_a_network_agrees(
    make: Callable[[], tuple[Any, list[Arrays]]], target: str, cpu: str, emulated: cross.Emulated, tmp_path: Path
) -> None:
    model, feeds = make()
    compare(emulated, model, target, cpu, feeds, tmp_path)


def test_a_real_model_agrees() -> None:
    found = cross.check("ppocr_cls", "arm:cortex-a72", shapes=1)
    assert (found.cpu, found.shapes) == ("cortex-a72", 1)
    assert found.error <= cross.ALLOWED


INSTRUCTIONS = {"sdot", "udot", "usdot", "smmla", "ummla", "usmmla"}


@pytest.mark.parametrize(
    ("arch", "used"),
    [
        ("cortex-a53", set()),
        ("cortex-a72", set()),
        ("a64fx", set()),
        ("cortex-a76", {"sdot"}),
        ("apple-m1", {"sdot"}),
        ("neoverse-v1", {"smmla"}),
        ("neoverse-v2", {"smmla"}),
    ],
)
@pytest.mark.parametrize("make", [integers, quantized])
def test_products_of_bytes_use_what_the_processor_has(
    arch: str, used: set[str], make: Callable[[], tuple[Any, list[Arrays]]]
) -> None:
    assembly = emit.emit(make()[0], CompileOptions(target=f"arm:{arch}"), "asm")
    found = {line.split()[0] for line in assembly.splitlines() if line.strip()} & INSTRUCTIONS
    assert found == used


@pytest.mark.parametrize(("target", "cpu"), [("arm:cortex-a76", "cortex-a72"), ("arm:neoverse-v1", "neoverse-n1")])
def test_an_instruction_that_the_processor_lacks_stops_the_program(
    target: str, cpu: str, emulated: cross.Emulated, tmp_path: Path
) -> None:
    model, feeds = integers()
    artifact = dscc.compile(model, target=target)
    artifact.save(tmp_path / "model.dscc")
    with pytest.raises(cross.CrossError, match="killed by SIGILL"):
        emulated.run(tmp_path / "model.dscc", list(feeds[0].values()), cpu)


def test_arithmetic_on_halves_uses_what_the_processor_has() -> None:
    model, _ = half()
    with_it, without = (
        emit.emit(model, CompileOptions(target=f"arm:{arch}"), "asm") for arch in ("cortex-a76", "cortex-a72")
    )
    assert re.search(r"f(mul|add|mla)\tv\d+\.[48]h", with_it)
    assert not re.search(r"f(mul|add|mla)\tv\d+\.[48]h", without)


def test_an_artifact_says_what_it_asks_of_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = dscc.compile(integers()[0], target="arm:neoverse-v1").manifest
    assert manifest.machine == "aarch64"
    assert {"asimd", "asimddp", "i8mm", "asimdhp"} <= set(manifest.cpu_features)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(host, "cpu_flags", lambda: frozenset(manifest.cpu_features) - {"i8mm"})
    assert host.unfit(manifest) == "it was compiled for arm:neoverse-v1, and this processor lacks i8mm"
    monkeypatch.setattr(host, "cpu_flags", lambda: frozenset(manifest.cpu_features))
    assert host.unfit(manifest) is None


@pytest.mark.parametrize(("arch", "used"), [("cortex-a72", False), ("cortex-a76", True), ("neoverse-v2", True)])
def test_products_of_codes_use_what_the_processor_has(arch: str, used: bool) -> None:
    assembly = emit.emit(coded()[0], CompileOptions(target=f"arm:{arch}"), "asm")
    assert ("sdot" in {line.split()[0] for line in assembly.splitlines() if line.strip()}) == used
