"""Optionals: arrays of no or one item at run time, or known to be there or not while compiling."""

from __future__ import annotations

import numpy as np
from tvm import relax

from dscc import library
from dscc.frontends.onnx.kinds import Container, OptionalKind, from_type, kind_of, result_type, wrap
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.registry import converter
from dscc.frontends.onnx.values import Value


@converter("Optional", patterns=True)
def optional(node: Node, value: Value | None = None) -> Value:
    """An optional that holds the input; without one it is empty, and its type is an attribute."""
    if value is not None:
        return Container("", node.bb, OptionalKind(kind_of(value)), items=[value])
    kind = from_type(node.required("type"), f"{node.label}: its type")
    return Container("", node.bb, kind if isinstance(kind, OptionalKind) else OptionalKind(kind), items=[])


@converter("OptionalHasElement", patterns=True)
def has_element(node: Node, value: Value | None = None) -> Value:
    """Whether there is something, a bool scalar."""
    if value is None or not _is_optional(value):
        return node.value(np.array(value is not None))
    assert isinstance(value, Container)  # it is optional
    if value.items is not None:
        return node.value(np.array(bool(value.items)))
    return node.value(library.call("optional_has", [value.expr], relax.TensorType([], "bool")))


@converter("OptionalGetElement", patterns=True)
def get_element(node: Node, value: Value) -> Value:
    """What is in the optional; anything else as it is."""
    if not _is_optional(value):
        return value
    assert isinstance(value, Container)  # it is optional
    if value.items is not None:
        if not value.items:
            raise node.error(f"'{value.name}' is empty; the operator takes an element out of it")
        return value.items[0]
    kind = value.kind.element
    found = node.bb.emit(library.call("optional_get", [value.expr], result_type(kind)))
    return wrap(node.bb, node.dims, kind, found, node.proto.output[0])


def _is_optional(value: Value) -> bool:
    return isinstance(value, Container) and isinstance(value.kind, OptionalKind)
