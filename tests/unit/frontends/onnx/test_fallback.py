"""Nodes without a compiled form run on another engine, in one region where they are connected."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import dscc
from dscc import onnx_backend
from dscc.errors import ArtifactError, FrontendError, InputError, UnsupportedError
from dscc.frontends.onnx import registry
from dscc.frontends.onnx.cut import FallbackWarning

from .conftest import build

node = helper.make_node
TEXT = """<ir_version: 10, opset_import: ["" : 20]> agraph (float[n] x) => (float[n] y) { y = Erf(x) }"""
RNG = np.random.default_rng(5)


@pytest.fixture(autouse=True)
def no_converter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever has a converter by now: these operators have none here."""
    find = registry.find
    gone = {"Erf", "Det", "Unique", "SplitToSequence", "Cast"}
    monkeypatch.setattr(registry, "find", lambda domain, op, opset: None if op in gone else find(domain, op, opset))


def compiled(model: onnx.ModelProto, regions: int) -> Any:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        artifact = dscc.compile(model)
    said = [str(warning.message) for warning in caught if warning.category is FallbackWarning]
    assert len(said) == len(artifact.manifest.fallback) == len(artifact.manifest.summary["fallback"]) == regions
    assert all(text.startswith("not compiled: ") for text in said)
    return artifact


def agrees(model: onnx.ModelProto, regions: int, *inputs: Any) -> Any:
    """Compile, run and compare with the reference evaluator."""
    artifact = compiled(model, regions)
    names = [info.name for info in model.graph.input]
    expected = onnx.reference.ReferenceEvaluator(model).run(None, dict(zip(names, inputs, strict=True)))
    for got, want in zip(artifact.load()(*inputs), expected, strict=True):
        assert type(got) is type(np.asarray(want)) and got.dtype == np.asarray(want).dtype
        np.testing.assert_allclose(got.astype(np.float64), np.asarray(want).astype(np.float64), rtol=1e-5, atol=1e-6)
    return artifact


def x(*shape: int) -> np.ndarray[Any, Any]:
    return RNG.standard_normal(shape).astype(np.float32)


def test_one_region_for_connected_nodes_and_symbolic_shapes() -> None:
    nodes = [
        node("Relu", ["x"], ["a"]),
        node("Erf", ["a"], ["b"]),
        node("Erf", ["b"], ["c"]),
        node("Transpose", ["c"], ["d"], perm=[1, 0]),
        node("MatMul", ["c", "d"], ["y"]),
    ]
    model = build(nodes, {"x": ("f", ("n", "m"))})
    artifact = agrees(model, 1, x(3, 5))
    (region,) = artifact.manifest.fallback
    assert region["what"] == "2 nodes from 1 to 2 (2 Erf)"
    assert (region["inputs"], region["outputs"]) == (["float32"], ["float32"])
    assert region["cost"] == "each run hands over float32[n, m] and copies float32[n, m]"
    assert artifact.manifest.outputs[0].shape == ("n", "n")  # the region keeps the names of dimensions
    module = artifact.load()
    assert module(x(1, 1))[0].shape == (1, 1)
    assert bytes(artifact.image) == bytes(compiled(model, 1).image)


def test_a_compiled_node_between_two_keeps_them_apart() -> None:
    nodes = [
        node("Erf", ["x"], ["a"]),
        node("Neg", ["a"], ["b"]),
        node("Add", ["a", "b"], ["s"]),
        node("Erf", ["s"], ["y"]),
    ]
    agrees(build(nodes, {"x": ("f", ("n", 4))}, outputs=["y", "a"]), 2, x(2, 4))


def test_weights_are_inside_of_a_region() -> None:
    nodes = [node("MatMul", ["x", "w"], ["p"]), node("Det", ["w"], ["d"]), node("Mul", ["p", "d"], ["y"])]
    # Det of a constant is computed while compiling: nothing of it is left.
    assert agrees(build(nodes, {"x": ("f", ("n", 3))}, {"w": x(3, 3)}), 0, x(2, 3)).manifest.fallback == ()
    nodes = [node("Gather", ["w", "i"], ["g"]), node("Erf", ["g"], ["y"])]
    artifact = agrees(build(nodes, {"i": ("i", ("n",))}, {"w": x(3, 3)}), 1, np.array([2, 0]))
    assert artifact.manifest.summary["weight_bytes"] == 36


def test_an_output_of_unknown_length() -> None:
    nodes = [node("Unique", ["x"], ["u"], sorted=1), node("Add", ["u", "u"], ["y"])]
    artifact = agrees(build(nodes, {"x": ("f", ("n",))}), 1, np.array([3, 1, 3, 2, 1], np.float32))
    assert artifact.load()(np.zeros(4, np.float32))[0].shape == (1,)


def test_a_subgraph_goes_with_its_node() -> None:
    branch = [
        helper.make_graph([node(op, ["a"], [f"{op}_y"])], op, [], [helper.make_empty_tensor_value_info(f"{op}_y")])
        for op in ("Erf", "Neg")
    ]
    nodes = [
        node("Relu", ["x"], ["a"]),
        node("If", ["c"], ["b"], then_branch=branch[0], else_branch=branch[1]),
        node("Abs", ["b"], ["y"]),
    ]
    model = build(nodes, {"x": ("f", ("n", 2)), "c": ("b", ())})
    for condition in (True, False):
        artifact = agrees(model, 1, x(3, 2), np.array(condition))
    assert artifact.manifest.fallback[0]["what"] == "node 1 (If)"


def test_types_that_numpy_lacks() -> None:
    to = {"to": TensorProto.BFLOAT16}
    nodes = [node("Neg", ["x"], ["n"]), node("Cast", ["n"], ["y"], **to)]
    artifact = compiled(build(nodes, {"x": ("f", (3,))}), 1)
    (y,) = artifact.load()(np.array([1, 2.5, -3], np.float32))
    assert y.dtype == ml_dtypes.bfloat16 and y.tolist() == [-1, -2.5, 3]


def test_sequences_between_compiled_nodes_and_a_region() -> None:
    nodes = [
        node("SplitToSequence", ["x"], ["s"], axis=0, keepdims=1),
        node("SequenceAt", ["s", "i"], ["a"]),
        node("Neg", ["a"], ["y"]),
    ]
    model = build(nodes, {"x": ("f", ("n", 2)), "i": ("i", ())}, outputs=["y"])
    artifact = compiled(model, 1)
    assert artifact.manifest.fallback[0]["outputs"] == ["seq:float32"]
    data = x(3, 2)
    np.testing.assert_array_equal(artifact.load()(data, np.array(1))[0], -data[1:2])


def strings(*items: str) -> np.ndarray[Any, Any]:
    return np.array(items, dtype=object)


def string_info(name: str, shape: Sequence[int | str] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.STRING, shape)


def test_strings_at_every_border() -> None:
    """As inputs, weights, outputs, between regions, and beside numbers that compiled code computes with."""
    nodes = [
        node("StringConcat", ["a", "w"], ["b"]),
        node("StringSplit", ["b"], ["parts", "count"], delimiter="-"),
        node("Mul", ["count", "two"], ["doubled"]),
        node("Equal", ["parts", "parts"], ["same"]),
    ]
    model = build(nodes, {}, {"two": np.array(2)}, outputs=["doubled", "parts", "same", "a"])
    model.graph.input.append(string_info("a", ["n"]))
    model.graph.initializer.append(onnx.numpy_helper.from_array(strings("-z\u00e9"), "w"))
    artifact = compiled(model, 1)
    assert artifact.manifest.fallback[0]["inputs"] == ["string"]
    assert [str(spec) for spec in artifact.manifest.inputs] == ["string(a_0)"]
    module = artifact.load()
    assert module.get_inputs()[0].type == "tensor(string)"
    doubled, parts, same, a = module(strings("x-y", "", "q"))
    assert doubled.tolist() == [6, 4, 4]
    assert parts.tolist() == [["x", "y", "z\u00e9"], ["", "z\u00e9", ""], ["q", "z\u00e9", ""]]
    assert same.all() and same.shape == (3, 3)
    assert a.tolist() == ["x-y", "", "q"]
    assert module(np.array(["one"]))[1].tolist() == [["one", "z\u00e9"]]
    with pytest.raises(InputError, match=r"input 'a': expected string\(a_0\), got float64"):
        module(np.zeros(3))


def test_strings_between_two_regions() -> None:
    nodes = [
        node("StringConcat", ["a", "a"], ["b"]),
        node("StringSplit", ["b"], ["parts", "count"], delimiter=" "),
        node("Neg", ["count"], ["n"]),
        node("Cast", ["n"], ["s"], to=TensorProto.STRING),
        node("StringConcat", ["b", "s"], ["y"]),
    ]
    model = build(nodes, {}, outputs=["y"])
    model.graph.input.append(string_info("a", [2]))
    artifact = compiled(model, 2)
    assert artifact.load()(strings("a b", "c"))[0].tolist() == ["a ba b-3", "cc-1"]


def test_encoded_strings() -> None:
    from dscc.runtime.strings import decode, encode

    for array in (strings("a", "", "\u20ac" * 3).reshape(3, 1), strings().reshape(0, 4), np.array("one", dtype=object)):
        again = decode(encode(array).tobytes())
        assert again.shape == array.shape and again.tolist() == array.tolist()
    with pytest.raises(TypeError, match="expected strings, got int"):
        encode(np.array([1], dtype=object))


def refused(model: onnx.ModelProto, **options: Any) -> str:
    with pytest.raises(FrontendError) as caught:
        dscc.compile(model, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_without_the_fallback_all_nodes_are_named() -> None:
    nodes = [node("Erf", ["x"], ["a"]), node("Neg", ["a"], ["b"]), node("Erf", ["b"], ["y"], name="last")]
    said = refused(build(nodes, {"x": ("f", ("n", 4))}), fallback=False)
    assert said.startswith("operator 'Erf' of domain 'ai.onnx', version 20, is not supported (at node 0 (Erf))")
    assert said.endswith(
        "; nor is there a compiled form of node 2 'last' (Erf); "
        "leave out --no-fallback to run such nodes on another engine"
    )
    with pytest.raises(UnsupportedError):
        onnx_backend.DsccBackend.prepare(onnx.parser.parse_model(TEXT), fallback=False)
    assert not onnx_backend.is_compatible(onnx.parser.parse_model(TEXT), fallback=False)


def test_an_operator_that_no_engine_knows() -> None:
    model = build([node("Frobnicate", ["x"], ["y"], domain="com.example")], {"x": ("f", ("n", 4))})
    model.opset_import.add(domain="com.example", version=1)
    said = refused(model)
    assert said.startswith("operator 'Frobnicate' of domain 'com.example', version 1, is not supported")
    assert "onnxruntime: " in said and "reference: " in said


def test_what_is_wrong_with_the_model_is_no_matter_for_the_fallback() -> None:
    nodes = [node("Erf", ["x"], ["a"]), node("Transpose", ["a"], ["y"], perm=[0, 5])]
    assert "Transpose" in refused(build(nodes, {"x": ("f", ("n", 4))}))
    assert "is used before any node" in refused(build([node("Erf", ["nowhere"], ["y"])], {"x": ("f", ("n", 4))}))


def test_an_engine_that_fails_is_an_error_of_the_input() -> None:
    artifact = compiled(build([node("Det", ["x"], ["y"])], {"x": ("f", ("n", "m"))}), 1)
    module = artifact.load()
    np.testing.assert_allclose(module(np.eye(3, dtype=np.float32))[0], 1)
    with pytest.raises(dscc.DsccError, match=r"the model cannot run on inputs 'x' \(2, 3\): .*"):
        module(x(2, 3))


@pytest.mark.parametrize("names", [("onnxruntime",), ("onnxruntime", "onnx")])
def test_an_engine_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, names: Sequence[str]) -> None:
    from dscc.runtime import engines

    artifact = compiled(build([node("Erf", ["x"], ["y"])], {"x": ("f", ("n",))}), 1)
    assert artifact.manifest.fallback[0]["engine"] == "onnxruntime"
    find = engines.importlib.util.find_spec
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: None if name in names else find(name))
    with pytest.raises(
        ArtifactError,
        match=r"this artifact runs node 0 \(Erf\) on onnxruntime, and the package 'onnxruntime' is not installed; "
        "pip install onnxruntime",
    ):
        artifact.load()
    model = build([node("Erf", ["x"], ["y"])], {"x": ("f", ("n",))})
    if len(names) == 1:
        assert agrees(model, 1, x(5)).manifest.fallback[0]["engine"] == "reference"
    else:
        assert "onnxruntime is not installed; reference is not installed" in refused(model)


def test_the_evaluator_is_not_used_where_it_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    from dscc.runtime import engines

    monkeypatch.setattr(registry, "find", lambda domain, op, opset: None)
    find = engines.importlib.util.find_spec
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find(name))
    said = refused(build([node("GlobalMaxPool", ["x"], ["y"])], {"x": ("f", ("n", 3, 5))}))
    assert "reference: onnx's reference evaluator is wrong at GlobalMaxPool 'y': it takes all data for images" in said
