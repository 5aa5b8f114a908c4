"""Profiles: every kernel is there, with the arithmetic, bytes and nodes that can be counted by hand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import dscc
from dscc import profile as profiling
from dscc.bench.peaks import Peaks
from dscc.runtime.profile import flops


@pytest.fixture(scope="module")
def artifact():
    """relu(x @ w + b) and its sum over the last axis: x of (n, 6), w of (6, 16)."""
    weights = {"w": np.ones((6, 16), "float32"), "b": np.ones(16, "float32"), "axes": np.array([1])}
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["product"], name="project"),
            helper.make_node("Add", ["product", "b"], ["shifted"], name="shift"),
            helper.make_node("Relu", ["shifted"], ["y"], name="clip"),
            helper.make_node("ReduceSum", ["y", "axes"], ["z"], keepdims=0),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 6])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "yz"],
        [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return dscc.compile(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))


def test_rows_say_what_was_computed_and_what_for(artifact):
    found = profiling.profile(artifact, {"x": np.ones((5, 6), "float32")}, 1, 3)
    product, total = found.rows
    assert (product.rule, product.calls, product.nodes) == ("matmul", 1, ("project", "shift", "clip"))
    assert product.flops == 5 * 16 * (2 * 6 + 2)
    assert product.bytes == 4 * (5 * 6 + 6 * 16 + 16 + 5 * 16)
    assert (total.nodes, total.flops) == (("ReduceSum z",), 5 * 16)
    assert all(row.time_ms > 0 for row in found.rows)


def test_calls_of_one_kernel_are_added_up():
    rows = [profiling.Row("k", "matmul", 1, time_ms, 10, 20, (node,)) for time_ms, node in [(1.0, "a"), (3.0, "b")]]
    other = profiling.Row("l", "rows", 1, 2.0, None, 5, ())
    assert profiling.by_kernel([*rows, other]) == [
        profiling.Row("k", "matmul", 2, 4.0, 20, 40, ("a", "b")),
        other,
    ]


def test_the_nearer_roof_is_the_one_that_takes_longer():
    peaks = Peaks(flops=1e9, bytes=1e9)
    assert profiling.Row("k", "", 1, 2.0, 1_000_000, 500_000, ()).roof(peaks) == (0.5, "arithmetic")
    assert profiling.Row("k", "", 1, 2.0, 1_000, 1_000_000, ()).roof(peaks) == (0.5, "memory")


def test_a_trace_holds_every_call_in_order(artifact):
    found = profiling.profile(artifact, {"x": np.ones((2, 6), "float32")}, 1, 1)
    _, *events = profiling.trace(found)["traceEvents"]
    assert [event["name"] for event in events] == [row.kernel for row in found.rows]
    assert all(a["ts"] + a["dur"] <= b["ts"] for a, b in pairwise(events))


def test_formulas_are_arithmetic_and_nothing_else():
    sizes = [(7, 3), (4,)]
    dims = {"d0": [0, 0], "d1": [1]}
    assert flops({"flops": "2*((d0 - 1) // 2)*max(d1, 1) + min(d0, 3)", "dims": dims}, sizes) == 2 * 3 * 4 + 3
    assert flops({"rule": "rows"}, sizes) is None
    with pytest.raises(ValueError, match="is no formula over"):
        flops({"flops": "__import__('os')", "dims": {}}, sizes)


def test_inputs_that_do_not_fit_are_refused(artifact):
    with pytest.raises(dscc.DsccError, match="x"):
        profiling.profile(artifact, {"x": np.ones((5, 7), "float32")}, 1, 1)
