"""A small model, its one kernel, and the target that it is built for."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import dscc
from dscc import compiler
from dscc.passes.lower.schedule_kernels import unscheduled
from dscc.tune.kernel import Kernel

SIZES = ((5, 24), (24, 40), (40,), (5, 40))


@pytest.fixture(scope="module")
def model():
    """relu(x @ w + b): x of (n, 24)."""
    rng = np.random.default_rng(3)
    weights = {"w": rng.standard_normal((24, 40), "float32"), "b": rng.standard_normal(40, "float32")}
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["product"]),
            helper.make_node("Add", ["product", "b"], ["sum"]),
            helper.make_node("Relu", ["sum"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 24])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


@pytest.fixture(scope="module")
def found(model):
    """(function, its constant parameters, target)"""
    before = ",".join(compiler.kernel_passes(dscc.CompileOptions()))
    done = compiler.optimize(model, dscc.CompileOptions(), before, lambda stage: None)
    ((func, constants),) = unscheduled(done.mod).values()
    return func, constants, str(done.ctx.target)


@pytest.fixture(scope="module")
def kernel(found):
    func, constants, target = found
    return Kernel.of("fused", func, constants, SIZES, target)
