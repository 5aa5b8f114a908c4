"""Large arrays in files rather than in memory, so that a model larger than the memory can be compiled.

Weights are mapped from the model's files, and what is made of them while compiling goes into temporary files without
names. Either way the system can take the memory back at any time; `done` tells it that now is a good one, which keeps
what a compile has resident small as well. Temporary files go where Python puts them (`TMPDIR`).
"""

from __future__ import annotations

import math
import mmap
import os
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

LEAST_BYTES = 1 << 20  # smaller arrays stay in memory
PIECE_BYTES = 64 << 20
_SEGMENT_BYTES = 256 << 20
_ALIGN = 4096

_lock = threading.Lock()
_live: dict[int, tuple[int, weakref.ref[mmap.mmap]]] = {}  # address of a mapping to its size and itself
_segment: tuple[int, mmap.mmap, int, int] | None = None  # descriptor, mapping, bytes in use, size


def stored(array: Array) -> Array:
    """The array, C-contiguous; a copy in a temporary file if it is large."""
    import numpy as np

    if array.nbytes < LEAST_BYTES:
        return np.ascontiguousarray(array).reshape(array.shape)  # which makes a vector of a scalar
    copy = empty(array.shape, array.dtype)
    np.copyto(copy, array)
    done(array)
    done(copy)
    return copy


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An array whose content is open; in a temporary file if it is large and the file system has room for it."""
    import numpy as np

    size = math.prod(shape) * dtype.itemsize
    if size >= LEAST_BYTES and (place := _room(size)) is not None:
        return np.frombuffer(place[0], np.uint8, size, place[1]).view(dtype).reshape(shape)
    return np.empty(shape, dtype)


def mapped(file: Path | str | int, size: int) -> mmap.mmap:
    """The first `size` bytes of a file, which is not changed by writes to them.

    Raises:
        OSError: the file cannot be mapped.
    """
    fd = file if isinstance(file, int) else os.open(file, os.O_RDONLY)
    try:
        mapping = mmap.mmap(fd, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    finally:
        if not isinstance(file, int):
            os.close(fd)
    _register(mapping, size)
    return mapping


def done(array: Any) -> None:
    """The content of an array, or of anything with a buffer, is not needed soon; nothing happens to what is in memory.

    It is still there: what is asked for again is read again.
    """
    import numpy as np

    if not isinstance(array, np.ndarray) and not len(array):
        return
    content = array if isinstance(array, np.ndarray) else np.frombuffer(array, np.uint8)
    start, size = content.__array_interface__["data"][0], content.nbytes
    for begin, (length, reference) in list(_live.items()):
        mapping = reference() if begin <= start < begin + length else None
        if mapping is not None:
            first = -(-(start - begin) // mmap.PAGESIZE) * mmap.PAGESIZE
            end = min(start - begin + size, length) // mmap.PAGESIZE * mmap.PAGESIZE
            if first < end:
                mapping.madvise(mmap.MADV_DONTNEED, first, end - first)


def keep(array: Array) -> None:
    """What lies at an array's place is no longer only what is in its file: nothing there is done with any more."""
    start = array.__array_interface__["data"][0]
    for begin, (length, _) in list(_live.items()):
        if begin <= start < begin + length:
            _live.pop(begin, None)


def pieces(content: memoryview) -> Iterator[memoryview]:
    """A long content in pieces; each is done with when the next one is asked for."""
    for start in range(0, len(content), PIECE_BYTES):
        piece = content[start : start + PIECE_BYTES]
        yield piece
        done(piece)


def _room(size: int) -> tuple[mmap.mmap, int] | None:
    """A mapping of temporary file and where in it there are `size` bytes; None if the file system is full."""
    global _segment
    with _lock:
        try:
            if _segment is None or _segment[2] + size > _segment[3]:
                length = max(size, _SEGMENT_BYTES)
                import tempfile  # only here, as in artifact.py

                with tempfile.TemporaryFile(prefix="dscc-") as file:
                    os.ftruncate(file.fileno(), length)
                    mapping = mmap.mmap(file.fileno(), length)
                    descriptor = os.dup(file.fileno())
                if _segment is not None:
                    os.close(_segment[0])
                _register(mapping, length)
                _segment = (descriptor, mapping, 0, length)
            descriptor, mapping, start, length = _segment
            # Without this a full file system would be found out by a signal that ends the process.
            os.posix_fallocate(descriptor, start, size)
        except OSError:
            return None
        _segment = (descriptor, mapping, -(-(start + size) // _ALIGN) * _ALIGN, length)
        return mapping, start


def _register(mapping: mmap.mmap, size: int) -> None:
    import numpy as np

    for begin in [begin for begin, (_, reference) in _live.items() if reference() is None]:
        del _live[begin]
    address = np.frombuffer(mapping, np.uint8, 1).__array_interface__["data"][0]
    _live[address] = (size, weakref.ref(mapping))
