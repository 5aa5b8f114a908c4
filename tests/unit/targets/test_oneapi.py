"""Kernels through OpenCL, run on Intel's OpenCL runtime for processors and compared with onnxruntime."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto as TP
from onnx import helper, numpy_helper

import dscc
from dscc import emit
from dscc.artifact import Artifact
from dscc.errors import ArtifactError, TargetError
from dscc.options import CompileOptions
from dscc.runtime.opencl import locate
from dscc.targets.device import Binary
from dscc.targets.oneapi import compilers
from dscc.targets.oneapi.target import OneAPI

RNG = np.random.default_rng(20)

try:
    locate.library("cpu")
except TargetError as missing:
    pytest.skip(str(missing), allow_module_level=True)


def model(nodes, inputs, outputs, constants=None) -> onnx.ModelProto:
    def infos(values):
        return [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in values.items()]

    graph = helper.make_graph(
        nodes,
        "g",
        infos(inputs),
        infos(outputs),
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def check(proto: onnx.ModelProto, *feeds: dict[str, np.ndarray], tolerance: float = 1e-5) -> dscc.Artifact:
    """Compile, run on every feed, compare with onnxruntime; the artifact."""
    artifact = dscc.compile(proto, target="oneapi:cpu")
    module = artifact.load()
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for feed in feeds:
        for got, want in zip(module.run(None, feed), session.run(None, feed), strict=True):
            assert got.shape == want.shape and got.dtype == want.dtype
            largest = np.abs(want.astype(np.float64)).max(initial=0)
            np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * largest)
    return artifact


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def test_symbolic_product_and_softmax():
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Add", ["a", "b"], ["s"]),
        helper.make_node("Softmax", ["s"], ["y"], axis=-1),
    ]
    proto = model(
        nodes, {"x": (TP.FLOAT, ["n", 37])}, {"y": (TP.FLOAT, ["n", 21])}, {"w": normal(37, 21), "b": normal(21)}
    )
    artifact = check(proto, {"x": normal(5, 37)}, {"x": normal(1, 37)}, {"x": normal(130, 37)})
    assert artifact.manifest.device["kind"] == "opencl"
    assert not any(kernel["rule"].startswith("host") for kernel in artifact.manifest.kernels["functions"].values())


def test_convolution_with_symbolic_size():
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["y"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    ]
    constants = {"w": normal(8, 3, 3, 3), "b": normal(8)}
    proto = model(nodes, {"x": (TP.FLOAT, [1, 3, "h", "w"])}, {"y": (TP.FLOAT, [1, 8, "a", "b_"])}, constants)
    check(proto, {"x": normal(1, 3, 17, 29)}, {"x": normal(1, 3, 64, 32)})


def test_what_the_host_has_to_do():
    """A sort and data-dependent sizes run on the host, with copies before and after."""
    nodes = [
        helper.make_node("Exp", ["x"], ["e"]),
        helper.make_node("TopK", ["e", "k"], ["v", "i"]),
        helper.make_node("Mul", ["v", "v"], ["y"]),
        helper.make_node("Greater", ["e", "one"], ["g"]),
        helper.make_node("NonZero", ["g"], ["z"]),
    ]
    outputs = {"y": (TP.FLOAT, ["n", 3]), "i": (TP.INT64, ["n", 3]), "z": (TP.INT64, [2, "count"])}
    constants = {"k": np.array([3]), "one": np.float32(1)}
    proto = model(nodes, {"x": (TP.FLOAT, ["n", 9])}, outputs, constants)
    check(proto, {"x": normal(4, 9)}, {"x": normal(7, 9)})


def test_branches():
    def branch(name: str, operator: str) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(name, TP.FLOAT, ["n"])
        return helper.make_graph([helper.make_node(operator, ["x", "w"], [name])], name, [], [out])

    nodes = [
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Greater", ["s", "zero"], ["c"]),
        helper.make_node("If", ["c"], ["t"], then_branch=branch("a", "Add"), else_branch=branch("b", "Mul")),
        helper.make_node("Tanh", ["t"], ["y"]),
    ]
    proto = model(
        nodes, {"x": (TP.FLOAT, ["n"])}, {"y": (TP.FLOAT, ["n"])}, {"zero": np.float32(0), "w": np.float32(3)}
    )
    check(proto, {"x": np.abs(normal(6))}, {"x": -np.abs(normal(4))})


def test_loop_carries_and_stacks():
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "w"], ["next"]),
            helper.make_node("ReduceSum", ["next"], ["row"], keepdims=0),
            helper.make_node("Identity", ["go"], ["going"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TP.INT64, []),
            helper.make_tensor_value_info("go", TP.BOOL, []),
            helper.make_tensor_value_info("state", TP.FLOAT, ["n", 4]),
        ],
        [
            helper.make_tensor_value_info("going", TP.BOOL, []),
            helper.make_tensor_value_info("next", TP.FLOAT, ["n", 4]),
            helper.make_tensor_value_info("row", TP.FLOAT, []),
        ],
    )
    proto = model(
        [helper.make_node("Loop", ["trips", "", "x"], ["y", "rows"], body=body)],
        {"x": (TP.FLOAT, ["n", 4]), "trips": (TP.INT64, [])},
        {"y": (TP.FLOAT, ["n", 4]), "rows": (TP.FLOAT, ["t"])},
        {"w": normal(4, 4)},
    )
    check(proto, {"x": normal(3, 4), "trips": np.array(4)}, {"x": normal(2, 4), "trips": np.array(0)})


def test_verify_of_the_artifact_itself():
    proto = model([helper.make_node("Sigmoid", ["x"], ["y"])], {"x": (TP.FLOAT, [300])}, {"y": (TP.FLOAT, [300])})
    artifact = dscc.compile(proto, target="oneapi")
    assert artifact.manifest.check["outputs"]
    assert artifact.manifest.target == "oneapi:cpu"


def rules(artifact: dscc.Artifact) -> list[str]:
    return [kernel["rule"] for kernel in artifact.manifest.kernels["functions"].values()]


def test_products():
    """Sizes of tiles and others, a weight stored by columns, and products of two inputs."""
    tanh = helper.make_node("Tanh", ["a"], ["y"])
    product = helper.make_node("MatMul", ["x", "w"], ["a"])
    turned = [
        helper.make_node("Transpose", ["v"], ["w"], perm=[1, 0]),
        product,
    ]
    one = {"y": (TP.FLOAT, None)}
    proto = model([product, tanh], {"x": (TP.FLOAT, ["n", 70])}, one, {"w": normal(70, 50)})
    assert rules(check(proto, *({"x": normal(n, 70)} for n in (1, 3, 64, 129)))) == ["matmul"]
    proto = model([*turned, tanh], {"x": (TP.FLOAT, ["n", 70])}, one, {"v": normal(50, 70)})
    assert rules(check(proto, {"x": normal(65, 70)})) == ["matmul"]
    inputs = {"x": (TP.FLOAT, ["b", "n", "k"]), "w": (TP.FLOAT, ["b", "k", "m"])}
    proto = model([product, tanh], inputs, one)
    assert rules(check(proto, {"x": normal(2, 5, 33), "w": normal(2, 33, 77)})) == ["matmul"]


@pytest.mark.parametrize(
    ("data", "weight", "attributes", "rule"),
    [
        ((2, 3, 17, 29), (20, 3, 3, 3), {"pads": [1, 1, 1, 1], "strides": [2, 2]}, "conv"),
        ((1, 32, 17, 29), (16, 16, 3, 3), {"pads": [1, 1, 2, 1], "group": 2, "dilations": [2, 1]}, "conv"),
        ((1, 32, 17, 29), (32, 1, 5, 5), {"pads": [2, 2, 2, 2], "group": 32}, "direct"),
        ((1, 8, 31, 7), (48, 8, 1, 1), {}, "matmul"),
        ((1, 4, 5, 6, 7), (3, 4, 2, 2, 2), {}, "conv"),
    ],
)
def test_convolutions(data, weight, attributes, rule):
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], **attributes),
        helper.make_node("HardSigmoid", ["c"], ["y"]),
    ]
    shape = [data[0], data[1], *(f"d{axis}" for axis in range(len(data) - 2))]
    constants = {"w": normal(*weight), "b": normal(weight[0])}
    artifact = check(model(nodes, {"x": (TP.FLOAT, shape)}, {"y": (TP.FLOAT, None)}, constants), {"x": normal(*data)})
    assert rule in rules(artifact)


@pytest.mark.parametrize(
    ("operator", "attributes", "shape", "sizes"),
    [
        ("Softmax", {"axis": -1}, ["n", "k"], [(3, 1000), (3, 7), (1, 1)]),
        ("Softmax", {"axis": 1}, ["n", "k", "m"], [(3, 50, 70), (3, 7, 1)]),
        ("GlobalAveragePool", {}, ["n", 20, "h", "w"], [(3, 20, 17, 9)]),
        ("ReduceMax", {"keepdims": 0}, ["n", 20], [(300, 20)]),
        ("ReduceL2", {"keepdims": 0}, [9, "n"], [(9, 4)]),
    ],
)
def test_rows(operator, attributes, shape, sizes):
    node = helper.make_node(operator, ["x"], ["y"], **attributes)
    proto = model([node], {"x": (TP.FLOAT, shape)}, {"y": (TP.FLOAT, None)})
    assert "rows" in rules(check(proto, *({"x": normal(*size)} for size in sizes)))


def gate() -> onnx.ModelProto:
    """sigmoid(x w), over any number of rows."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Sigmoid", ["a"], ["y"])]
    return model(nodes, {"x": (TP.FLOAT, ["n", 40])}, {"y": (TP.FLOAT, ["n", 30])}, {"w": normal(40, 30)})


def test_spirv_runs(monkeypatch):
    """What GPUs get where `ocloc` is not installed: the processor's runtime takes it too."""

    def finish(self: OneAPI, source: str) -> Binary:
        return compilers.to_spirv(source, "-cl-std=CL3.0")

    monkeypatch.setattr(OneAPI, "finish", finish)
    artifact = check(gate(), {"x": normal(7, 40)})
    assert b"\x03\x02#\x07" in bytes(artifact.member("model.so"))  # SPIR-V's magic number


@pytest.mark.parametrize("arch", ["dg2", "pvc"])
def test_gpus_are_compiled_for_here_and_refused_here(arch):
    artifact = dscc.compile(gate(), target=f"oneapi:{arch}")
    assert artifact.manifest.target == f"oneapi:{arch}" and artifact.manifest.device["class"] == "gpu"
    assert not artifact.manifest.check  # there was nothing to run it on
    with pytest.raises(ArtifactError, match=rf"this artifact is for oneapi:{arch}: .*OpenCL"):
        artifact.load()


def test_another_driver_is_refused():
    artifact = dscc.compile(gate(), target="oneapi:cpu")
    device = {**artifact.manifest.device, "driver": "1.0"}
    other: Artifact = artifact._replace(manifest=artifact.manifest._replace(device=device))
    with pytest.raises(ArtifactError, match=r"was compiled for '.*' with driver 1\.0, and here is"):
        other.load()


def test_a_device_can_be_chosen_and_is_named():
    artifact = dscc.compile(gate(), target="oneapi:cpu")
    name = artifact.manifest.device["device"]
    assert artifact.load(device=name[:4]).device == name
    with pytest.raises(ArtifactError, match=r"device .*'TeraFlop 9000'|already uses the OpenCL device"):
        artifact.load(device="TeraFlop 9000")


def test_more_than_the_memory_is_a_clear_error():
    node = helper.make_node("Expand", ["x", "shape"], ["y"])
    proto = model([node], {"x": (TP.FLOAT, [1]), "shape": (TP.INT64, [2])}, {"y": (TP.FLOAT, ["a", "b"])})
    module = dscc.compile(proto, target="oneapi:cpu").load()
    with pytest.raises(dscc.DsccError, match="not enough memory"):
        module(np.ones(1, np.float32), np.array([1 << 20, 1 << 22]))


def test_what_it_shows():
    options = CompileOptions(target="oneapi:dg2")
    source = emit.emit(gate(), options, "source")
    assert "__kernel void" in source and "barrier(CLK_LOCAL_MEM_FENCE)" in source
    assert isinstance(emit.emit(gate(), options, "binary"), bytes)


def test_unknown_architecture():
    with pytest.raises(TargetError, match="unknown architecture 'oneapi:dg3'; did you mean 'oneapi:dg"):
        OneAPI.resolve("dg3")
