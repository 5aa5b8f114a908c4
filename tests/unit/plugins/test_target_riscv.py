"""The RISC-V target of a third party: its kernels, executed under qemu. No TVM exists for RISC-V to load a library."""

from __future__ import annotations

import ast
import json
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import dscc_target_riscv
import numpy as np
import onnxruntime
import pytest
import tvm_ffi
from onnx import ModelProto, numpy_helper, parser

import dscc
from benchmarks import cross
from dscc import emit
from dscc.errors import TargetError
from dscc.options import CompileOptions

MACHINE = "riscv64"
HEADER = '<ir_version: 10, opset_import: ["": 17]>\n'
installed = pytest.mark.skipif(bool(cross.missing(MACHINE)), reason="qemu-user and g++-riscv64-linux-gnu are needed")
RNG = np.random.default_rng(0)


def build(text: str, **weights: tuple[int, ...]) -> ModelProto:
    """The model of a graph in onnx's text form, with random weights of these shapes."""
    model = parser.parse_model(HEADER + text)
    arrays = {name: RNG.standard_normal(shape).astype("float32") / 4 for name, shape in weights.items()}
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in arrays.items())
    return model


def product() -> tuple[ModelProto, list[tuple[int, ...]]]:
    text = "g (float[n, 45] x) => (float[n, 37] y) { a = MatMul (x, w)\n b = Add (a, c)\n y = Tanh (b) }"
    return build(text, w=(45, 37), c=(37,)), [(1, 45), (3, 45), (50, 45)]


def convolution() -> tuple[ModelProto, list[tuple[int, ...]]]:
    text = """g (float[n, h, w, 5] x) => (float[n, h, w, 19] y) {
        a = Transpose <perm = [0, 3, 1, 2]> (x)
        b = Conv <pads = [1, 1, 1, 1]> (a, k)
        c = Relu (b)
        y = Transpose <perm = [0, 2, 3, 1]> (c)
    }"""
    return build(text, k=(19, 5, 3, 3)), [(1, 9, 11, 5), (2, 16, 6, 5)]


def softmax() -> tuple[ModelProto, list[tuple[int, ...]]]:
    return build("g (float[n, m] x) => (float[n, m] y) { y = Softmax (x) }"), [(1, 1), (5, 33), (40, 100)]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(MACHINE) / "run_kernel"
    source = Path(__file__).with_name("run_kernel.c")
    includes = [f"-I{folder}" for folder in tvm_ffi.libinfo.include_paths()]
    command = [f"{MACHINE}-linux-gnu-gcc", "-O1", "-Wall", "-Werror", "-rdynamic", *includes, source, "-o", path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return path


def run(program: Path, artifact: dscc.Artifact, x: np.ndarray, shape: tuple[int, ...], cpu: str) -> np.ndarray:
    """The output of the one kernel of an artifact."""
    folder = program.parent
    artifact.save(folder / "model.dscc")
    with zipfile.ZipFile(folder / "model.dscc") as members:
        (folder / "model.so").write_bytes(members.read("model.so"))
        weights = members.read("weights.safetensors")
    header = json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
    data = weights[8 + int.from_bytes(weights[:8], "little") :]
    arrays = [x]
    for name in artifact.manifest.weights:
        entry = header[name]
        begin, end = entry["data_offsets"]
        arrays.append(np.frombuffer(data[begin:end], "float32").reshape(entry["shape"]))
    arguments = []
    for i, array in enumerate([*arrays, np.zeros(shape, "float32")]):
        (folder / f"{i}.bin").write_bytes(array.tobytes())
        arguments.append(f"f:32:{','.join(map(str, array.shape))}:{i}.bin")
    ((kernel, _),) = artifact.manifest.kernels["calls"]
    done = cross.emulate(MACHINE, [program, "./model.so", kernel, 2, *arguments], cpu, folder)
    assert done.returncode == 0, f"{done.returncode}: {done.stderr}"
    return np.frombuffer((folder / f"{len(arrays)}.bin").read_bytes(), "float32").reshape(shape)


@installed
@pytest.mark.parametrize(
    ("target", "cpu"), [("riscv", "rv64,v=true,vlen=128"), ("riscv:sifive-x280", "rv64,v=true,vlen=512,Zfh=true")]
)
@pytest.mark.parametrize("make", [product, convolution, softmax])
def test_a_kernel_agrees(make: Any, target: str, cpu: str, program: Path) -> None:
    model, shapes = make()
    artifact = dscc.compile(model, target=target)
    assert artifact.manifest.machine == MACHINE
    assert artifact.manifest.plugins == {"target-riscv": "1.0.0"}
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for shape in shapes:
        x = RNG.standard_normal(shape).astype("float32")
        (want,) = session.run(None, {"x": x})
        assert cross.error(run(program, artifact, x, want.shape, cpu), want) <= 1e-5


@installed
def test_without_vectors_the_kernel_stops(program: Path) -> None:
    model, _ = product()
    with pytest.raises(AssertionError, match="-4"):
        x = RNG.standard_normal((3, 45)).astype("float32")
        run(program, dscc.compile(model, target="riscv"), x, (3, 37), "rv64,v=false")


def test_its_code_uses_vectors() -> None:
    assembly = emit.emit(product()[0], CompileOptions(target="riscv"), "asm")
    assert "vfmacc.vf" in assembly and "fmadd.s" not in assembly


def test_an_architecture_without_vectors_is_unknown() -> None:
    with pytest.raises(TargetError, match="unknown architecture 'riscv:sifive-u74'; did you mean 'riscv:sifive-"):
        dscc.compile(product()[0], target="riscv:sifive-u74")


def test_the_package_is_under_40_lines_of_code() -> None:
    lines = set()
    for path in Path(dscc_target_riscv.__file__).parent.glob("*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            if isinstance(node, ast.stmt) and not text:
                first = node.body[0].lineno if hasattr(node, "body") else (node.end_lineno or node.lineno) + 1
                lines |= {(path.name, n) for n in range(node.lineno, max(first, node.lineno + 1))}
    assert len(lines) < 40
