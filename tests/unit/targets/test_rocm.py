"""Code objects for AMD's devices: compiled and looked at; and the runtime, over a library that stands in for HIP."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto as TP
from onnx import helper, numpy_helper

import dscc
from benchmarks import binaries
from dscc import emit
from dscc.errors import ArtifactError, TargetError
from dscc.options import CompileOptions
from dscc.runtime import hip
from dscc.targets.rocm import clang
from dscc.targets.rocm.target import Rocm

try:
    CLANG = clang.find()
except TargetError as missing:
    pytest.skip(str(missing), allow_module_level=True)

ARCHITECTURES = ("gfx90a", "gfx942", "gfx1100", "gfx1201")
MATRIX = {"gfx90a": "v_mfma_f32_16x16x16", "gfx942": "v_mfma_f32_16x16x16"} | dict.fromkeys(
    ("gfx1100", "gfx1201"), "v_wmma_f32_16x16x16_f16"
)
RNG = np.random.default_rng(6)


def model(nodes, inputs, outputs, constants=None) -> onnx.ModelProto:
    def infos(values):
        return [helper.make_tensor_value_info(name, TP.FLOAT, shape) for name, shape in values.items()]

    held = [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(nodes, "g", infos(inputs), infos(outputs), held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def product(rows: int | str = "n", depth: int = 70, columns: int = 50) -> onnx.ModelProto:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Relu", ["a"], ["y"])]
    return model(nodes, {"x": [rows, depth]}, {"y": [rows, columns]}, {"w": normal(depth, columns)})


def network() -> onnx.ModelProto:
    """Convolutions, a pool, attention's parts, a product, elementary functions that AMD's library would have."""
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Sigmoid", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "depthwise"], ["d"], pads=[1, 1, 1, 1], group=32),
        helper.make_node("MaxPool", ["d"], ["p"], kernel_shape=[3, 3], strides=[2, 2]),
        helper.make_node("Reshape", ["p", "rows"], ["flat"]),
        helper.make_node("MatMul", ["flat", "v"], ["q"]),
        helper.make_node("Transpose", ["q"], ["t"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "t"], ["s"]),
        helper.make_node("Softmax", ["s"], ["m"], axis=-1),
        helper.make_node("MatMul", ["m", "q"], ["o"]),
        helper.make_node("Erf", ["o"], ["e"]),
        helper.make_node("Atan", ["e"], ["f"]),
        helper.make_node("Sin", ["f"], ["y"]),
    ]
    constants = {"w": normal(32, 16, 3, 3), "b": normal(32), "depthwise": normal(32, 1, 3, 3), "v": normal(32, 48)}
    constants |= {"rows": np.array([0, -1, 32])}
    return model(nodes, {"x": [1, 16, "h", "w_"]}, {"y": [1, "n", 48]}, constants)


def kernels(assembly: str) -> dict[str, dict[str, int]]:
    """What the metadata of the code object says of each kernel."""
    return {
        of["name"]: {key: int(value) for key, value in of.items() if value.isdecimal()}
        for of in binaries.metadata(assembly)
    }


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_code_objects(arch):
    """Every kernel links; registers and local memory are within the architecture's, without spills."""
    options = CompileOptions(target=f"rocm:{arch}", precision="fp16")
    assembly, binary = emit.emit(network(), options, "asm"), emit.emit(network(), options, "binary")
    assert isinstance(assembly, str) and isinstance(binary, bytes)
    assert re.search(rf"amdhsa\.target:\s+'?amdgcn-amd-amdhsa--{arch}'?$", assembly, re.M)
    assert MATRIX[arch] in assembly
    found = kernels(assembly)
    assert len(found) >= 6
    for name, of in found.items():
        assert of["vgpr_count"] <= 256 and of["group_segment_fixed_size"] <= 65536, name
        assert of["vgpr_spill_count"] == of["sgpr_spill_count"] == 0, name
        assert of["wavefront_size"] == (64 if arch in ("gfx90a", "gfx942") else 32), name
        assert name.encode() in binary
    assert binary[:4] == b"\x7fELF" and f"amdgcn-amd-amdhsa--{arch}".encode() in binary


@pytest.mark.parametrize("arch", ["gfx942", "gfx1100", "gfx1201"])
@pytest.mark.parametrize("rows", ["n", 4096])
def test_products_of_all_sizes_of_tiles_do_not_spill(arch, rows):
    """Sizes that are unknown, unaligned, and large enough for the largest tile."""
    for depth, columns in ((70, 50), (1024, 4096)):
        options = CompileOptions(target=f"rocm:{arch}", precision="fp16")
        assembly = emit.emit(product(rows, depth, columns), options, "asm")
        assert isinstance(assembly, str) and MATRIX[arch] in assembly
        assert all(of["vgpr_spill_count"] == 0 for of in kernels(assembly).values())


def test_float32_by_matrix_instructions_where_there_are_some():
    def assembly(arch: str) -> str:
        return str(emit.emit(product(), CompileOptions(target=f"rocm:{arch}"), "asm"))

    assert "v_mfma_f32_16x16x4" in assembly("gfx90a") and "v_wmma" not in assembly("gfx1100")


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_bfloat16_by_matrix_instructions(arch):
    assembly = emit.emit(product(), CompileOptions(target=f"rocm:{arch}", precision="bf16"), "asm")
    assert re.search(r"v_(mfma|wmma)_f32_16x16x16_?bf16", str(assembly))
    assert all(of["vgpr_spill_count"] == 0 for of in kernels(str(assembly)).values())


def test_doubles_stay_on_the_device_unless_they_want_a_library():
    def rules(operator: str) -> list[str]:
        info = [helper.make_tensor_value_info(name, TP.DOUBLE, ["n"]) for name in "xy"]
        graph = helper.make_graph([helper.make_node(operator, ["x"], ["y"])], "g", info[:1], info[1:])
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        artifact = dscc.compile(proto, target="rocm:gfx942")
        return [kernel["rule"] for kernel in artifact.manifest.kernels["functions"].values()]

    assert rules("Sqrt") == ["elementwise"] and rules("Exp")[0].startswith("host")


def test_unknown_architecture():
    with pytest.raises(TargetError, match="unknown architecture 'rocm:gfx943'; did you mean 'rocm:gfx942'"):
        Rocm.resolve("gfx943")


def test_without_hip(monkeypatch):
    monkeypatch.setattr(hip, "NAMES", ("libamdhip64.so.none",))
    artifact = dscc.compile(product(), target="rocm:gfx942")
    assert artifact.manifest.device.items() >= {"kind": "rocm", "type": 10, "architecture": "gfx942"}.items()
    with pytest.raises(ArtifactError, match=r"this artifact is for rocm:gfx942: AMD's HIP runtime .* not installed"):
        artifact.load()


@pytest.fixture
def fake(stand_in) -> Path:
    """The folder of a libamdhip64.so."""
    return stand_in.hip.parent


_RUN = """
import sys, numpy as np
import dscc
from dscc.artifact import Artifact
try:
    module = Artifact.open(sys.argv[1]).load(device=sys.argv[2] or None)
    print(module.device)
    for rows in (300, 7)[: int(sys.argv[3])]:
        print(module(np.ones((rows, 20), np.float32))[0].shape)
    if int(sys.argv[3]) > 2:
        module(np.ones((1 << 24, 20), np.float32))
except dscc.DsccError as err:
    print("refused:", err)
"""


@pytest.fixture(scope="module")
def scaled(tmp_path_factory) -> Path:
    node = helper.make_node("Sigmoid", ["x"], ["y"])
    path = tmp_path_factory.mktemp("model") / "scaled.dscc"
    dscc.compile(model([node], {"x": ["n", 20]}, {"y": ["n", 20]}), target="rocm:gfx942").save(path)
    return path


def run(fake: Path, artifact: Path, device: str = "", runs: int = 0, **variables: str) -> tuple[list[str], list[str]]:
    """Lines that a process printed, and the launches of kernels."""
    log = fake / f"log{os.urandom(4).hex()}"
    environment = os.environ | {"LD_LIBRARY_PATH": str(fake), "FAKE_HIP_LOG": str(log), "FAKE_HIP_ARCH": "gfx942"}
    environment |= {"FAKE_HIP_ARGUMENTS": "3"} | variables
    command = [sys.executable, "-c", _RUN, str(artifact), device, str(runs)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines(), log.read_text().splitlines() if log.exists() else []


def test_launches(fake, scaled):
    """Kernels get their arguments and enough threads, and no block more."""
    printed, launches = run(fake, scaled, runs=2)
    assert printed == ["AMD Instinct Fake 0", "(300, 20)", "(7, 20)"]
    assert len(launches) == 2
    for line, rows in zip(launches, (300, 7), strict=True):
        name, *numbers = line.split()
        blocks, _, _, threads, _, _, first, second, third = map(int, numbers)
        assert name.endswith("kernel") and blocks * threads >= rows * 20 > (blocks - 1) * threads
        assert first % 256 == second % 256 == 0 and first != second and third & 0xFFFFFFFF == rows * 20


def test_devices_that_do_not_fit(fake, scaled):
    assert run(fake, scaled, FAKE_HIP_DEVICES="0")[0] == [
        "refused: this artifact is for rocm:gfx942: AMD's HIP runtime finds no device"
    ]
    assert run(fake, scaled, FAKE_HIP_ARCH="gfx90a")[0] == [
        "refused: this artifact is for rocm:gfx942: its code is for gfx942, and the device 'AMD Instinct Fake 0' is "
        "gfx90a; compile it with --target=rocm:gfx90a"
    ]


def test_one_of_several_devices(fake, scaled):
    assert run(fake, scaled, "Fake 1", FAKE_HIP_DEVICES="2")[0] == ["AMD Instinct Fake 1"]
    (line,) = run(fake, scaled, "Radeon", FAKE_HIP_DEVICES="2")[0]
    assert line.endswith("no device is called 'Radeon'; there are: 'AMD Instinct Fake 0', 'AMD Instinct Fake 1'")


def test_more_than_the_memory(fake, scaled):
    printed, _ = run(fake, scaled, runs=3)
    assert len(printed) == 4 and printed[-1].startswith("refused: ") and "not enough memory" in printed[-1]
