"""Scan: a loop along an axis of its inputs; its loop is that of Loop (loop.py)."""

from __future__ import annotations

from typing import Any

import onnx
from onnx import helper
from tvm import relax

from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.ops.loop import Iteration, run
from dscc.frontends.onnx.registry import converter
from dscc.frontends.onnx.shapes import shape_expr
from dscc.frontends.onnx.values import Dim, Value

# The domain of the operator that Scan of opset 8 is made of; no model can name it, for `.` is in no ONNX identifier.
_OWN_DOMAIN = "dscc.scan"


@converter("Scan", since=9, patterns=True)
def scan(node: Node, *inputs: Value | None) -> list[Value]:
    """The final states, then for each scan output the slices of all iterations along an axis of their own."""
    given = _all(node, inputs)
    count = int(node.required("num_scan_inputs"))
    states, scanned = given[: len(given) - count], given[len(given) - count :]
    axes = [
        node.axis(axis, value.ndim)
        for axis, value in zip(node.attr("scan_input_axes", [0] * count), scanned, strict=True)
    ]
    directions = node.attr("scan_input_directions", [0] * count)
    body = node.required("body")
    stacked = len(body.output) - len(states)
    results = _scan(
        node, None, states, [_first(node, value, axis) for value, axis in zip(scanned, axes, strict=True)], directions,
        node.attr("scan_output_directions", [0] * stacked),
    )  # fmt: skip
    outputs = results[len(states) :]
    axes = [
        node.axis(axis, value.ndim)
        for axis, value in zip(node.attr("scan_output_axes", [0] * stacked), outputs, strict=True)
    ]
    return [*results[: len(states)], *(_last(node, value, axis) for value, axis in zip(outputs, axes, strict=True))]


@converter("Scan", patterns=True)
def scan_batches(node: Node, lengths: Value | None, *inputs: Value | None) -> list[Value]:
    """Opset 8: all inputs and outputs have a batch axis in front, and each sequence may have a length of its own."""
    given = _all(node, inputs)
    body = node.required("body")
    count = int(node.required("num_scan_inputs"))
    names = [f"dscc.in{i}" for i in range(len(given))]
    length = "dscc.length" if lengths is not None else ""
    inner = helper.make_node(
        "Scan", [length, *names], [f"dscc.out{i}" for i in range(len(body.output))], domain=_OWN_DOMAIN, body=body,
        num_scan_inputs=count, directions=node.attr("directions", [0] * count),
    )  # fmt: skip
    slices = [length, *names] if lengths is not None else names
    graph = helper.make_graph(
        [inner],
        "batch",
        [helper.make_empty_tensor_value_info(name) for name in slices],
        [helper.make_empty_tensor_value_info(name) for name in inner.output],
    )
    values = [lengths, *given] if lengths is not None else given
    for value in given[1:]:
        node.require_equal(value.shape[0], given[0].shape[0], "the first dimension of all inputs of a Scan")
    return run(node, _walk(node, graph, None, [], values, slices, [0] * len(values), [0] * len(body.output)))


@converter("Scan", domain=_OWN_DOMAIN, patterns=True)
def scan_sequence(node: Node, length: Value | None, *inputs: Value | None) -> list[Value]:
    """One batch of `scan_batches`: steps behind the sequence's length are not made, and give zeros."""
    given = _all(node, inputs)
    count = int(node.required("num_scan_inputs"))
    states, scanned = given[: len(given) - count], given[len(given) - count :]
    stacked = len(node.required("body").output) - len(states)
    results = _scan(node, length, states, scanned, node.attr("directions"), [0] * stacked)
    if length is None:
        return results
    return [*results[: len(states)], *(_padded(node, value, scanned[0].shape[0]) for value in results[len(states) :])]


def _all(node: Node, inputs: tuple[Value | None, ...]) -> list[Value]:
    given = [value for value in inputs if value is not None]
    if len(given) != len(inputs) or not given:
        raise node.error("an input is left out; a Scan needs all of its initial states and scan inputs")
    return given


def _scan(
    node: Node, length: Value | None, states: list[Value], scanned: list[Value], directions: list[int], out: list[int]
) -> list[Value]:
    body = node.required("body")
    names = [info.name for info in body.input]
    if len(names) != len(states) + len(scanned):
        raise node.error(f"its body has {len(names)} inputs; the node has {len(states) + len(scanned)}")
    return run(node, _walk(node, body, length, states, scanned, names, directions, out))


def _walk(
    node: Node, body: onnx.GraphProto, length: Value | None, states: list[Value], scanned: list[Value],
    names: list[str], directions: list[int], out: list[int],
) -> Iteration:  # fmt: skip
    if not scanned:
        raise node.error("it has no scan input; a Scan needs one at least")
    steps = scanned[0].shape[0]
    for value in scanned[1:]:
        node.require_equal(value.shape[0], steps, "the number of slices of all scan inputs")
    trips = node.symbolic([steps]) if length is None else length
    return Iteration(
        body, trips, None, False, states, names[: len(states)], scanned=scanned, slices=names[len(states) :],
        backwards=[bool(d) for d in directions], stacked_backwards=[bool(d) for d in out],
    )  # fmt: skip


def _first(node: Node, value: Value, axis: int) -> Value:
    """The tensor with `axis` in front of the others."""
    order = [axis, *(other for other in range(value.ndim) if other != axis)]
    return value if axis == 0 else node.retype(relax.op.permute_dims(value.expr, order), value.element)


def _last(node: Node, value: Value, axis: int) -> Value:
    """The tensor with its first axis at the place `axis`."""
    order: list[Any] = list(range(1, value.ndim))
    order.insert(axis, 0)
    return value if axis == 0 else node.retype(relax.op.permute_dims(value.expr, order), value.element)


def _padded(node: Node, value: Value, steps: Dim) -> Value:
    """The tensor with zeros behind it, up to `steps` slices."""
    missing = node.dims.simplify(steps - value.shape[0])
    zeros = node.emit(relax.op.zeros(shape_expr([missing, *value.shape[1:]]), value.dtype))
    joined = node.emit(relax.op.concat([value.expr, zeros], axis=0))
    return node.retype(node.restate(joined, [steps, *value.shape[1:]], "the padded scan output"), value.element)
