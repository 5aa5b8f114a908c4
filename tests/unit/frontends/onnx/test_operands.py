"""Inputs and attributes that an operator does not take: one line each, never a traceback."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import dscc
from dscc.errors import FrontendError, InputError

from .conftest import build, load, noise

N = helper.make_node
INPUTS: Mapping[str, Any] = {"x": ("f", (2, 3)), "i": ("i", (2, 3)), "s": ("f", ()), "u": ("u8", (2, 3))}
MS = "com.microsoft"


def refused(nodes: list[onnx.NodeProto], message: str, weights: Any = None, opset: int = 20) -> None:
    model = build(nodes, INPUTS, weights, opset=opset)
    model.opset_import.append(helper.make_opsetid(MS, 1))
    with pytest.raises(FrontendError, match=message) as caught:
        load(model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (N("Add", ["x", "i"], ["y"], name="a"),
         r"node 0 'a' \(Add\): input 1 \('B'\) is of type tensor\(int64\), and input 0 of type tensor\(float\)"),
        (N("Concat", ["x", "i"], ["y"], axis=0), r"input 1 \('inputs'\) is of type tensor\(int64\), and input 0"),
        (N("Where", ["x", "x", "x"], ["y"]), r"input 0 \('condition'\) is of type tensor\(float\); the op"),
        (N("Sqrt", ["i"], ["y"]), r"input 0 \('X'\) is of type tensor\(int64\); the operator takes .*tensor\(float\)"),
        (N("Reshape", ["x", "s"], ["y"]), r"input 1 \('shape'\) is of type tensor\(float\); the operator takes"),
        (N("Softmax", ["u"], ["y"]), r"is of type tensor\(uint8\); the operator takes"),
        (N("Gather", ["x", "x"], ["y"]), r"input 1 \('indices'\) is of type tensor\(float\)"),
    ],
)  # fmt: skip
def test_types(node: onnx.NodeProto, message: str) -> None:
    refused([node], message)


def test_a_type_that_only_a_later_version_takes_is_let_pass() -> None:
    """Exporters write it, and other engines run it: Max of opset 11 knows no integers."""
    model = build([N("Max", ["i", "i"], ["y"])], INPUTS, opset=11)
    assert "int64" in str(load(model)["main"].ret_ty)


def test_a_missing_input_among_any_number() -> None:
    refused([N("Min", ["x", "", "x"], ["y"], name="m")], r"node 0 'm' \(Min\): input 1 \('data_0'\) is missing")


def test_an_operator_that_came_later() -> None:
    node = N("RMSNormalization", ["x"], ["y"], name="n")
    refused([node], r"node 0 'n' \(RMSNormalization\): the operator came with opset 23, and the model imports 20")


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (N("MatMul", ["s", "x"], ["y"], name="m"), r"node 0 'm' \(MatMul\): a scalar has no matrix product"),
        (N("Transpose", ["x"], ["y"], perm=[0, 7]), "do not fit the operator"),
        (N("Gather", ["s", "i"], ["y"], axis=1), "axis|rank"),
        (N("DepthToSpace", ["x"], ["y"], blocksize=2), "do not fit the operator|rank"),
        (N("LSTM", ["x", "x", "x"], ["y"], hidden_size=3), "do not fit the operator|rank"),
    ],
)  # fmt: skip
def test_ranks(node: onnx.NodeProto, message: str) -> None:
    refused([node], message)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (N("Gelu", [], ["y"], domain=MS, name="g"), r"node 0 'g' \(com.microsoft.Gelu\): it has 0 inputs"),
        (N("Gelu", ["x", "x"], ["y"], domain=MS), "it has 2 inputs; the operator takes 1"),
        (N("BiasGelu", ["x", ""], ["y"], domain=MS), r"input 1 \('bias'\) is missing; the operator requires it"),
        (N("FusedMatMul", ["x", "x"], ["y"], domain=MS, alpha="one", transB=1),
         "attribute 'alpha' is of type STRING, expected FLOAT"),
        (N("MatMulNBits", ["x", "w", "w"], ["y"], domain=MS, K=[3], N=4, bits=4, block_size=16),
         "attribute 'K' is of type INTS, expected INT"),
        (N("RotaryEmbedding", ["s", "i", "x", "x"], ["y"], domain=MS), "do not fit the operator|rank"),
    ],
)  # fmt: skip
def test_operators_of_other_domains(node: onnx.NodeProto, message: str) -> None:
    refused([node], message, {"w": np.zeros((4, 1, 8), np.uint8)})


def test_an_attribute_of_a_function_that_its_call_gives_in_another_type() -> None:
    elu = N("Elu", ["a"], ["b"])
    elu.attribute.add(name="alpha", type=onnx.AttributeProto.FLOAT, ref_attr_name="alpha")
    function = helper.make_function("local", "F", ["a"], ["b"], [elu], [helper.make_opsetid("", 20)], ["alpha"])
    model = build([N("F", ["x"], ["y"], domain="local", alpha="much")], INPUTS, functions=[function])
    with pytest.raises(FrontendError, match=r"alpha"):
        load(model)


@pytest.mark.parametrize("inner", ["y", "x"])
def test_a_name_of_a_branch_that_is_also_outside(inner: str) -> None:
    """Branches name their results as the node does, or even as what they take."""

    def branch(op: str) -> onnx.GraphProto:
        nodes = [N(op, ["x"], ["t"]), N("Neg", ["t"], [inner])]
        return helper.make_graph(nodes, op, [], [helper.make_tensor_value_info(inner, 1, [2, 3])])

    nodes = [N("Exp", ["x"], ["e"]), N("If", ["c"], ["y"], then_branch=branch("Abs"), else_branch=branch("Relu")),
             N("Add", ["y", "e"], ["z"])]  # fmt: skip
    model = build(nodes, {"x": ("f", (2, 3)), "c": ("b", ())})
    module = dscc.compile(model, jobs=1).load()
    x = noise(2, 3)
    for condition, want in ((True, -np.abs(x)), (False, -np.maximum(x, 0))):
        (got,) = module.run(None, {"x": x, "c": np.array(condition)})
        np.testing.assert_allclose(got, want + np.exp(x), rtol=1e-5)


HUGE = 2**40


@pytest.mark.parametrize(
    ("node", "weight", "message"),
    [
        (N("Expand", ["x", "w"], ["y"], name="e"), [HUGE, 2, 3],
         r"node 0 'e' \(Expand\): its output 'y' has shape .*'2', '3'\], 6597069766656 elements or more; allowed"),
        (N("ConstantOfShape", ["w"], ["y"], name="c"), [-5],
         r"node 0 'c' \(ConstantOfShape\): its output 'y' has shape \['-5'\]; a dimension may not be negative"),
        (N("ConstantOfShape", ["w"], ["y"]), [2**62, 2**62], "elements or more; allowed"),
        (N("Tile", ["x", "w"], ["y"]), [2**31, 2**31], "elements or more; allowed"),
        (N("Pad", ["x", "w"], ["y"]), [HUGE, 0, 0, 0], "elements or more; allowed"),
        (N("Range", ["zero", "w0", "one"], ["y"]), 2**62, "elements or more; allowed"),
        (N("Range", ["fzero", "w0", "fone"], ["y"]), np.float32(np.inf), "are no finite numbers"),
        (N("Einsum", ["x"], ["y"], equation="ij->" + "i" * 60), [0], "elements or more; allowed"),
        (N("MaxPool", ["x4"], ["y"], kernel_shape=[2**31] * 2, pads=[2**30] * 4), [0], "exceeds range of"),
    ],
)  # fmt: skip
def test_sizes(node: onnx.NodeProto, weight: Any, message: str) -> None:
    weights = {"zero": np.array(0), "one": np.array(1), "fzero": np.array(0, "f"), "fone": np.array(1, "f"),
               "w": np.array(weight), "w0": np.array(weight), "x4": np.zeros((1, 1, 4, 4), "f")}  # fmt: skip
    taken = {name: array for name, array in weights.items() if name in node.input and name != "x4"}
    model = build([node], {**INPUTS, "x4": ("f", (1, 1, 4, 4))}, taken)
    with pytest.raises(FrontendError, match=message):
        load(model)


@pytest.mark.parametrize("limit", [np.inf, -np.inf, np.nan, 3.5, -2.0])
def test_a_range_to_a_computed_bound(limit: float) -> None:
    weights = {"zero": np.array(0, "f"), "one": np.array(1, "f")}
    model = build([N("Range", ["zero", "s", "one"], ["y"])], {"s": ("f", ())}, weights)
    module = dscc.compile(model, jobs=1).load()
    if limit == np.inf:
        with pytest.raises(InputError, match="memory"):
            module.run(None, {"s": np.array(limit, "f")})
        return
    (got,) = module.run(None, {"s": np.array(limit, "f")})
    assert got.tolist() == ([0, 1, 2, 3] if limit == 3.5 else [])


@pytest.mark.parametrize("node", [N("EyeLike", ["x"], ["y"], dtype=HUGE), N("Cast", ["shape"], ["y"], to=HUGE)])
def test_a_type_that_does_not_exist(node: onnx.NodeProto) -> None:
    refused([N("Shape", ["x"], ["shape"]), node], f"has element type '{HUGE}'|do not fit the operator")


def test_lengths_of_sequences_that_do_not_fit() -> None:
    """Neither their number nor their values make the kernel read past the end."""
    refused([N("ReverseSequence", ["x", "w"], ["y"])], "the number of lengths is 1, expected 3", {"w": np.array([2])})
    refused([N("ReverseSequence", ["x", "i"], ["y"])], "the lengths have rank 2, which must be 1")
    refused([N("ReverseSequence", ["x", "w"], ["y"], batch_axis=0)], "must not be the same", {"w": np.array([2, 2])})
    model = build([N("ReverseSequence", ["x", "n"], ["y"])], {"x": ("f", (2, 3)), "n": ("i", ("k",))})
    module = dscc.compile(model, jobs=1).load()
    x = noise(2, 3)
    (got,) = module.run(None, {"x": x, "n": np.array([2, 1, 2**40])})
    np.testing.assert_array_equal(got, np.stack([x[::-1, 0], x[:, 1], x[::-1, 2]], axis=1))
    with pytest.raises(InputError):
        module.run(None, {"x": x, "n": np.array([2])})


@pytest.mark.parametrize("opset", [11, 16, 17])
def test_an_operator_that_onnxruntime_had_before_the_standard(opset: int) -> None:
    """Its tools write LayerNormalization into models of any opset."""
    model = build([N("LayerNormalization", ["x", "w"], ["y"], axis=-1)], INPUTS, {"w": noise(3)}, opset=opset)
    x = noise(2, 3)
    (got,) = dscc.compile(model, fallback=False, jobs=1).load().run(None, {"x": x, **_others()})
    want = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5) * noise(3)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def _others() -> dict[str, Any]:
    """The inputs of INPUTS that a model does not use."""
    return {"i": np.zeros((2, 3), np.int64), "s": np.zeros((), "f"), "u": np.zeros((2, 3), np.uint8)}
