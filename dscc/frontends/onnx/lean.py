"""Parsing a model file without the content of its large weights, which stays where it is and is mapped.

A parsed message holds a copy of every weight. So the file is walked by the rules of protobuf's encoding
(https://protobuf.dev/programming-guides/encoding) as far down as `model.graph.initializer[i].raw_data`, and what is
parsed is the rest. A file that does not keep the rules is not read here; the parser says what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import onnx

from dscc.scratch import LEAST_BYTES

GRAPH = onnx.ModelProto.DESCRIPTOR.fields_by_name["graph"].number
INITIALIZER = onnx.GraphProto.DESCRIPTOR.fields_by_name["initializer"].number
RAW_DATA = onnx.TensorProto.DESCRIPTOR.fields_by_name["raw_data"].number
_VARINT, _EIGHT, _SIZED, _FOUR = 0, 1, 2, 5


class Irregular(Exception):
    """The file does not keep the rules, or uses forms that no writer of ONNX uses."""


@dataclass
class Lean:
    """A model file without large weights.

    Attributes:
        text: the file without them.
        weights: index among the graph's initializers to where in the file its content lies, first and past the last.
    """

    text: bytes = b""
    weights: dict[int, tuple[int, int]] = field(default_factory=dict)


def lean(data: memoryview) -> Lean:
    """The content of a model file without large weights.

    Raises:
        Irregular: only protobuf itself can read it.
    """
    found = Lean()
    count = 0

    def tensor(start: int, end: int) -> list[bytes]:
        nonlocal count
        count += 1
        places = [(at, stop) for _, at, stop in _sized(data, start, end, RAW_DATA)]
        if len(places) != 1 or places[0][1] - places[0][0] < LEAST_BYTES:
            return [bytes(data[start:end])]
        found.weights[count - 1] = places[0]
        return _rewritten(data, start, end, RAW_DATA, None)

    def graph(start: int, end: int) -> list[bytes]:
        return _rewritten(data, start, end, INITIALIZER, tensor)

    found.text = b"".join(_rewritten(data, 0, len(data), GRAPH, graph))
    return found


def _rewritten(
    data: memoryview, start: int, end: int, wanted: int, inner: Callable[[int, int], list[bytes]] | None
) -> list[bytes]:
    """The message between `start` and `end` with what `inner` makes of its fields `wanted`; without them if None."""
    parts: list[bytes] = []
    copied = start
    for tag, at, stop in _sized(data, start, end, wanted):
        parts.append(bytes(data[copied:tag]))
        if inner is not None:
            content = inner(at, stop)
            parts += [_varint(wanted << 3 | _SIZED), _varint(sum(map(len, content))), *content]
        copied = stop
    return [*parts, bytes(data[copied:end])]


def _sized(data: memoryview, start: int, end: int, wanted: int) -> Iterator[tuple[int, int, int]]:
    """Of every field `wanted` of a message: where its tag starts, and where its content does and ends."""
    at = start
    while at < end:
        tag_at = at
        tag, at = _read(data, at, end)
        kind = tag & 7
        if kind == _VARINT:
            content, stop = at, _read(data, at, end)[1]
        elif kind == _SIZED:
            size, content = _read(data, at, end)
            stop = content + size
        elif kind in (_EIGHT, _FOUR):
            content, stop = at, at + (8 if kind == _EIGHT else 4)
        else:
            raise Irregular
        if stop > end or (tag >> 3 == wanted and kind != _SIZED):
            raise Irregular
        if tag >> 3 == wanted:
            yield tag_at, content, stop
        at = stop


def _read(data: memoryview, at: int, end: int) -> tuple[int, int]:
    """A number of variable length, and where it ends."""
    value = shift = 0
    while at < end and shift < 64:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise Irregular


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])
