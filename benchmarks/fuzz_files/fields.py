"""Changes of protobuf messages that know nothing of ONNX: any field of any message within a model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from google.protobuf.descriptor import FieldDescriptor as Field
from google.protobuf.message import Message

NUMBERS = (
    0, 1, -1, 2, 3, 7, 8, 16, 17, 63, 64, 255, 1000, 65536, 10**6, 2**31 - 1, 2**31, -(2**31), 2**32, 2**40, 2**62,
    2**63 - 1, -(2**63),
)  # fmt: skip
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-30, 1e30, 3e38, float("inf"), float("-inf"), float("nan"))
TEXTS = (
    "", " ", "x", "y", "\n", "'", "\u202e", "a\0b", "ai.onnx", "ai.onnx.ml", "com.microsoft", "{}", "%s", "../x", "-1",
    "n*2", "é" * 40, "n" * 3000,
)  # fmt: skip
Random = np.random.Generator


def pick(rng: Random, options: Any) -> Any:
    return options[int(rng.integers(len(options)))]


def within(rng: Random, message: Message) -> Message:
    """A message within `message`, or itself; each step down is into a random one of its fields."""
    while True:
        inner = [field for field, _ in message.ListFields() if field.type == Field.TYPE_MESSAGE]
        if not inner or rng.random() < 0.1:
            return message
        field = pick(rng, inner)
        value = getattr(message, field.name)
        message = value if not _repeated(field) else pick(rng, value)


def messages(message: Message, kind: str) -> Iterator[Any]:
    """Every message of type `kind` within `message`."""
    if message.DESCRIPTOR.name == kind:
        yield message
    for field, value in message.ListFields():
        if field.type == Field.TYPE_MESSAGE:
            for each in value if _repeated(field) else [value]:
                yield from messages(each, kind)


def change(rng: Random, message: Any) -> None:
    """Change one field of a message, set or not."""
    field = pick(rng, message.DESCRIPTOR.fields)
    if rng.random() < 0.7 and message.ListFields():
        field = pick(rng, message.ListFields())[0]
    name = field.name
    if not _repeated(field):
        if field.type == Field.TYPE_MESSAGE:
            if message.HasField(name) and rng.random() < 0.5:
                message.ClearField(name)
            else:
                getattr(message, name).SetInParent()
        elif rng.random() < 0.15:
            message.ClearField(name)
        else:
            setattr(message, name, scalar(rng, field, getattr(message, name)))
        return
    items = getattr(message, name)
    position = int(rng.integers(len(items) + 1))
    choice = pick(rng, ("add", "delete", "double", "swap", "set", "clear"))
    if choice == "clear":
        message.ClearField(name)
    elif choice == "add" or not items:
        added = items.add() if field.type == Field.TYPE_MESSAGE else scalar(rng, field, field.default_value)
        if field.type != Field.TYPE_MESSAGE:
            items.insert(position, added)
    elif choice == "delete":
        del items[position % len(items)]
    elif choice == "double":
        items.insert(position, items[position % len(items)])
    elif choice == "swap":
        one, other = position % len(items), int(rng.integers(len(items)))
        order = list(range(len(items)))
        order[one], order[other] = order[other], order[one]
        kept = [_copied(item) for item in items]
        del items[:]
        items.extend(kept[index] for index in order)
    elif field.type == Field.TYPE_MESSAGE:
        change(rng, items[position % len(items)])
    else:
        items[position % len(items)] = scalar(rng, field, items[position % len(items)])


def scalar(rng: Random, field: Any, old: Any) -> Any:
    """Another value of a field that is no message."""
    if field.type == Field.TYPE_ENUM:
        return pick(rng, field.enum_type.values).number
    if field.type in (Field.TYPE_FLOAT, Field.TYPE_DOUBLE):
        return pick(rng, FLOATS) if rng.random() < 0.7 else old * 2 + 1
    if field.type == Field.TYPE_STRING:
        return pick(rng, TEXTS) if rng.random() < 0.7 else f"{old}_"
    if field.type == Field.TYPE_BYTES:
        return altered(rng, old)
    low, high = _RANGES[field.cpp_type]
    value = old + int(rng.integers(-2, 3)) if rng.random() < 0.3 else pick(rng, NUMBERS)
    return min(max(value, low), high)


_RANGES = {
    Field.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    Field.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    Field.CPPTYPE_UINT32: (0, 2**32 - 1),
    Field.CPPTYPE_UINT64: (0, 2**64 - 1),
}


def altered(rng: Random, content: bytes) -> bytes:
    """Bytes with a place overwritten, cut out, doubled, zeroed or cut off."""
    start = int(rng.integers(len(content) + 1))
    size = min(int(2 ** rng.integers(0, 8)), len(content) - start)
    old = content[start : start + size]
    choice = pick(rng, ("bit", "noise", "cut", "double", "zero", "ones", "end", "insert"))
    if choice == "bit" and old:
        new = bytes([old[0] ^ 1 << int(rng.integers(8))]) + old[1:]
    elif choice == "noise":
        new = rng.bytes(size)
    elif choice == "cut":
        new = b""
    elif choice == "double":
        new = old + old
    elif choice == "zero":
        new = bytes(size)
    elif choice == "ones":
        new = b"\xff" * size
    elif choice == "end":
        return content[:start]
    else:
        new = old + rng.bytes(int(rng.integers(1, 9)))
    return content[:start] + new + content[start + size :]


def _repeated(field: Any) -> bool:
    return isinstance(field.default_value, list)  # what tells in every version of protobuf


def _copied(item: Any) -> Any:
    if not isinstance(item, Message):
        return item
    copy = type(item)()
    copy.CopyFrom(item)
    return copy
