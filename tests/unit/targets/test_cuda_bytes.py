"""Products of bytes for CUDA: exact on the processor here (benchmarks/cuda_here), and IMMA in the machine code."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto as TP
from onnx import helper
from onnx.reference import ReferenceEvaluator

import dscc
from benchmarks import binaries, cuda_here
from benchmarks.device.quantized import convolution, dynamic, integers, model, product, random
from dscc import compiler, emit
from dscc.errors import TargetError
from dscc.options import CompileOptions
from dscc.targets.cuda import bytes as byte_rules
from dscc.targets.cuda import nvrtc, tensor

RNG = np.random.default_rng(31)


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> cuda_here.HostCompiler:
    if platform.machine() != "x86_64":
        pytest.skip("the stand-in for CUDA is compiled for x86-64")
    try:
        return cuda_here.build(tmp_path_factory.mktemp("cuda"))
    except TargetError as missing:
        pytest.skip(str(missing))


@pytest.fixture
def nvidia_here(stand_in: cuda_here.HostCompiler) -> Iterator[None]:
    """In this test kernels for CUDA devices are compiled for the processor here, and run on it."""
    with cuda_here.standing_in(stand_in):
        yield


def reference(proto: onnx.ModelProto):
    try:
        return onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    except Exception:  # noqa: BLE001  onnxruntime lacks some combinations of types
        return ReferenceEvaluator(proto)


def check(proto: onnx.ModelProto, rule: str, *feeds: np.ndarray, precision: str = "fp32", tolerance: float = 0.0):
    """Outputs are the reference's, and the rule has made one of the kernels."""
    artifact = dscc.compile(proto, target="cuda:sm_80", precision=precision)
    assert rule in {kernel["rule"] for kernel in artifact.manifest.kernels["functions"].values()}
    module, wanted = artifact.load(), reference(proto)
    for feed in feeds:
        (got,), (want,) = module.run(None, {"x": feed}), wanted.run(None, {"x": feed})
        assert got.shape == want.shape and got.dtype == want.dtype
        assert len(np.unique(want)) > min(20, want.size // 4)  # not all of it saturated
        apart = np.abs(got.astype(np.float64) - want.astype(np.float64)).max()
        assert apart <= tolerance * np.abs(want.astype(np.float64)).max()


@pytest.mark.usefixtures("nvidia_here")
@pytest.mark.parametrize(
    "depth, columns, left, right, zeros",
    [
        (64, 40, np.uint8, np.int8, (7, 0)),
        (100, 72, np.uint8, np.int8, (255, -128)),
        (61, 33, np.int8, np.uint8, (-3, 200)),
        (300, 17, np.int8, np.int8, (127, 5)),
        (16, 130, np.uint8, np.uint8, (0, 0)),
        (1, 30, np.uint8, np.uint8, (128, 128)),
    ],
)
def test_products_are_exact(depth, columns, left, right, zeros):
    proto = product(depth, columns, left, right, zeros)
    check(proto, "mma-byte-product", *(random(left, rows, depth) for rows in (1, 75)))


@pytest.mark.usefixtures("nvidia_here")
@pytest.mark.parametrize("size", tensor.SIZES)
def test_tiles_of_all_sizes_are_exact(size, monkeypatch):
    monkeypatch.setattr(byte_rules, "choose", lambda *_: tensor.Warps(*size))
    check(product(160, 150, zeros=(7, 3)), "mma-byte-product", random(np.uint8, 200, 160))
    check(convolution(16, 24, 3, pads=[1, 1, 1, 1]), "mma-byte-conv", random(np.uint8, 1, 16, 9, 11))


@pytest.mark.usefixtures("nvidia_here")
@pytest.mark.parametrize(
    "channels, filters, kernel, attributes",
    [
        (64, 40, 3, {"pads": [1, 1, 1, 1]}),
        (24, 41, 3, {"pads": [1, 0, 2, 1], "strides": [2, 1]}),
        (3, 32, 7, {"pads": [3, 3, 3, 3], "strides": [2, 2]}),
        (5, 34, 2, {"pads": [1, 0, 0, 1], "dilations": [2, 3]}),
        (144, 16, 1, {}),
        (32, 24, 3, {}),
    ],
)
def test_convolutions_are_exact(channels, filters, kernel, attributes):
    proto = convolution(channels, filters, kernel, **attributes)
    check(proto, "mma-byte-conv", random(np.uint8, 2, channels, 9, 11))


@pytest.mark.usefixtures("nvidia_here")
@pytest.mark.parametrize("zero", [0, 2])
def test_a_zero_point_that_is_known_when_it_runs(zero):
    feeds = [RNG.standard_normal((2, rows, 64)).astype(np.float32) for rows in (7, 40)]
    check(dynamic(64, 48, zero), "mma-byte-product", *feeds, tolerance=1e-6)


@pytest.mark.usefixtures("nvidia_here")
def test_sums_as_they_are():
    check(integers(1000, 50), "mma-byte-product", random(np.int8, 70, 1000))


@pytest.mark.usefixtures("nvidia_here")
def test_products_of_floats_run_here_too():
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Relu", ["a"], ["y"])]
    constants = {"w": RNG.standard_normal((72, 50)).astype(np.float32)}
    proto = model(nodes, {"x": (TP.FLOAT, ["m", 72])}, {"y": (TP.FLOAT, ["m", 50])}, constants)
    x = RNG.standard_normal((70, 72)).astype(np.float32)
    check(proto, "mma-product", x, precision="tf32", tolerance=1e-3)
    check(proto, "matmul", x, tolerance=1e-6)


def kernels(proto: onnx.ModelProto, arch: str) -> tuple[list[binaries.Kernel], set[str]]:
    """The kernels of products, and the names of all machine instructions."""
    made = [
        nvrtc.find().compile(source, arch)
        for source in emit.device_sources(proto, CompileOptions(target=f"cuda:{arch}"))
    ]
    names = {name for each in made for name in re.findall(r"([A-Z][\w.]+)", binaries.listing(each.code))}
    return [kernel for each in made for kernel in binaries.nvidia(each.log) if "dot" in kernel.name], names


@pytest.mark.parametrize("arch", ["sm_80", "sm_89"])
@pytest.mark.parametrize(
    "make, instruction",
    [
        (lambda: product(512, 512, zeros=(7, 0)), "IMMA.16832.U8."),
        (lambda: product(512, 512, np.int8, np.int8, (0, 3)), "IMMA.16832.S8."),
        (lambda: product(100, 512), "IMMA.16832.U8."),
        (lambda: convolution(64, 64, 3, pads=[1, 1, 1, 1]), "IMMA.16832.U8.S8"),
        (lambda: convolution(24, 64, 3, pads=[1, 1, 1, 1]), "IMMA.16832.U8.S8"),
    ],
)
def test_machine_code(make, instruction, arch):
    try:
        nvrtc.find()
    except TargetError as missing:
        pytest.skip(str(missing))
    found, names = kernels(make(), arch)
    assert found and not any(kernel.spills for kernel in found)
    assert any(name.startswith(instruction) for name in names) and "LDGSTS.E.BYPASS.128" in names


def test_older_architectures_have_the_next_rule():
    options = CompileOptions(target="cuda:sm_75")
    done = compiler.optimize(product(64, 64), options, compiler.lowering(options), lambda stage: None)
    assert any(remark.endswith(": matmul") for remark in done.ctx.remarks)
