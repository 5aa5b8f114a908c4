"""Sizes that are divided by sizes: where one of them is zero the inputs are refused, and the process goes on."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from tvm import tirx

import dscc
from dscc.errors import InputError
from dscc.passes.values import at_sizes

N = helper.make_node


def folded(left_over: bool = False) -> onnx.ModelProto:
    """`(n,)` in rows, as long as there are hundreds in n; or in that many rows with `left_over`."""
    nodes = [
        N("Shape", ["x"], ["n"]),
        N("Div", ["n", "hundred"], ["hundreds"]),
        N("Div", ["n", "hundreds"], ["rows"]),
        N("Concat", ["hundreds" if left_over else "rows", "rest"], ["shape"], axis=0),
        N("Reshape", ["x", "shape"], ["y"]),
    ]
    weights = {"hundred": np.array([100]), "rest": np.array([-1])}
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", 1, ["n"])], [helper.make_empty_tensor_value_info("y")],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_a_size_divided_by_zero_does_not_end_the_process() -> None:
    module = dscc.compile(folded(), fallback=False).load(threads=1)  # nor do random inputs, which are shorter
    x = np.arange(400, dtype=np.float32)
    np.testing.assert_array_equal(module(x)[0], x.reshape(100, 4))
    module(x[:30])
    np.testing.assert_array_equal(module(x[:200])[0], x[:200].reshape(100, 2))


def test_what_is_left_over_of_no_elements_is_an_error_of_the_inputs() -> None:
    """-1 beside a dimension that is 0 has no value."""
    module = dscc.compile(folded(left_over=True), fallback=False).load(threads=1)
    x = np.arange(400, dtype=np.float32)
    np.testing.assert_array_equal(module(x)[0], x.reshape(4, 100))
    with pytest.raises(InputError):
        module(x[:30])
    np.testing.assert_array_equal(module(x[:200])[0], x[:200].reshape(2, 100))


def test_a_dimension_at_given_sizes() -> None:
    n, m = tirx.Var("n", "int64"), tirx.Var("m", "int64")
    found = [at_sizes(size, {n: 7}, 5) for size in (3, n, n * 2 + m, n // (m // 5), n // (m // 10))]
    assert found == [3, 7, 19, 7, None]
