"""Nodes whose inputs are all numbers are computed while reading, by onnx's own reference evaluator.

Only what is small or only moves data: folding the rest is the business of the passes, which must also be able to see
weights that are kept in a compact type.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from dscc.errors import first_line
from dscc.evaluator import misread
from dscc.frontends.onnx.values import Array

_LOG = logging.getLogger(__name__)
MAX_ELEMENTS = 4096
MOVES = frozenset({"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"})
GROWS = frozenset({"ConstantOfShape", "Expand", "Tile", "OneHot", "Range", "EyeLike", "Upsample", "Resize", "Pad"})
KEPT = frozenset(
    {
        *(
            "QuantizeLinear",
            "DequantizeLinear",
            "DynamicQuantizeLinear",
            "If",
            "Loop",
            "Scan",
            "SequenceMap",
            "Dropout",
            "BatchNormalization",
            "Erf",  # which the evaluator of ONNX 1.23 rounds to float32
        ),
        *("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"),
    }
)


def fold(
    node: onnx.NodeProto,
    inputs: Sequence[Array | None],
    opsets: Mapping[str, int],
    attributes: Sequence[onnx.AttributeProto],
) -> list[Array] | None:
    """The outputs of a node with constant inputs, or None if the node is to be converted."""
    if node.domain not in ("", "ai.onnx") or node.op_type in KEPT or any(a.HasField("g") for a in attributes):
        return None
    size = sum(data.size for data in inputs if data is not None)
    if node.op_type not in MOVES and (size > MAX_ELEMENTS or (node.op_type in GROWS and _grown(inputs) > MAX_ELEMENTS)):
        return None
    names = [f"i{index}" if data is not None else "" for index, data in enumerate(inputs)]
    outputs = [f"o{index}" if name else "" for index, name in enumerate(node.output)]
    copy = onnx.helper.make_node(node.op_type, names, outputs)
    copy.attribute.extend(attributes)
    if misread(copy, opsets[""]):
        return None
    function = onnx.helper.make_function(
        "dscc",
        "fold",
        [name for name in names if name],
        [name for name in outputs if name],
        [copy],
        [onnx.helper.make_opsetid("", opsets[""])],
    )
    feeds = {name: data for name, data in zip(names, inputs, strict=True) if data is not None}
    try:
        with np.errstate(all="ignore"):
            results = ReferenceEvaluator(function).run(None, feeds, attributes={})
    except Exception as err:  # noqa: BLE001  it raises anything for what it lacks; the converter says what is wrong
        _LOG.debug("a %s of constants is not folded: %s", node.op_type, first_line(err))
        return None
    if not all(isinstance(result, np.ndarray | np.generic) for result in results):
        return None
    arrays = iter(np.asarray(result) for result in results)
    return [next(arrays) if name else np.empty(0) for name in outputs]


def _grown(inputs: Sequence[Array | None]) -> float:
    """A bound for the elements of the result of an operator whose result's size is among its inputs' numbers."""
    bound = 1.0
    for data in inputs:
        if data is not None and data.size <= 16 and data.dtype.kind in "iuf":
            with np.errstate(all="ignore"):
                bound = max(bound, float(np.nan_to_num(np.prod(np.abs(data.astype(np.float64)) + 1), posinf=math.inf)))
    return bound * max((data.size for data in inputs if data is not None and data.size > 16), default=1)
