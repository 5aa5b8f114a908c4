"""Operators that move elements, applied to types that are carried as bit patterns.

An operator that moves elements without looking at them does to the patterns what it does to the elements. So its
converter gets the patterns, as plain unsigned integers, and its outputs are given the type back that the standard says
is that of the inputs. Converters that look at elements say so (`@converter(..., patterns=True)`) and decode them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

from dscc.elements import coded, onnx_name
from dscc.frontends.onnx import schemas
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.values import Value

MOVERS = frozenset(
    (
        "Identity Dropout Shape Size Reshape Flatten Squeeze Unsqueeze Transpose Concat Split Slice Expand Tile Pad "
        "Gather GatherElements GatherND ScatterElements ScatterND Scatter TensorScatter Where Compress Trilu "
        "DepthToSpace SpaceToDepth ReverseSequence CenterCropPad"
    ).split()
)


def as_patterns(node: Node, inputs: Sequence[Value | None]) -> tuple[list[Value | None], Mapping[str, str]]:
    """The inputs as bit patterns, and the element type that each type variable of the operator stands for.

    Raises:
        FrontendError: the operator computes on elements of a type that it does not take.
    """
    if node.domain not in ("", "ai.onnx"):
        raise node.unsupported(_refused(inputs))
    schema = schemas.schema("", node.op, node.opset)
    if node.op not in MOVERS or node.attr("reduction", "none") != "none":
        valid = all(
            value is None
            or not value.coded
            or f"tensor({onnx_name(value.element)})" in _formal(schema.inputs, index).types
            for index, value in enumerate(inputs)
        )
        raise (node.unsupported if valid else node.error)(_refused(inputs))
    variables = {
        variable(schema.inputs, index): value.element
        for index, value in enumerate(inputs)
        if value is not None and value.coded
    }
    return [_pattern(node, value) for value in inputs], variables


def retyped(node: Node, outputs: Sequence[Value], variables: Mapping[str, str]) -> list[Value]:
    """The outputs of a converter that was given patterns, with their types."""
    if not variables:
        return list(outputs)
    schema = schemas.schema("", node.op, node.opset)
    kinds = [variables.get(variable(schema.outputs, index)) for index in range(len(outputs))]
    return [value if kind is None else node.retype(value, kind) for value, kind in zip(outputs, kinds, strict=True)]


def variable(formal: Sequence[onnx.defs.OpSchema.FormalParameter], index: int) -> str:
    """The type variable of an input or output."""
    return str(_formal(formal, index).type_str)


def _formal(formal: Sequence[onnx.defs.OpSchema.FormalParameter], index: int) -> onnx.defs.OpSchema.FormalParameter:
    """What the schema says of an input or output; the last one may stand for many."""
    return formal[min(index, len(formal) - 1)]


def _refused(inputs: Sequence[Value | None]) -> str:
    kinds = sorted({value.element for value in inputs if value is not None and value.coded})
    return f"an input has element type '{', '.join(kinds)}', on which the operator cannot compute; cast it before"


def _pattern(node: Node, value: Value | None) -> Value | None:
    if value is None or not value.coded:
        return value
    if value.data is not None:
        return Value(value.name, node.bb, data=coded(value.data))
    return Value(value.name, node.bb, expr=value.expr)
