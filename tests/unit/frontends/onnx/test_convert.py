"""The walk over the graph: inputs, names, functions, branches, and what cannot be read."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from tvm import relax

from dscc.errors import FrontendError

from .conftest import build, executable, load, noise, operators, written

RELU = [helper.make_node("Relu", ["in:0"], ["out/0"])]


def _dims(module: Any) -> list[str]:
    return written(module["main"].params[0].ty.shape)


def test_dimensions_are_named_as_in_the_model() -> None:
    module = load(build(RELU, {"in:0": ("f", ("batch size", 3, "?", None))}))
    assert _dims(module) == ["batch_size", "3", "in_0_2", "in_0_3"]


def test_given_shapes_replace_the_declared_ones() -> None:
    module = load(build(RELU, {"in:0": ("f", (1, 3, 32, 32))}), **{"in:0": ("n", 3, "h", 64)})
    assert _dims(module) == ["n", "3", "h", "64"]


def test_names_are_kept_as_the_model_spells_them() -> None:
    main = load(build(RELU, {"in:0": ("f", (2,))}))["main"]
    assert [str(name) for name in main.attrs["dscc.inputs"]] == ["in:0"]
    assert [str(name) for name in main.attrs["dscc.outputs"]] == ["out/0"]
    assert main.params[0].name == "in_0"


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"x": (1,)}, "unknown input 'x' in the given shapes; the model's inputs: in:0"),
        ({"in:0": (1, 2)}, "has rank 1"),
    ],
)
def test_given_shapes_that_do_not_fit(shapes: dict[str, Any], message: str) -> None:
    with pytest.raises(FrontendError, match=message):
        load(build(RELU, {"in:0": ("f", (2,))}), **shapes)


def test_unknown_operator() -> None:
    node = helper.make_node("Frobnicate", ["x"], ["y"], name="f1", domain="com.example")
    model = build([node], {"x": ("f", (2,))})
    model.opset_import.append(helper.make_opsetid("com.example", 3))
    with pytest.raises(FrontendError, match=r"'Frobnicate' of domain 'com\.example', version 3, .*node 0 'f1'"):
        load(model)


def test_shapes_that_do_not_fit_name_the_node() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Add", ["r", "w"], ["y"], name="sum")]
    with pytest.raises(FrontendError, match=r"node 1 'sum' \(Add\): .*3 and 4"):
        load(build(nodes, {"x": ("f", (2, 3))}, {"w": np.ones(4, np.float32)}))


def test_a_name_that_nothing_makes() -> None:
    with pytest.raises(FrontendError, match="'nowhere' is used before"):
        load(build([helper.make_node("Relu", ["nowhere"], ["y"])], {"x": ("f", (2,))}))


def test_nodes_that_no_output_needs_are_left_out() -> None:
    nodes = [helper.make_node("Frobnicate", ["x"], ["z"]), helper.make_node("Relu", ["x"], ["y"])]
    assert operators(load(build(nodes, {"x": ("f", (2,))}))) == ["nn.relu"]


def test_model_functions_are_inlined() -> None:
    body = [helper.make_node("Mul", ["a", "a"], ["b"]), helper.make_node("Relu", ["b"], ["c"])]
    function = helper.make_function("com.example", "Twist", ["a"], ["c"], body, [helper.make_opsetid("", 20)])
    model = build(
        [helper.make_node("Twist", ["x"], ["y"], domain="com.example")], {"x": ("f", (2,))}, functions=[function]
    )
    assert operators(load(model)) == ["multiply", "nn.relu"]


def test_an_operator_that_the_standard_defines_by_others() -> None:
    model = build([helper.make_node("ReduceLogSum", ["x"], ["y"])], {"x": ("f", (2, 3))}, opset=18)
    assert "sum" in operators(load(model))
    swish = build(
        [helper.make_node("AffineGrid", ["t", "s"], ["y"])], {"t": ("f", (2, 2, 3))}, {"s": np.array([2, 1, 4, 4])}
    )
    assert operators(load(swish))


def test_if_with_a_known_condition() -> None:
    branches = {
        name: helper.make_graph(
            [helper.make_node(op, ["x"], [name])], name, [], [helper.make_empty_tensor_value_info(name)]
        )
        for name, op in (("then_branch", "Relu"), ("else_branch", "Neg"))
    }
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["d"]),
        helper.make_node("Greater", ["d", "zero"], ["c"]),
        helper.make_node("If", ["c"], ["y"], **branches),
    ]
    assert operators(load(build(nodes, {"x": ("f", ("n", 2))}, {"zero": np.array(0)}))) == ["nn.relu"]


def test_optional_inputs_of_the_old_kind_are_weights() -> None:
    model = build([helper.make_node("Add", ["x", "w"], ["y"])], {"x": ("f", (2,)), "w": ("f", (2,))}, {"w": noise(2)})
    assert len(load(model)["main"].params) == 1


def test_weights_keep_their_type_and_are_shared() -> None:
    nodes = [
        helper.make_node("Cast", ["w"], ["f"], to=onnx.TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "f"], ["a"]),
        helper.make_node("Mul", ["a", "s"], ["y"]),
    ]
    weights = {"w": np.ones((100, 100), np.int8), "s": noise(100)}
    module = load(build(nodes, {"x": ("f", ("n", 100))}, weights))
    assert operators(module) == ["astype", "matmul", "multiply"]


def test_an_output_may_be_an_input_or_a_constant() -> None:
    nodes = [helper.make_node("Identity", ["x"], ["same"]), helper.make_node("Shape", ["x"], ["shape"])]
    run = executable(load(build(nodes, {"x": ("f", ("n", 2))}, outputs=["same", "shape"])))
    same, shape = run({"x": noise(3, 2)})
    assert same.shape == (3, 2) and shape.tolist() == [3, 2]


def test_the_module_is_one_function_that_returns_a_tuple() -> None:
    module = load(build(RELU, {"in:0": ("f", (2,))}))
    assert [gv.name_hint for gv in module.functions] == ["main"]
    assert isinstance(module["main"].ret_ty, relax.TupleType)
