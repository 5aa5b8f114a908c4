"""What the ONNX standard itself says of an operator: its defaults, and the function body that defines it, if any."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import onnx

from dscc.frontends.onnx import kinds, schemas
from dscc.frontends.onnx.values import Value


def _schema(node: onnx.NodeProto, opset: int) -> Any:
    return schemas.schema("" if node.domain == "ai.onnx" else node.domain, node.op_type, opset)


def defaults(node: onnx.NodeProto, opset: int) -> dict[str, onnx.AttributeProto]:
    """The values of attributes that a node may leave out; a body refers to them all the same."""
    schema = _schema(node, opset)
    if schema is None:
        return {}
    return {name: a.default_value for name, a in schema.attributes.items() if a.default_value.name}


def body(
    node: onnx.NodeProto, opset: int, inputs: Sequence[Value | None], attributes: Iterable[onnx.AttributeProto]
) -> onnx.FunctionProto | None:
    """The operators by which the standard defines the node's, for inputs of these types and these attributes."""
    schema = _schema(node, opset)
    if schema is None:
        return None
    if schema.has_context_dependent_function:
        versions = [v for v in schema.context_dependent_function_opset_versions if v <= opset]
        if not versions:
            return None
        resolved = onnx.helper.make_node(node.op_type, node.input, node.output, domain=node.domain)
        resolved.attribute.extend(attributes)  # those of the node may refer to the attributes of a surrounding function
        types = [_type(value).SerializeToString() for value in inputs]
        text = schema.get_context_dependent_function_with_opset_version(
            max(versions), resolved.SerializeToString(), types
        )
        return onnx.FunctionProto.FromString(text) if text else None
    versions = [v for v in schema.function_opset_versions if v <= opset]
    return onnx.FunctionProto.FromString(schema.get_function_with_opset_version(max(versions))) if versions else None


def _type(value: Value | None) -> onnx.TypeProto:
    return onnx.TypeProto() if value is None else kinds.to_type(kinds.kind_of(value))
