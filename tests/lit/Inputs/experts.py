"""Writes an ONNX model with a mixture of four experts, two for a token, x: (tokens, 8). `experts.py FILE`."""

import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

shapes = {"router": (8, 4), "up": (4, 6, 8), "down": (4, 8, 6)}
rng = np.random.default_rng(0)
weights = [numpy_helper.from_array(rng.standard_normal(shape).astype("float32"), n) for n, shape in shapes.items()]
nodes = [
    helper.make_node("MatMul", ["x", "router"], ["logits"]),
    helper.make_node("MoE", ["x", "logits", "up", "", "down"], ["y"], "experts", domain="com.microsoft", k=2),
]
x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["tokens", 8]) for name in "xy")
opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
graph = helper.make_graph(nodes, "small", [x], [y], weights)
onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), sys.argv[1])
