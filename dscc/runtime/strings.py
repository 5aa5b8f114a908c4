"""Tensors of strings: NumPy's arrays of objects, and what carries them through compiled code.

Compiled code only hands them on. A tensor of strings is a vector of bytes there: int64 numbers in the machine's order
(the rank, the dimensions, and where each string starts, with the end of the last), then the strings in UTF-8.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def encode(strings: Array) -> Array:
    """The bytes of an array of strings.

    Raises:
        TypeError: it has something else in it.
    """
    texts = []
    for item in strings.reshape(-1).tolist():
        if not isinstance(item, str | bytes):
            raise TypeError(f"expected strings, got {type(item).__name__}")
        texts.append(item if isinstance(item, bytes) else item.encode())
    starts = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    numbers = np.concatenate([np.array([strings.ndim, *strings.shape], np.int64), starts])
    return np.frombuffer(numbers.tobytes() + b"".join(texts), np.uint8)


def decode(content: bytes) -> Array:
    """The array of strings that `encode` made these bytes of."""
    rank = int(np.frombuffer(content, np.int64, 1)[0])
    shape = np.frombuffer(content, np.int64, rank, 8)
    count = int(np.prod(shape, dtype=np.int64))
    starts = np.frombuffer(content, np.int64, count + 1, 8 * (1 + rank))
    base = 8 * (2 + rank + count)
    array = np.empty(count, dtype=object)
    for i in range(count):
        array[i] = content[base + int(starts[i]) : base + int(starts[i + 1])].decode(errors="replace")
    return array.reshape(shape)
