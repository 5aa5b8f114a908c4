"""The models of benchmarks/moe.py: mixtures in the forms of exporters, the operator alone, and a dense product."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.unit.passes.moe import graphs
from tests.unit.passes.moe.graphs import Style

# What sets the published models apart, in small: the router, the activation, how many experts there are and how large.
MODELS = {
    "mixtral": Style(experts=8, top=2, hidden=512, inner=1024),
    "qwen2-moe": Style(router="plain", experts=16, top=4, hidden=512, inner=352),
    "gpt-oss": Style(router="topk-softmax", activation="clipped", bias=True, experts=16, top=4, hidden=512, inner=512),
    "deepseek-v3": Style(router="sigmoid", experts=32, top=4, hidden=512, inner=256),
}
BLOCK = 32  # weights that share a scale
FORMS = {"grouped": "grouped", "batched": "batched", "dense": "dense batched"}


@dataclass(frozen=True)
class Sizes:
    """Of a gated mixture."""

    experts: int
    top: int
    hidden: int
    inner: int

    def bytes(self, bits: int) -> int:
        """Of one expert's weights with `bits` bits, and of their scales."""
        count = 3 * self.hidden * self.inner
        return count * bits // 8 + (count // BLOCK * 4 if bits <= 8 else 0)


def small(name: str, form: str) -> onnx.ModelProto:
    """One of MODELS in one of FORMS."""
    return graphs.model(graphs.FORMS[FORMS[form]], MODELS[name])


def layer(sizes: Sizes, bits: int) -> onnx.ModelProto:
    """A router and com.microsoft's operator, with weights of 32 or 16 bits, or of 8 or 4 and scales."""
    rng = np.random.default_rng(bits)
    n, hidden, inner = sizes.experts, sizes.hidden, sizes.inner
    shapes = {"w1": (n, 2 * inner, hidden), "w2": (n, hidden, inner)}
    given: dict[str, np.ndarray] = {"router": (rng.standard_normal((hidden, n)) / 32).astype(np.float32)}
    for name, shape in shapes.items():
        if bits <= 8:
            given[name] = rng.integers(0, 256, (*shape[:2], shape[2] * bits // 8), dtype=np.uint8)
            given[f"s{name[1]}"] = np.full((*shape[:2], shape[2] // BLOCK), 2.0**-bits / 16, np.float32)
        else:
            values = rng.standard_normal(shape, dtype=np.float32) / np.float32(np.sqrt(shape[2]))
            given[name] = values.astype(np.float16 if bits == 16 else np.float32)
    attributes: dict[str, Any] = {
        "k": sizes.top,
        "activation_type": "swiglu",
        "swiglu_fusion": 2,
        "normalize_routing_weights": 1,
    }
    half = bits == 16
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    names = ["rows", "logits", "w1", "", "w2"]
    if bits <= 8:
        names = ["rows", "logits", "w1", "s1", "", "w2", "s2"]
        attributes |= {"expert_weight_bits": bits, "block_size": BLOCK}
    nodes = [
        helper.make_node("MatMul", ["x", "router"], ["scores"]),
        helper.make_node("Cast", ["x"], ["rows"], to=kind),
        helper.make_node("Cast", ["scores"], ["logits"], to=kind),
        helper.make_node("QMoE" if bits <= 8 else "MoE", names, ["out"], domain="com.microsoft", **attributes),
        helper.make_node("Cast", ["out"], ["y"], to=TensorProto.FLOAT),
    ]
    return _model(nodes, given, hidden, hidden)


def dense(sizes: Sizes) -> onnx.ModelProto:
    """One product with as many operations as the layer: the rows three times over, times `top` matrices."""
    rng = np.random.default_rng(1)
    columns = sizes.top * sizes.inner
    weight = rng.standard_normal((3 * sizes.hidden, columns), dtype=np.float32)
    nodes = [helper.make_node("Concat", ["x"] * 3, ["wide"], axis=1), helper.make_node("MatMul", ["wide", "w"], ["y"])]
    return _model(nodes, {"w": weight}, sizes.hidden, columns)


def _model(nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], hidden: int, out: int) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["tokens", hidden])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["tokens", out])
    tensors = [numpy_helper.from_array(content, name) for name, content in weights.items()]
    graph = helper.make_graph(nodes, "layer", [x], [y], tensors)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)
