"""Models that break a rule of the standard: one line each, with the node's name and number."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import dscc
from dscc.errors import FrontendError
from dscc.frontends.onnx.check import check

from .conftest import build, load

N = helper.make_node
X = {"x": ("f", (2, 3))}


def refused(model: onnx.ModelProto, message: str) -> None:
    with pytest.raises(FrontendError, match=message) as caught:
        load(model)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1100


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([N("Add", ["x", "b"], ["a"], name="one"), N("Relu", ["a"], ["b"])],
         r"node 0 'one' \(Add\): 'b' depends on this node's own output, by way of node 1 \(Relu\)"),
        ([N("Relu", ["a"], ["a"], name="self")], "node 0 'self' .*: 'a' depends on this node's own output"),
        ([N("Relu", ["a"], ["b"], name="early"), N("Relu", ["x"], ["a"], name="late")],
         "node 0 'early' .*: 'a' is made only later, by node 1 'late'"),
        ([N("Relu", ["gone"], ["y"], name="r")], "node 0 'r' .*: 'gone' is used before any node or input makes it"),
        ([N("Relu", ["x"], ["y"]), N("Abs", ["x"], ["y"], name="twice")],
         r"node 1 'twice' \(Abs\): its output 'y' is the name of another value"),
        ([N("Relu", ["x"], ["x"], name="over")], "its output 'x' is the name of another value"),
        ([N("Split", ["x"], ["y", "y"], name="s", num_outputs=2)], "node 0 's' .* 'y' is the name of another value"),
        ([N("Softmax", ["x"], ["y"], name="s", axis=1.5)], "node 0 's' .*'axis' is of type FLOAT, expected INT"),
        ([N("Concat", ["x", "x"], ["y"], name="c")], "node 0 'c' .*: attribute 'axis' is missing"),
        ([N("Add", ["x"], ["y"], name="a")], "node 0 'a' .* has 1 inputs; the operator takes 2"),
        ([N("Relu", ["x", "x"], ["y"], name="a")], "node 0 'a' .* has 2 inputs; the operator takes 1"),
        ([N("Relu", ["x"], ["y", "z"], name="a")], "has 2 outputs; the operator takes 1"),
        ([N("Concat", [], ["y"], name="a", axis=0)], "has 0 inputs; the operator takes 1 or more"),
        ([N("MatMul", ["x", ""], ["y"], name="a")], r"node 0 'a' .*: input 1 \('B'\) is missing"),
        ([N("Reshape", ["x", "s"], ["y"], name="a")], "'s' is used before"),
    ],
)  # fmt: skip
def test_nodes(nodes: list[onnx.NodeProto], message: str) -> None:
    refused(build(nodes, X), message)


def test_an_attribute_given_twice() -> None:
    node = N("Softmax", ["x"], ["y"], name="s", axis=1)
    node.attribute.add().CopyFrom(node.attribute[0])
    refused(build([node], X), "node 0 's' .*: attribute 'axis' is given 2 times")


def test_an_attribute_without_a_type_gets_the_one_it_has() -> None:
    node = N("Softmax", ["x"], ["y"], axis=1)
    node.attribute[0].ClearField("type")
    assert load(build([node], X)).script() == load(build([N("Softmax", ["x"], ["y"], axis=1)], X)).script()
    node.attribute[0].ClearField("i")
    node.attribute[0].ClearField("type")
    refused(build([node], X), "attribute 'axis' has no type")


def test_duplicate_names_of_inputs_and_weights() -> None:
    model = build([N("Add", ["x", "w"], ["y"])], X, {"w": np.zeros(3, np.float32)})
    model.graph.initializer.add().CopyFrom(model.graph.initializer[0])
    refused(model, "two weights are called 'w'")
    model = build([N("Relu", ["x"], ["y"])], X)
    model.graph.input.add().CopyFrom(model.graph.input[0])
    refused(model, "two inputs are called 'x'")


def test_an_output_that_nothing_makes() -> None:
    refused(build([N("Relu", ["x"], ["y"])], X, outputs=["z"]), "nothing makes 'z'")


@pytest.mark.parametrize(("dims", "message"), [((-5, 3), "a dimension of -5"), ((2**40, 2**40), "elements; allowed")])
def test_dimensions_of_inputs(dims: Any, message: str) -> None:
    refused(build([N("Relu", ["x"], ["y"])], {"x": ("f", dims)}), f"input 'x' has .*{message}")


def test_minus_one_is_how_exporters_write_an_unknown_dimension() -> None:
    module = load(build([N("Relu", ["x"], ["y"])], {"x": ("f", (-1, 3))}))
    assert "x_0" in str(module["main"].params[0].ty)


@pytest.mark.parametrize(
    ("dims", "content", "message"),
    [
        ([2, -3], 24, r"has shape \[2, -3\]; a dimension may not be negative"),
        ([2, 3], 23, r"has 23 bytes, but its shape \[2, 3\] and type ask for 24"),
        ([2**62, 4], 24, "elements; allowed"),
        ([2**21, 2**21], 0, "elements; allowed"),
    ],
)
def test_weights(dims: list[int], content: int, message: str) -> None:
    model = build([N("Add", ["x", "w"], ["y"])], X, {"w": np.zeros(3, np.float32)})
    tensor: Any = model.graph.initializer[0]
    tensor.ClearField("dims")
    tensor.dims.extend(dims)
    tensor.raw_data = bytes(content)
    refused(model, f"weight 'w' .*{message}")


def test_a_weight_of_a_type_that_does_not_exist() -> None:
    model = build([N("Add", ["x", "w"], ["y"])], X, {"w": np.zeros(3, np.float32)})
    model.graph.initializer[0].data_type = 999
    refused(model, "weight 'w' has element type '999'")


def test_fewer_numbers_than_dims() -> None:
    model = build([N("Add", ["x", "w"], ["y"])], X)
    model.graph.initializer.append(TensorProto(name="w", data_type=1, dims=[2, 3], float_data=[1.0, 2.0]))
    refused(model, "weight 'w' is damaged")


def _function(name: str, calls: list[str]) -> onnx.FunctionProto:
    nodes, value = [], "a"
    for i, callee in enumerate(calls):
        nodes.append(N(callee, [value], [f"v{i}"], domain="local" if callee != "Relu" else ""))
        value = f"v{i}"
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("local", 1)]
    return helper.make_function("local", name, ["a"], [value], nodes, imports)


@pytest.mark.parametrize(
    ("functions", "message"),
    [
        ([("f", ["f"])], "functions of the model call themselves: 'f' -> 'f'"),
        ([("f", ["g"]), ("g", ["Relu", "h"]), ("h", ["f"])], "call themselves: 'f' -> 'g' -> 'h' -> 'f'"),
        ([("f", ["Relu"]), ("f", ["Relu"])], "function 'f' is defined twice"),
        ([("f", ["g0", "g0"]), *((f"g{i}", [f"g{i + 1}"] * 2) for i in range(40)), ("g40", ["Relu"])],
         "nodes when its functions are written out; allowed: 1000000"),
    ],
)  # fmt: skip
def test_functions(functions: list[tuple[str, list[str]]], message: str) -> None:
    made = [_function(*function) for function in functions]
    refused(build([N("f", ["x"], ["y"], domain="local")], X, functions=made), message)


def test_a_function_that_takes_what_nothing_makes() -> None:
    function = helper.make_function(
        "local", "f", ["a"], ["b"], [N("Add", ["a", "w"], ["b"], name="sum")], [helper.make_opsetid("", 20)]
    )
    model = build([N("f", ["x"], ["y"], domain="local")], X, functions=[function])
    refused(model, "in function 'f', node 0 'sum' .*: 'w' is used before")


@pytest.mark.parametrize(("domain", "version"), [("", 999), ("ai.onnx.ml", 99), ("", 0), ("", -3)])
def test_opsets_from_the_future_or_none(domain: str, version: int) -> None:
    model = build([N("Relu", ["x"], ["y"])], X)
    if domain:
        model.opset_import.append(helper.make_opsetid(domain, version))
    else:
        model.opset_import[0].version = version
    refused(model, f"uses opset {version}.*; supported: 1 to")


def test_one_domain_in_two_versions() -> None:
    model = build([N("Relu", ["x"], ["y"])], X)
    model.opset_import.append(helper.make_opsetid("ai.onnx", 13))
    refused(model, "imports versions 20 and 13 of domain 'ai.onnx'")


def _branch(node: onnx.NodeProto) -> onnx.GraphProto:
    return helper.make_graph([node], "branch", [], [helper.make_tensor_value_info(node.output[0], 1, None)])


def test_a_node_of_a_subgraph() -> None:
    good, bad = _branch(N("Relu", ["x"], ["a"])), _branch(N("Relu", ["nothing"], ["b"], name="inner"))
    node = N("If", ["c"], ["y"], name="if", then_branch=good, else_branch=bad)
    message = r"node 0 'if' \(If\), in its subgraph 'else_branch': node 0 'inner' \(Relu\): 'nothing' is used before"
    refused(build([node], X | {"c": ("b", ())}), message)


def test_deeply_nested_subgraphs() -> None:
    """As deep as protobuf can carry them, and no deeper than our walks can go."""
    node = N("Relu", ["x"], ["y"])
    for _ in range(30):
        node = N("If", ["c"], ["y"], then_branch=_branch(node), else_branch=_branch(N("Relu", ["x"], ["y"])))
    check(build([node], X | {"c": ("b", ())}), "the model")
    with pytest.raises(Exception, match=r"MaxDepth|nested more than"):
        for _ in range(10):
            node = N("If", ["c"], ["y"], then_branch=_branch(node), else_branch=_branch(N("Relu", ["x"], ["y"])))
        check(build([node], X | {"c": ("b", ())}), "the model")


def test_axes_without_end() -> None:
    """Each computed number is a symbol; four thousand million took as long."""
    text = """<ir_version: 10, opset_import: ["": 20]> f (float[3, 2] x, int64[4294967296] axes) => (float[n] y) {
    y = ReduceSum(x, axes) }"""
    refused(onnx.parser.parse_model(text), r"the axes \('axes'\) are 4294967296 computed numbers; allowed: 4096")


def test_names_that_are_huge_or_no_text() -> None:
    huge = "n" * 100_000
    module = dscc.compile(build([N("Relu", ["x"], [huge], name=huge), N("Abs", [huge], ["y"])], X), jobs=1).load()
    assert module.run(None, {"x": np.ones((2, 3), np.float32)})[0].shape == (2, 3)
    refused(build([N("Relu", ["gone"], ["y"], name=huge)], X), r"node 0 'nnn.*\.\.\.n+' \(Relu\)")
    refused(build([N("Relu", ["gone\n\x1b[2J"], ["y"])], X), "used before")
    damaged = build([N("Relu", ["x"], ["y"], name="abcd")], X).SerializeToString().replace(b"abcd", b"\xff\xfeab")
    refused(onnx.ModelProto.FromString(damaged), "is not UTF-8")
    text = '<ir_version: 10, opset_import: ["": 20]> f (float[abcd] x) => (float[n] y) { y = Relu(x) }'
    damaged = onnx.parser.parse_model(text).SerializeToString().replace(b"abcd", b"\xff\xfeab")
    refused(onnx.ModelProto.FromString(damaged), "input 'x' has a dimension whose name is not UTF-8")


@pytest.mark.parametrize(
    ("node", "weights", "message"),
    [
        (N("Resize", ["x", "", "s"], ["y"]), {"s": np.float32([0, 1])}, "a scale is 0.0"),
        (N("Pad", ["x", "p"], ["y"]), {"p": np.array([1, 1])}, "the pads are 2 numbers; rank 2 has 4"),
        (N("Einsum", ["x"], ["y"], equation=b"\xff"), {}, "attribute 'equation' is no text in UTF-8"),
        (N("Cast", ["x"], ["y"], to=24, round_mode="upup"), {}, "round_mode is 'upup'; allowed: up, down, nearest"),
    ],
)
def test_what_altered_files_held(node: onnx.NodeProto, weights: dict[str, Any], message: str) -> None:
    refused(build([node], X, weights, opset=24), message)


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_biases_that_are_not_one_for_each_channel(op: str) -> None:
    """They were broadcast, so that a convolution to one channel gave eight."""
    weights = {"w": np.ones((1, 1, 3), np.float32), "b": np.ones(8, np.float32)}
    model = build([N(op, ["x", "w", "b"], ["y"], name="c")], {"x": ("f", (2, 1, 9))}, weights)
    refused(model, "node 0 'c' .*the number of biases is 8, expected 1")


def test_a_part_of_less_than_nothing() -> None:
    model = build([N("Split", ["x", "s"], ["a", "b"], name="s")], {"x": ("f", (8,))}, {"s": np.array([64, -56])})
    refused(model, "node 0 's' .*part 1 is -56, expected at least 0")


def test_a_bound_of_several_elements() -> None:
    model = build([N("Clip", ["x", "low"], ["y"], name="c")], {"x": ("f", (3,)), "low": ("f", (2,))})
    refused(model, "node 0 'c' .*the number of elements of the lower bound is 2, expected 1")


def test_heads_of_no_size() -> None:
    names = ["x", "ids", "cos", "sin"]
    node = N("RotaryEmbedding", names, ["y"], name="r", domain="com.microsoft")
    inputs = {"x": ("f", (1, 2, 8)), "ids": ("i", (1, 2)), "cos": ("f", (4, 0)), "sin": ("f", (4, 0))}
    model = build([node], inputs)
    model.opset_import.add(domain="com.microsoft", version=1)
    refused(model, "node 0 'r' .*do not fit the operator: .*by zero")


@pytest.mark.parametrize(
    "nodes",
    [
        "int64 s = {0}, int64[1] e = {1}> { h = Shape(x) y = Slice(h, s, e) }",
        "int64[2] s = {0, 0}, int64[1] e = {1}> { h = Shape(x) y = Slice(h, s, e) }",
        "int64 i = {0}> { h = Shape(x) e = Gather(h, i) y = Unsqueeze(e, h) }",
        "int64 i = {7}> { h = Shape(x) y = Gather(h, i) }",
        "int64[2] e = {2, 3}> { h = Shape(x) y = Reshape(h, e) }",
        "int64[2] e = {2, 3}> { h = Shape(x) y, z = Split(h, e) }",
    ],
)
def test_operands_of_shapes_that_do_not_fit(nodes: str) -> None:
    """Shapes are evaluated while a model is read; altered files ended there in errors of Python and NumPy."""
    text = f"f (float[n, 3] x) => (int64[k] y) <{nodes}"
    with contextlib.suppress(FrontendError):
        dscc.compile(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> {text}'), jobs=1)


def test_a_version_of_another_domain_beyond_32_bits() -> None:
    """onnx.defs raised a TypeError."""
    text = "f (float[n] x) => (float[n] y) { y = Exp(x) }"
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20, "ai.onnx.preview.training": 1]> {text}')
    model.opset_import[1].version = 2**40
    model.graph.node.append(helper.make_node("Adagrad", ["x"], ["z"], domain="ai.onnx.preview.training"))
    with pytest.raises(FrontendError):
        dscc.compile(model, jobs=1, fallback=False)


def test_a_reshape_to_more_than_int32_counts() -> None:
    """TVM's search for reshapes failed on it, with an error about the range of int32."""
    text = """f (float[n, m, 16] x) => (float[n, m, 2147483648, 4] y) <int64[4] to = {0, 0, 2147483648, 4}> {
        y = Reshape(x, to) }"""
    dscc.compile(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> {text}'), jobs=1)
