"""The example target, installed: what it emits is compiled by the C compiler, loaded and run."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import dscc
from dscc import emit
from dscc.errors import TargetError
from dscc.options import CompileOptions

OPTIONS = CompileOptions(target="c", jobs=2)


@pytest.fixture(scope="module")
def model() -> object:
    """softmax(tanh(x @ w)), x: (n, 8)."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Tanh", ["a"], ["b"]),
        helper.make_node("Softmax", ["b"], ["y"]),
    ]
    w = np.random.default_rng(0).standard_normal((8, 5)).astype("float32")
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", d]) for n, d in (("x", 8), ("y", 5))]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], [numpy_helper.from_array(w, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def test_it_runs(model: object, tmp_path: Path) -> None:
    artifact = dscc.compile(model, OPTIONS)
    assert artifact.manifest.target == "c:portable"
    assert artifact.manifest.plugins == {"target-c": "1.0.0"}
    artifact.save(tmp_path / "model.dscc")
    module = dscc.load(tmp_path / "model.dscc")
    w = numpy_helper.to_array(model.graph.initializer[0])  # type: ignore[attr-defined]
    for n in (1, 3, 17):
        x = np.random.default_rng(n).standard_normal((n, 8)).astype("float32")
        e = np.exp(np.tanh(x @ w))
        (y,) = module.run(["y"], {"x": x})
        np.testing.assert_allclose(y, e / e.sum(axis=1, keepdims=True), rtol=1e-5)


def test_its_source_is_c(model: object) -> None:
    source = emit.emit(model, OPTIONS, "source")
    assert "#include <math.h>" in source and "TVM_DLL int32_t __tvm_ffi_" in source
    with pytest.raises(TargetError, match="target 'c:portable' has no form 'asm'; it has: ir, tir, source"):
        emit.emit(model, OPTIONS, "asm")


def test_an_architecture_that_it_does_not_have() -> None:
    with pytest.raises(TargetError, match="unknown architecture of target 'c' 'portabel'; did you mean 'portable'"):
        dscc.compile("unused.onnx", target="c:portabel")
