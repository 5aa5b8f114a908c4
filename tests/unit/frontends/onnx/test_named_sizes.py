"""Computed sizes that get a symbol of their own: what is left over of a division by sizes, and long sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import tvm_ffi
from onnx import helper, numpy_helper
from tvm import tirx

import dscc
from dscc import frontends
from dscc.options import CompileOptions

N = helper.make_node
Shape = Sequence[int | str]


def model(nodes: Sequence[onnx.NodeProto], inputs: Mapping[str, Shape], **weights: Any) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info(name, 1, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info("y", 1, None)],
        [numpy_helper.from_array(np.array(array), name) for name, array in weights.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def check(proto: onnx.ModelProto, shapes: Sequence[Mapping[str, Sequence[int]]]) -> None:
    """Against onnxruntime, over several sizes."""
    module = dscc.compile(proto, fallback=False).load(threads=1)
    reference = onnxruntime.InferenceSession(proto.SerializeToString())
    rng = np.random.default_rng(1)
    for sizes in shapes:
        feeds = {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in sizes.items()}
        np.testing.assert_allclose(
            module.run(None, feeds)[0], reference.run(None, feeds)[0], rtol=1e-5, atol=1e-6, err_msg=str(sizes)
        )


# As many rows as z has, of what is left over: x is (n, 12), u is (k, 12).
ROWS = [
    N("Shape", ["z"], ["m"], end=1),
    N("Concat", ["m", "rest"], ["rows"], axis=0),
    N("Reshape", ["x", "rows"], ["p"]),
    N("Reshape", ["u", "rows"], ["q"]),
]
REST: dict[str, Any] = {"rest": [-1, 3]}
SIZES = [(1, 1, 1), (4, 2, 2), (9, 3, 3), (7, 4, 7), (5, 5, 10), (21, 7, 14), (2, 8, 4), (13, 1, 1), (0, 2, 0)]


def test_a_kernel_may_take_a_size_that_is_left_over() -> None:
    """`p @ q.T` spread over a bias, and joined with itself: kernels of both of two sizes."""
    nodes = [
        *ROWS, N("Transpose", ["q"], ["qt"], perm=[0, 2, 1]), N("MatMul", ["p", "qt"], ["s"]),
        N("Add", ["s", "bias"], ["t"]), N("Concat", ["t", "s"], ["y"], axis=1),
    ]  # fmt: skip
    proto = model(nodes, {"x": ["n", 12], "u": ["k", 12], "z": ["m", 2], "bias": ["b", "l", "j"]}, **REST)
    shapes = []
    for n, m, k in SIZES:
        if n:
            parts = n * 4 // m, k * 4 // m
            shapes += [{"x": [n, 12], "u": [k, 12], "z": [m, 2], "bias": at} for at in ((1, 1, 1), (m, *parts))]
    check(proto, shapes)


@pytest.mark.parametrize("op", ["Add", "Concat"])
def test_sizes_that_are_left_over_meet(op: str) -> None:
    attributes = {"axis": 1} if op == "Concat" else {}
    nodes = [*ROWS, N(op, ["p", "q"], ["both"], **attributes), N("Exp", ["both"], ["y"])]
    proto = model(nodes, {"x": ["n", 12], "u": ["k", 12], "z": ["m", 2]}, **REST)
    sizes = [(n, m, k) for n, m, k in SIZES if op == "Concat" or n == k > 0]
    check(proto, [{"x": [n, 12], "u": [k, 12], "z": [m, 2]} for n, m, k in sizes])


@pytest.mark.parametrize("length", [16, 32])
def test_what_is_left_over_of_what_is_left_over(length: int) -> None:
    """x in parts of as many columns as are left over of v; with u of other parts, or of as many."""
    nodes = [
        N("Shape", ["z"], ["m"], end=1), N("Concat", ["m", "free"], ["split"], axis=0),
        N("Reshape", ["v", "split"], ["o"]), N("Shape", ["o"], ["l"], start=1, end=2), N("Shape", ["x"], ["n"], end=1),
        N("Concat", ["n", "free", "l", "two"], ["parts"], axis=0),
        N("Reshape", ["x", "parts"], ["p"]), N("Reshape", ["u", "parts"], ["q"]),
        N("Add", ["p", "q"], ["s"]), N("Softmax", ["s"], ["y"], axis=1),
    ]  # fmt: skip
    inputs: dict[str, Shape] = {"x": ["n", 16, 2], "u": ["n", length, 2], "z": ["m", 2], "v": ["k", 4]}
    proto = model(nodes, inputs, free=[-1], two=[2])
    columns = [(m, k) for m, k in ((1, 1), (2, 1), (1, 2), (1, 4), (2, 4)) if length == 16 or k * 4 // m == 16]
    check(
        proto,
        [{"x": [n, 16, 2], "u": [n, length, 2], "z": [m, 2], "v": [k, 4]} for n in (1, 3, 5) for m, k in columns],
    )


def test_a_branch_uses_the_size_of_the_graph_around_it() -> None:
    then = helper.make_graph(
        [N("Reshape", ["u", "rows"], ["r"]), N("Add", ["p", "r"], ["t"])], "t", [],
        [helper.make_tensor_value_info("t", 1, None)],
    )  # fmt: skip
    otherwise = helper.make_graph(
        [N("Exp", ["x"], ["e"]), N("Reshape", ["e", "rows"], ["f"])], "e", [],
        [helper.make_tensor_value_info("f", 1, None)],
    )  # fmt: skip
    nodes = [
        *ROWS[:3], N("ReduceSum", ["z"], ["sum"], keepdims=0), N("Greater", ["sum", "zero"], ["is"]),
        N("If", ["is"], ["i"], then_branch=then, else_branch=otherwise),
        N("Reshape", ["u", "rows"], ["q"]), N("Mul", ["i", "q"], ["y"]),
    ]  # fmt: skip
    proto = model(nodes, {"x": ["n", 12], "u": ["k", 12], "z": ["m", 2]}, zero=np.float32(0), **REST)
    check(proto, [{"x": [n, 12], "u": [k, 12], "z": [m, 2]} for n, m, k in SIZES if n and n == k for _ in range(4)])


def many(count: int) -> onnx.ModelProto:
    """The places of x that are greater than each of `count` numbers, at most three each, one after the other."""
    nodes = []
    for i in range(count):
        nodes += [
            N("Greater", ["x", f"limit{i}"], [f"is{i}"]), N("NonZero", [f"is{i}"], [f"at{i}"]),
            N("Slice", [f"at{i}", "first", "third", "axis"], [f"few{i}"]),
        ]  # fmt: skip
    nodes += [
        N("Concat", [f"few{i}" for i in range(count)], ["all"], axis=1), N("Cast", ["all"], ["real"], to=1),
        N("Exp", ["real"], ["e"]), N("ReduceSum", ["e", "axis"], ["sum"], keepdims=1), N("Div", ["e", "sum"], ["y"]),
    ]  # fmt: skip
    limits = {f"limit{i}": np.float32(i / count * 2 - 0.5) for i in range(count)}
    return model(nodes, {"x": ["n"]}, first=[0], third=[3], axis=[1], **limits)


def symbols_of_result(proto: onnx.ModelProto) -> int:
    """How many symbols the length of the tensor mentions of which the module's result is made."""
    bindings = frontends.find(proto).load(proto, CompileOptions())["main"].body.blocks[0].bindings
    found: list[tirx.Var] = []
    tvm_ffi.structural_walk(bindings[-2].var.ty.shape.values[1], (tirx.Var, found.append))
    return len(set(found))


@pytest.mark.parametrize("count, symbols", [(3, 3), (20, 5)])  # of 20, a group of 16 and a rest of 4
def test_a_long_sum_is_one_symbol_for_what_follows(count: int, symbols: int) -> None:
    proto = many(count)
    assert symbols_of_result(proto) == symbols
    check(proto, [{"x": [n]} for n in (1, 2, 3, 7, 64)])
