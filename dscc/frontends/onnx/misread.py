"""What onnx's reference evaluator makes of some nodes instead of what the standard says, in ONNX 1.23.

To see one: fold a GlobalMaxPool of a constant of shape (2, 3, 5); its shape has to be (2, 3, 1).
"""

from __future__ import annotations

import onnx

_OF_GATES = frozenset({"activations", "activation_alpha", "activation_beta", "clip"})
_IGNORED = {"LSTM": _OF_GATES | {"input_forget"}, "GRU": _OF_GATES, "RNN": frozenset({"clip"})}


def misread(node: onnx.NodeProto) -> str:
    """What the evaluator does wrong at a node, or at one inside of it, as what it does; empty if nothing."""
    ignored = _IGNORED.get(node.op_type, frozenset()).intersection(a.name for a in node.attribute)
    if ignored:
        return f"ignores {', '.join(sorted(ignored))}"
    if node.op_type == "GlobalMaxPool":
        return "takes all data for images"
    if node.op_type == "Loop" and len(node.output) > max(len(node.input) - 2, 0):
        return "joins what a Loop collects by numpy.vstack, which is right for vectors alone"
    if node.op_type == "Loop" and (len(node.input) < 2 or not node.input[1]):
        return "does not begin a Loop without a condition"
    inner = [a.g for a in node.attribute if a.HasField("g")]
    return next((wrong for graph in inner for each in graph.node if (wrong := misread(each))), "")
