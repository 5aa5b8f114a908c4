"""onnx's reference evaluator, and what that of ONNX 1.23 makes of some nodes instead of what the standard says.

To see one: fold a GlobalMaxPool of a constant of shape (2, 3, 5); its shape has to be (2, 3, 1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import onnx

if TYPE_CHECKING:
    from onnx.reference import ReferenceEvaluator

_Attributes = Mapping[str, Any]
_Rule = Callable[[onnx.NodeProto, _Attributes, int], str]


def trusted(model: onnx.ModelProto) -> ReferenceEvaluator:
    """The evaluator of a model.

    Raises:
        ValueError: it would compute something else at one of the nodes.
        Exception: of any kind, if it does not take the model.
    """
    from onnx.reference import ReferenceEvaluator

    for graph in (model.graph, *model.functions):
        opset = default_opset(graph.opset_import if isinstance(graph, onnx.FunctionProto) else model.opset_import)
        for node in graph.node:
            if wrong := misread(node, opset):
                which = f"{node.op_type} '{node.name or next(iter(node.output), '')}'"
                raise ValueError(f"onnx's reference evaluator is wrong at {which}: it {wrong}")
    return ReferenceEvaluator(model)


def default_opset(imports: Iterable[onnx.OperatorSetIdProto]) -> int:
    """The version of the standard's own operators."""
    return next((entry.version for entry in imports if entry.domain in ("", "ai.onnx")), 1)


def misread(node: onnx.NodeProto, opset: int) -> str:
    """What the evaluator does wrong at a node, or at one inside of it, as what it does; empty if nothing."""
    at = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    if node.op_type in _WRONG and (wrong := _WRONG[node.op_type](node, at, opset)):
        return wrong
    graphs = [value for value in at.values() if isinstance(value, onnx.GraphProto)]
    return next((wrong for graph in graphs for each in graph.node if (wrong := misread(each, opset))), "")


def _ignores(*names: str) -> _Rule:
    """Attributes of which it takes no notice."""

    def found(node: onnx.NodeProto, at: _Attributes, opset: int) -> str:
        ignored = [name for name in names if name in at]
        return f"ignores {', '.join(ignored)}" if ignored else ""

    return found


def _conv_transpose(node: onnx.NodeProto, at: _Attributes, opset: int) -> str:
    return "gives each group the first weights and biases" if at.get("group", 1) > 1 else ""


def _flat(node: onnx.NodeProto, at: _Attributes, opset: int) -> str:
    return "takes one axis where all from it on are meant" if opset < 13 and at.get("axis", 1) != -1 else ""


def _batch_norm(node: onnx.NodeProto, at: _Attributes, opset: int) -> str:
    return "mixes the mean and the variance of the batch into those that it is given" if opset < 14 else ""


def _global_max_pool(node: onnx.NodeProto, at: _Attributes, opset: int) -> str:
    return "takes all data for images"


def _loop(node: onnx.NodeProto, at: _Attributes, opset: int) -> str:
    if len(node.output) > max(len(node.input) - 2, 0):
        return "joins what a Loop collects by numpy.vstack, which is right for vectors alone"
    return "" if len(node.input) > 1 and node.input[1] else "does not begin a Loop without a condition"


def _lrn(node: onnx.NodeProto, at: _Attributes, opset: int) -> str:
    return "takes the number of images for that of channels"


def _pool(node: onnx.NodeProto, at: _Attributes, opset: int) -> str:
    apart = any(stride > size for stride, size in zip(at.get("strides", ()), at.get("kernel_shape", ()), strict=False))
    same = at.get("auto_pad", b"").startswith(b"SAME")
    ones = all(each == 1 for name in ("strides", "dilations") for each in at.get(name, ()))
    if node.op_type == "MaxPool" and ones and any(at.get("pads", ())) and len(at.get("kernel_shape", ())) != 2:
        return "takes half of the padding of what is no image"
    if node.op_type == "MaxPool" and ones and len(pads := at.get("pads", ())) == 4 and pads[1] != pads[2]:
        return "takes the padding before and after each axis in turn"
    if at.get("ceil_mode") and node.op_type != "MaxPool":
        return "has half of what ceil_mode adds before the data"
    return "begins inside of the data where auto_pad has nothing to add" if apart and same else ""


def _sequence_insert(node: onnx.NodeProto, at: _Attributes, opset: int) -> str:
    return "puts first what a position puts last" if len(node.input) > 2 else ""


def _unique(node: onnx.NodeProto, at: _Attributes, opset: int) -> str:
    return "sorts what is to stay in its order" if not at.get("sorted", 1) else ""


_GATES = ("activation_alpha", "activation_beta", "activations", "clip")
_WRONG: Mapping[str, _Rule] = {
    "AveragePool": _pool,
    "BatchNormalization": _batch_norm,
    "ConvTranspose": _conv_transpose,
    "GRU": _ignores(*_GATES),
    "GlobalMaxPool": _global_max_pool,
    "Hardmax": _flat,
    "LRN": _lrn,
    "LSTM": _ignores(*_GATES, "input_forget"),
    "LogSoftmax": _flat,
    "Loop": _loop,
    "LpPool": _pool,
    "MaxPool": _pool,
    "RNN": _ignores("clip"),
    "SequenceInsert": _sequence_insert,
    "Softmax": _flat,
    "Unique": _unique,
}
