"""Weights as a safetensors file whose tensors all start at a multiple of 64 bytes.

The format (https://github.com/huggingface/safetensors) allows no hole between tensors, so the padding is tensors too,
of type U8, with names that start with `.pad`. Any safetensors reader takes the file.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np

ALIGN = 64
_PAD = ".pad"
_LENGTH = struct.Struct("<Q")

CODES = {
    "bool": "BOOL",
    "int8": "I8",
    "uint8": "U8",
    "int16": "I16",
    "uint16": "U16",
    "int32": "I32",
    "uint32": "U32",
    "int64": "I64",
    "uint64": "U64",
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "float64": "F64",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
}
"""NumPy's (or ml_dtypes') name of an element type to the format's."""

_NAMES = {code: name for name, code in CODES.items()}


class StoredTensor(NamedTuple):
    """A tensor in the file: `offset` is in bytes from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int


def pack(tensors: Mapping[str, np.ndarray[Any, Any]]) -> Iterator[bytes | memoryview]:
    """The file's bytes in pieces, without a copy of the tensors where they are contiguous.

    Raises:
        ValueError: an element type has no code in the format, or a name is taken by the padding.
    """
    import numpy as np

    header: dict[str, Any] = {}
    body: list[bytes | memoryview] = []
    end = 0
    for name, tensor in tensors.items():
        dtype = tensor.dtype.name
        if dtype not in CODES or name.startswith(_PAD):
            raise ValueError(f"weight '{name}' of type {dtype} cannot be stored")
        little = np.ascontiguousarray(tensor).astype(tensor.dtype.newbyteorder("<"), copy=False)
        data = little.reshape(-1).view(np.uint8).data
        header[name] = {
            "dtype": CODES[dtype],
            "shape": list(tensor.shape),
            "data_offsets": [end, end + data.nbytes],
        }
        body.append(data)
        end += data.nbytes
        if padding := -end % ALIGN:
            header[f"{_PAD}{len(body)}"] = {"dtype": "U8", "shape": [padding], "data_offsets": [end, end + padding]}
            body.append(bytes(padding))
            end += padding
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(_LENGTH.size + len(text)) % ALIGN)
    yield _LENGTH.pack(len(text)) + text
    yield from body


def index(content: memoryview) -> dict[str, StoredTensor]:
    """The tensors of a file, by name, without the padding.

    Raises:
        KeyError, TypeError, ValueError: the content is not such a file.
    """
    (length,) = _LENGTH.unpack_from(content)
    start = _LENGTH.size + length
    tensors = {}
    for name, entry in json.loads(bytes(content[_LENGTH.size : start])).items():
        if not name.startswith(_PAD) and name != "__metadata__":
            begin, end = entry["data_offsets"]
            if not 0 <= begin <= end <= len(content) - start:
                raise ValueError(f"weight '{name}' lies outside of the file")
            tensors[name] = StoredTensor(name, _NAMES[entry["dtype"]], tuple(entry["shape"]), start + begin)
    return tensors
