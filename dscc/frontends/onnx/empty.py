"""Which dimensions of the inputs may be 0, as the past of a decoder is when it reads its prompt.

Every dimension is taken to be at least 1 unless the graph shows that it copes with none: most shape arithmetic could
not be decided otherwise (`x[:, -1:]` has one column only where x has any). It shows it where all that it does along the
dimension is to join it with more, to cut it, or to ask for its length.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import onnx

_KEEP = frozenset({"Identity", "Cast", "Slice", "DequantizeLinear"})  # along each axis that is not the operator's own
_ASK = frozenset({"Shape", "Size"})
# Operators that take keys and values of earlier tokens: input number to the axis of the tokens.
_PAST = {
    "Attention": {4: 2, 5: 2},
    "GroupQueryAttention": {3: 2, 4: 2},
    "MultiHeadAttention": {6: 2, 7: 2},
}
_PAST_IN_ONE = {"Attention": {4: 3}}  # com.microsoft: keys and values in one tensor


def may_be_empty(graph: onnx.GraphProto, dims: Mapping[str, Sequence[int | str]]) -> set[str]:
    """The names of the dimensions that may be 0.

    Args:
        graph: of the model.
        dims: input name to its dimensions: numbers and names.
    """
    places: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for name, shape in dims.items():
        for axis, dim in enumerate(shape):
            if isinstance(dim, str):
                places[dim].append((name, axis))
    users = _users(graph)
    return {
        dim
        for dim, where in places.items()
        if any(c.isalnum() for c in dim) and all(_copes(users, name, axis, len(dims[name])) for name, axis in where)
    }


Users = Mapping[str, Sequence[tuple[onnx.NodeProto, int]]]


def _users(graph: onnx.GraphProto) -> Users:
    """Value name to the nodes that take it, also those in subgraphs, each with the number of the input."""
    users: dict[str, list[tuple[onnx.NodeProto, int]]] = defaultdict(list)
    for node in _nodes(graph):
        for index, name in enumerate(node.input):
            users[name].append((node, index))
    return users


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g)


def _copes(users: Users, name: str, axis: int, rank: int) -> bool:
    """Whether everything that is done with the value along `axis` has a meaning when there is nothing."""
    waiting, joined = [(name, axis)], False
    while waiting:
        name, axis = waiting.pop()
        for node, index in users.get(name, ()):
            if node.op_type in _ASK or _past(node, index) == axis:
                joined = joined or node.op_type not in _ASK
            elif node.op_type == "Concat" and int(_attribute(node, "axis", 0)) % rank == axis:
                joined = True
            elif node.op_type == "Transpose" and index == 0:
                perm = list(_attribute(node, "perm", range(rank)[::-1]))
                if axis not in perm:
                    return False
                waiting.append((node.output[0], perm.index(axis)))
            elif node.op_type in _KEEP and index == 0:
                waiting.append((node.output[0], axis))
            else:
                return False
    return joined


def _past(node: onnx.NodeProto, index: int) -> int | None:
    """The axis of earlier tokens in the input number `index` of an attention operator."""
    table = _PAST_IN_ONE if node.domain == "com.microsoft" and node.op_type in _PAST_IN_ONE else _PAST
    return table.get(node.op_type, {}).get(index)


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    found = next((a for a in node.attribute if a.name == name), None)
    return default if found is None else onnx.helper.get_attribute_value(found)
