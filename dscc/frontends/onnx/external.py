"""Weights that a model keeps in files beside it: checked before anything is opened, then mapped, not read.

The files must lie in the model's folder, also after symbolic links are followed, and have one name only: a hard link
may be a file from anywhere. Each weight has a range of its own within its file.

After `attach`, the location of an external tensor is the absolute path of a file that was checked; `mapped` gives its
content. Tensors in attributes of nodes are read, since onnx's own functions and other engines look into
them.
"""

from __future__ import annotations

import itertools
import math
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from dscc import scratch
from dscc.errors import FrontendError

Array = np.ndarray[Any, np.dtype[Any]]
# Bits of the types that are packed; some came with a later onnx than the first that we take.
_BITS = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2, "FLOAT6E2M3": 6, "FLOAT6E3M2": 6}
_SUB_BYTE = {getattr(onnx.TensorProto, name): bits for name, bits in _BITS.items() if hasattr(onnx.TensorProto, name)}


def is_external(tensor: onnx.TensorProto) -> bool:
    return tensor.data_location == onnx.TensorProto.EXTERNAL


def byte_size(tensor: onnx.TensorProto) -> int | None:
    """Bytes that the dims and the type ask for; None for strings and unknown types."""
    elements = math.prod(tensor.dims)
    if tensor.data_type in _SUB_BYTE:
        return -(-elements * _SUB_BYTE[tensor.data_type] // 8)
    if tensor.data_type == onnx.TensorProto.STRING:
        return None
    try:
        return elements * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except (KeyError, ValueError, TypeError):
        return None


@dataclass(frozen=True)
class _Range:
    """Where a weight lies: `start` and `size` in bytes of the file `location`, a path within the model's folder."""

    what: str
    location: str
    start: int
    size: int


def attach(tensors: Iterable[tuple[str, onnx.TensorProto, bool]], model: Path) -> None:
    """Check where external tensors lie, and make their locations absolute or read them.

    Args:
        tensors: what each is called in errors, the tensor, and whether it is read rather than mapped.
        model: path of the model file.

    Raises:
        FrontendError: a location is outside the model's folder or missing; a range is past the end of its file, or
        overlaps another.
    """
    folder = model.parent.resolve()
    found = [(_range(what, tensor), tensor, read) for what, tensor, read in tensors if is_external(tensor)]
    files = {place.location: _file(place, folder) for place, _, _ in found}
    for place, _, _ in found:
        size = files[place.location].stat().st_size
        if place.start + place.size > size:
            raise FrontendError(
                f"{place.what} lies at bytes {place.start} to {place.start + place.size} of '{place.location}', "
                f"which has {size}; the file is truncated, or belongs to another model"
            )
    _refuse_overlaps([place for place, _, _ in found], files)
    for place, tensor, read in found:
        if read:
            raw = _map(str(files[place.location]))[place.start : place.start + place.size].tobytes()
            del tensor.external_data[:]
            tensor.data_location = onnx.TensorProto.DEFAULT
            tensor.raw_data = raw
        else:
            _place(tensor, files[place.location], place.start, place.size)


def point(tensor: onnx.TensorProto, file: Path, start: int, end: int) -> None:
    """Let a tensor have the bytes from `start` to `end` of a file, in the form that `attach` gives it.

    Raises:
        FrontendError: these are not as many as it needs.
    """
    if byte_size(tensor) != end - start:
        raise FrontendError(damaged(f"weight '{tensor.name}'", tensor, end - start))
    _place(tensor, file.resolve(), start, end - start)


def damaged(what: str, tensor: onnx.TensorProto, size: int) -> str:
    """The text for a tensor with `size` bytes, where its shape asks for another number of them."""
    return (
        f"{what} is damaged: it has {size} bytes, but its shape {list(tensor.dims)} and type ask for "
        f"{byte_size(tensor)}"
    )


def _place(tensor: onnx.TensorProto, file: Path, start: int, size: int) -> None:
    tensor.data_location = onnx.TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in (("location", file), ("offset", start), ("length", size)):
        tensor.external_data.add(key=key, value=str(value))


def mapped(tensor: onnx.TensorProto) -> Array:
    """The content of a tensor that `attach` has checked, without reading it where its elements are whole bytes."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    start, size = int(entries["offset"]), int(entries["length"])
    content = _map(entries["location"])[start : start + size]
    if tensor.data_type in _SUB_BYTE:
        copy = onnx.TensorProto(data_type=tensor.data_type, dims=tensor.dims, raw_data=content.tobytes())
        return onnx.numpy_helper.to_array(copy)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).newbyteorder("<")
    return content.view(dtype).reshape(tuple(tensor.dims))


def _map(path: str) -> Array:
    """A file as bytes."""
    status = os.stat(path)
    return _mapping(path, status.st_ino, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=8)
def _mapping(path: str, inode: int, written_ns: int, size: int) -> Array:
    """One mapping for all weights of a file, as long as the file is the same."""
    return np.frombuffer(scratch.mapped(path, size), np.uint8) if size else np.empty(0, np.uint8)


def _range(what: str, tensor: onnx.TensorProto) -> _Range:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if not entries.get("location"):
        raise FrontendError(f"{what} is kept in an external file, but no location is given; export the model again")
    if isinstance(entries["location"], bytes):  # so protobuf gives what is not UTF-8
        raise FrontendError(f"{what} is kept in {entries['location']!r}, which is no name in UTF-8; rename the file")
    size = byte_size(tensor)
    if size is None:
        kind = onnx.TensorProto.DataType.Name(tensor.data_type) if tensor.data_type in _TYPES else tensor.data_type
        raise FrontendError(f"{what} is kept in an external file, which elements of type '{kind}' cannot be")
    numbers = {}
    for key, default in (("offset", 0), ("length", size)):
        text = entries.get(key, str(default))
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            raise FrontendError(f"{what} has the {key} '{text}' in its external file; it must be a number of bytes")
        numbers[key] = int(text)
    if numbers["length"] != size:
        raise FrontendError(
            f"{what} has {numbers['length']} bytes in '{entries['location']}', but its shape {list(tensor.dims)} and "
            f"type ask for {size}; export the model again"
        )
    return _Range(what, entries["location"], numbers["offset"], size)


_TYPES = onnx.TensorProto.DataType.values()


def _file(place: _Range, folder: Path) -> Path:
    """The file of a range, checked without opening it."""
    outside = FrontendError(
        f"{place.what} is kept in '{place.location}', outside the model's folder; only files beside the model are read"
    )
    parts = place.location.replace("\\", "/").split("/")
    if "\0" in place.location or place.location.startswith(("/", "\\")) or ":" in parts[0] or ".." in parts:
        raise outside
    try:
        target = (folder / place.location).resolve()
        if not target.is_relative_to(folder):
            raise outside
        status = target.stat()
    except FileNotFoundError:
        raise FrontendError(
            f"{place.what} is kept in '{place.location}', which is missing; put it beside the model"
        ) from None
    except (OSError, ValueError, RuntimeError) as err:  # a loop of links, a name that is too long, no permission
        reason = getattr(err, "strerror", None) or type(err).__name__
        raise FrontendError(f"{place.what} is kept in '{place.location}', which cannot be read: {reason}") from err
    if not stat.S_ISREG(status.st_mode):
        raise FrontendError(f"{place.what} is kept in '{place.location}', which is not a file")
    if status.st_nlink > 1:
        raise FrontendError(
            f"{place.what} is kept in '{place.location}', a hard link, which may be a file from outside the model's "
            f"folder; make it a copy"
        )
    if not os.access(target, os.R_OK):
        raise FrontendError(f"{place.what} is kept in '{place.location}', which cannot be read: permission denied")
    return target


def _refuse_overlaps(places: Iterable[_Range], files: dict[str, Path]) -> None:
    ordered = sorted((str(files[p.location]), p.start, p.start + p.size, p.what) for p in places if p.size)
    for (file, _, end, what), (other, start, _, next_what) in itertools.pairwise(ordered):
        if file == other and start < end:
            raise FrontendError(
                f"{next_what} starts at byte {start} of '{Path(file).name}', inside {what}, which ends at {end}; "
                f"weights may not overlap"
            )
