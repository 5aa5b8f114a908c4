"""Kernels for CUDA: compiled by NVRTC without a device, and looked at with ptxas's report and the disassembler."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto as TP
from onnx import helper, numpy_helper
from tvm import tirx

import dscc
from benchmarks import binaries
from dscc import compiler, targets
from dscc.artifact.artifact import LIBRARY
from dscc.errors import ArtifactError, TargetError
from dscc.runtime import cuda as runtime
from dscc.targets.cuda import nvrtc

RNG = np.random.default_rng(5)

try:
    nvrtc.find()
except TargetError as missing:
    pytest.skip(str(missing), allow_module_level=True)


def model(nodes, inputs, outputs, constants) -> onnx.ModelProto:
    def infos(values):
        return [helper.make_tensor_value_info(name, TP.FLOAT, shape) for name, shape in values.items()]

    weights = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", infos(inputs), infos(outputs), weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def product() -> onnx.ModelProto:
    """Two products, of any number of rows."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Add", ["a", "b"], ["s"]),
        helper.make_node("Relu", ["s"], ["r"]),
        helper.make_node("MatMul", ["r", "v"], ["y"]),
    ]
    constants = {
        "w": RNG.standard_normal((64, 256)),
        "b": RNG.standard_normal(256),
        "v": RNG.standard_normal((256, 72)),
    }
    return model(nodes, {"x": ["m", 64]}, {"y": ["m", 72]}, constants)


def convolution() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["a"], ["y"]),
    ]
    constants = {"w": RNG.standard_normal((64, 40, 3, 3))}
    return model(nodes, {"x": ["n", 40, 15, 17]}, {"y": ["n", 64, 8, 9]}, constants)


def stem() -> onnx.ModelProto:
    """A convolution of an image of three channels, which no copy of 16 bytes fits."""
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], pads=[3, 3, 3, 3], strides=[2, 2])]
    return model(nodes, {"x": ["n", 3, 30, 34]}, {"y": ["n", 16, 15, 17]}, {"w": RNG.standard_normal((16, 3, 7, 7))})


def attention() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Transpose", ["k"], ["kt"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["q", "kt"], ["s"]),
        helper.make_node("Mul", ["s", "scale"], ["t"]),
        helper.make_node("Softmax", ["t"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "v"], ["y"]),
    ]
    shape = ["b", 4, "n", 64]
    return model(nodes, dict.fromkeys("qkv", shape), {"y": shape}, {"scale": np.asarray(0.125)})


class Recorder:
    """What the compiler was given and made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.found: list[tuple[str, nvrtc.Compiled]] = []
        inner = nvrtc.Nvrtc.compile

        def compile(itself: nvrtc.Nvrtc, source: str, arch: str) -> nvrtc.Compiled:
            made = inner(itself, source, arch)
            self.found.append((arch, made))
            return made

        monkeypatch.setattr(nvrtc.Nvrtc, "compile", compile)

    def instructions(self) -> set[str]:
        """The names of all machine instructions, with what follows a dot."""
        listings = (binaries.listing(made.code) for _, made in self.found)
        return {name for text in listings for name in re.findall(r"\*/\s+(?:@!?U?P\d+ )?([A-Z][\w.]+)", text)}

    def spills(self) -> list[str]:
        """The kernels that have too few registers."""
        kernels = [kernel for _, made in self.found for kernel in binaries.nvidia(made.log)]
        assert kernels
        return [kernel.name for kernel in kernels if kernel.spills]


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    return Recorder(monkeypatch)


def starting(names: set[str], stem: str) -> bool:
    return any(name.startswith(stem) for name in names)


@pytest.mark.parametrize("make", [product, convolution])
def test_hopper_multiplies_with_warp_groups(make, recorder):
    artifact = dscc.compile(make(), target="cuda:sm_90", precision="fp16")
    names = recorder.instructions()
    assert starting(names, "HGMMA.64x") and starting(names, "UTMALDG")
    assert recorder.spills() == []
    assert artifact.manifest.device["architectures"] == ["sm_90a"]


@pytest.mark.parametrize("make", [product, convolution, attention])
def test_ampere_copies_asynchronously_and_multiplies_tiles(make, recorder):
    dscc.compile(make(), target="cuda:sm_80", precision="bf16")
    names = recorder.instructions()
    assert starting(names, "HMMA.16816.F32.BF16") and starting(names, "LDGSTS.E.BYPASS.128")
    assert starting(names, "LDSM.16.M")
    assert recorder.spills() == []


@pytest.mark.parametrize("target, stem", [("cuda:sm_80", "HMMA.1688.F32.TF32"), ("cuda:sm_90", "HGMMA.64x")])
@pytest.mark.parametrize("make", [product, convolution])
def test_tf32_is_asked_for(make, target, stem, recorder):
    """Factors lose bits on the tensor cores: that is no float32."""
    dscc.compile(make(), target=target, precision="tf32")
    names = recorder.instructions()
    assert starting(names, stem) and any("TF32" in name for name in names)
    assert recorder.spills() == []
    recorder.found.clear()
    dscc.compile(make(), target=target)
    assert not starting(recorder.instructions(), stem[:4])


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_precisions_that_an_architecture_has_not(precision):
    with pytest.raises(TargetError, match=f"--precision {precision} needs sm_80 or later, and .* has sm_75"):
        dscc.compile(product(), target="cuda:sm_75+sm_80", precision=precision)


def test_attention_in_float32_does_not_write_scores(recorder):
    artifact = dscc.compile(attention(), target="cuda:sm_80")
    assert "attention" in {kernel["rule"] for kernel in artifact.manifest.kernels["functions"].values()}
    assert recorder.spills() == []


@pytest.mark.parametrize("target", ["cuda:sm_80", "cuda:sm_90"])
def test_images_of_three_channels_are_multiplied_too(target, recorder):
    dscc.compile(stem(), target=target, precision="fp16")
    assert starting(recorder.instructions(), "HMMA.16816.F32")
    assert recorder.spills() == []


def test_several_architectures_in_one_artifact(recorder):
    artifact = dscc.compile(product(), target="cuda:sm_86+sm_80", precision="fp16")
    assert artifact.manifest.target == "cuda:sm_80+sm_86"
    assert {arch for arch, _ in recorder.found} == {"sm_80", "sm_86"}
    library = bytes(artifact.member(LIBRARY))
    for _, made in recorder.found:
        assert made.code in library


def test_the_artifact_holds_machine_code_and_no_source(recorder):
    artifact = dscc.compile(product(), target="cuda:sm_80")
    library = bytes(artifact.member(LIBRARY))
    assert all(made.code in library for _, made in recorder.found)
    assert b"__global__" not in library


@pytest.mark.parametrize("text, reason", [("sm_42", "unknown architecture 'cuda:sm_42'"), ("sm_80+sm_80", "twice")])
def test_architectures_that_there_are_not(text, reason):
    with pytest.raises(TargetError, match=re.escape(reason)):
        targets.resolve(f"cuda:{text}")


@pytest.mark.parametrize(
    "code, capability, runs",
    [
        ("sm_80", (8, 0), True),
        ("sm_80", (8, 6), True),
        ("sm_86", (8, 0), False),
        ("sm_80", (9, 0), False),
        ("sm_90a", (9, 0), True),
        ("sm_90a", (10, 0), False),
        ("sm_120", (12, 0), True),
    ],
)
def test_which_code_runs_where(code, capability, runs):
    assert runtime._runs(code, capability) is runs


def test_a_machine_without_driver_says_so():
    if runtime_is_here():
        pytest.skip("this machine has a device")
    artifact = dscc.compile(product(), target="cuda:sm_80")
    with pytest.raises(ArtifactError, match=r"this artifact is for cuda:sm_80.*NVIDIA's driver"):
        artifact.load()


def runtime_is_here() -> bool:
    try:
        runtime._device()
    except TargetError:
        return False
    return True


@pytest.mark.parametrize("target", ["cuda:sm_80", "cuda:sm_90"])
def test_nothing_is_launched_for_no_rows(target):
    """The launchers of a kernel of a symbolic number of rows look at it first."""
    options = dscc.CompileOptions(target=target, precision="fp16")
    made = compiler.optimize(product(), options, compiler.lowering(options), lambda stage: None)
    found = [func for func in made.mod.functions.values() if isinstance(func, tirx.PrimFunc) and "dscc" in str(func)]
    products = [func for func in found if "product" in str(func.attrs["dscc.rule"])]
    assert len(products) == 2
    for func in products:
        outermost = func.body.seq[-1] if isinstance(func.body, tirx.SeqStmt) else func.body
        assert isinstance(outermost, tirx.IfThenElse)
