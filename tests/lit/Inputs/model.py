"""Writes a small ONNX model: y = relu(x @ w + b), x: (batch, 4). `model.py FILE [--operator NAME] [--domain NAME]`."""

import argparse

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

parser = argparse.ArgumentParser()
parser.add_argument("file")
parser.add_argument("--operator", default="Relu")
parser.add_argument("--domain", default="")
args = parser.parse_args()

rng = np.random.default_rng(0)
weights = [
    numpy_helper.from_array(rng.standard_normal((4, 3)).astype("float32"), "w"),
    numpy_helper.from_array(rng.standard_normal(3).astype("float32"), "b"),
]
nodes = [
    helper.make_node("MatMul", ["x", "w"], ["product"], name="product"),
    helper.make_node("Add", ["product", "b"], ["sum"], name="sum"),
    helper.make_node(args.operator, ["sum"], ["y"], name="last", domain=args.domain),
]
graph = helper.make_graph(
    nodes,
    "small",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
    weights,
)
opsets = [helper.make_opsetid("", 17)] + ([helper.make_opsetid(args.domain, 1)] if args.domain else [])
onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), args.file)
