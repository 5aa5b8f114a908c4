"""Whether a node's inputs are what its operator takes: how many, and of which types.

The standard says it for its own operators: inputs that share a type variable are of one type, which is among those
that some version of the operator takes. A version older than the type is let pass: exporters mix them. For operators of
other domains it is said by the signature of their converter.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import onnx
from tvm import relax

from dscc.elements import onnx_name
from dscc.errors import FrontendError
from dscc.frontends.onnx import kinds, schemas
from dscc.frontends.onnx.check import MOST_ELEMENTS
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.patterns import MOVERS
from dscc.frontends.onnx.registry import Converter, canonical_domain
from dscc.frontends.onnx.values import Value, static

MOST_DIMS = 64  # of a tensor, as NumPy has it
Inputs = Sequence[Value | None]


def check_types(node: Node, inputs: Inputs) -> None:
    """Refuse inputs of types that the standard's operator does not take.

    Raises:
        FrontendError: naming the input, its type, and what is allowed.
    """
    domain = canonical_domain(node.domain)
    variables: dict[str, tuple[int, str]] = {}
    for index, value in enumerate(inputs):
        formal = _formal(domain, node.op, node.opset, index)
        found = None if value is None else _type(kinds.kind_of(value))
        if found is None or formal is None:
            continue
        name, variable, allowed = formal
        # What is moved, other than indices and conditions, may be of types newer than what the standard says.
        moved = node.op in MOVERS and value is not None and value.coded and "tensor(float)" in allowed
        if allowed and found not in allowed and not moved:
            raise node.error(
                f"input {index} ('{name}') is of type {found}; the operator takes {', '.join(sorted(allowed))}"
            )
        before, expected = variables.setdefault(variable, (index, found))
        if variable and found != expected:
            raise node.error(
                f"input {index} ('{name}') is of type {found}, and input {before} of type {expected}; they must be of "
                f"one type"
            )


def check_count(node: Node, function: Converter, inputs: Inputs) -> None:
    """Refuse inputs that are missing or too many for a converter.

    Raises:
        FrontendError: naming the input.
    """
    least, most, names = _signature(function)
    if not least <= len(inputs) <= most:
        allowed = str(least) if least == most else f"{least} or more" if most >= _MANY else f"{least} to {most}"
        raise node.error(f"it has {len(inputs)} inputs; the operator takes {allowed}")
    for index, (name, value) in enumerate(zip(names, inputs, strict=False)):
        if name and value is None:
            raise node.error(f"input {index} ('{name}') is missing; the operator requires it")


def check_output(what: str, value: Value) -> None:
    """Refuse an output that has a negative dimension, or is larger than what the model may state of its inputs.

    Args:
        what: how errors call the node.

    Raises:
        FrontendError: naming the output and its shape.
    """
    if value.data is not None or not isinstance(value.expr.ty, relax.TensorType) or value.expr.ty.shape is None:
        return
    known = [static(dim) for dim in value.shape]
    shape = [str(dim) for dim in value.shape]
    if any(dim is not None and dim < 0 for dim in known):
        raise FrontendError(f"{what}: its output '{value.name}' has shape {shape}; a dimension may not be negative")
    elements = math.prod(max(dim or 1, 1) for dim in known)
    if elements > MOST_ELEMENTS or len(known) > MOST_DIMS:
        raise FrontendError(
            f"{what}: its output '{value.name}' has shape {shape}, {elements} elements or more; allowed: "
            f"{MOST_ELEMENTS} in up to {MOST_DIMS} dimensions"
        )


def refusal(node: Node, inputs: Inputs) -> str | None:
    """What the standard's own inference of types and shapes has against a node; None if nothing, or if it is not one of
    the standard's operators.
    """
    schema = schemas.schema(canonical_domain(node.domain), node.op, node.opset)
    if schema is None:
        return None
    names = [f"i{index}" if value is not None else "" for index, value in enumerate(inputs)]
    copy = onnx.helper.make_node(node.op, names, list(node.proto.output), domain=node.domain)
    copy.attribute.extend(node.attributes.values())
    types, known = {}, {}
    for name, value in zip(names, inputs, strict=True):
        if value is not None:
            types[name] = kinds.to_type(kinds.kind_of(value))
            data = None if value.coded else value.constant
            if data is not None and data.dtype.kind in "iuf" and data.size <= 64:
                known[name] = onnx.numpy_helper.from_array(data)
    imports = [onnx.helper.make_opsetid(domain, version) for domain, version in node.opsets.items()]
    try:
        onnx.shape_inference.infer_node_outputs(schema, copy, types, known, opset_imports=imports)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, ValueError) as err:
        return str(err)
    return None


_MANY = 2**31 - 1


@cache
def _signature(function: Converter) -> tuple[int, int, tuple[str, ...]]:
    """How many inputs a converter takes, and the name of each that it cannot do without ("" for the others)."""
    parameters = list(inspect.signature(function).parameters.values())[1:]  # the first is the node
    places = [p for p in parameters if p.kind == p.POSITIONAL_OR_KEYWORD]
    most = _MANY if any(p.kind == p.VAR_POSITIONAL for p in parameters) else len(places)
    least = sum(p.default is p.empty for p in places)
    needed = [p.default is p.empty and p.annotation in ("Value", Value) for p in places]
    return least, most, tuple(p.name if need else "" for p, need in zip(places, needed, strict=True))


@cache
def _formal(domain: str, op: str, opset: int, index: int) -> tuple[str, str, frozenset[str]] | None:
    """Of an input: its name, its type variable ("" if it shares it with none), and the types of all versions."""
    schema = schemas.schema(domain, op, opset)
    if schema is None or not schema.inputs or not (formal := _at(schema, index)):
        return None
    allowed = [each.types for version in schemas.versions(domain, op) if (each := _at(version, index)) is not None]
    shared = formal.type_str if "(" not in formal.type_str and formal.is_homogeneous else ""
    return formal.name, shared, frozenset().union(*allowed)


def _at(schema: Any, index: int) -> Any:
    """The formal parameter of an input; the last may stand for any number."""
    if index < len(schema.inputs):
        return schema.inputs[index]
    variadic = onnx.defs.OpSchema.FormalParameterOption.Variadic
    return schema.inputs[-1] if schema.inputs and schema.inputs[-1].option == variadic else None


def _type(kind: Any) -> str | None:
    """A type as the standard writes it; None for a sequence whose elements are still open."""
    if isinstance(kind, kinds.TensorKind):
        return f"tensor({onnx_name(kind.dtype)})"
    if getattr(kind, "empty", False):
        return None
    inner = _type(kind.element)
    return inner and (f"seq({inner})" if isinstance(kind, kinds.SequenceKind) else f"optional({inner})")
