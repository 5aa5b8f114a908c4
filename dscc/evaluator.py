"""onnx's reference evaluator, and what that of ONNX 1.23 makes of some nodes instead of what the standard says.

To see one: fold a GlobalMaxPool of a constant of shape (2, 3, 5); its shape has to be (2, 3, 1).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import onnx

if TYPE_CHECKING:
    from onnx.reference import ReferenceEvaluator

_OF_GATES = frozenset({"activations", "activation_alpha", "activation_beta", "clip"})
_IGNORED = {"LSTM": _OF_GATES | {"input_forget"}, "GRU": _OF_GATES, "RNN": frozenset({"clip"})}


def trusted(model: onnx.ModelProto) -> ReferenceEvaluator:
    """The evaluator of a model.

    Raises:
        ValueError: it would compute something else at one of the nodes.
        Exception: of any kind, if it does not take the model.
    """
    from onnx.reference import ReferenceEvaluator

    for graph in (model.graph, *model.functions):
        for node in graph.node:
            if wrong := misread(node):
                which = f"{node.op_type} '{node.name or next(iter(node.output), '')}'"
                raise ValueError(f"onnx's reference evaluator is wrong at {which}: it {wrong}")
    return ReferenceEvaluator(model)


def misread(node: onnx.NodeProto) -> str:
    """What the evaluator does wrong at a node, or at one inside of it, as what it does; empty if nothing."""
    ignored = _IGNORED.get(node.op_type, frozenset()).intersection(a.name for a in node.attribute)
    if ignored:
        return f"ignores {', '.join(sorted(ignored))}"
    if node.op_type == "GlobalMaxPool":
        return "takes all data for images"
    if node.op_type == "ConvTranspose" and any(a.name == "group" and a.i > 1 for a in node.attribute):
        return "gives each group the first weights and biases"
    if node.op_type in ("AveragePool", "LpPool", "MaxPool") and _steps_over(node):
        return "begins inside of the data where auto_pad has nothing to add"
    if node.op_type == "Loop" and len(node.output) > max(len(node.input) - 2, 0):
        return "joins what a Loop collects by numpy.vstack, which is right for vectors alone"
    if node.op_type == "Loop" and (len(node.input) < 2 or not node.input[1]):
        return "does not begin a Loop without a condition"
    inner: Iterable[onnx.NodeProto] = (each for a in node.attribute if a.HasField("g") for each in a.g.node)
    return next((wrong for each in inner if (wrong := misread(each))), "")


def _steps_over(node: onnx.NodeProto) -> bool:
    """Whether windows of a pool with auto_pad are further apart than they are long."""
    at = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    if not at.get("auto_pad", b"").startswith(b"SAME"):
        return False
    return any(stride > size for stride, size in zip(at.get("strides", ()), at.get("kernel_shape", ()), strict=False))
