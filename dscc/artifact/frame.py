"""The bytes of a zip around its members: everything of the file that is not a member's content.

An artifact is a zip whose members are stored as they are, so that weights are mapped rather than read. The frame is a
pure function of the members' names, sizes, checksums and alignments: the writer writes it, the reader makes it again
from the manifest and compares, so that an altered header or padding byte cannot hide. Sizes are always written in the
64-bit form (PKWARE APPNOTE 6.3.10, 4.5.3), so that one code path serves small and large files, and the time of every
member is zip's first day, so that the same input gives the same file.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

_LOCAL = struct.Struct("<IHHHHHIIIHH")
_CENTRAL = struct.Struct("<IHHHHHHIIIHHHHHII")
_END64 = struct.Struct("<IQHHIIQQQQ")
_LOCATOR = struct.Struct("<IIQI")
_END = struct.Struct("<IHHHHIIH")
_ZIP64_SIZES = struct.Struct("<HHQQ")
_ZIP64_PLACE = struct.Struct("<HHQQQ")
_EXTRA = struct.Struct("<HH")

_LOCAL_MAGIC, _CENTRAL_MAGIC, _END64_MAGIC = 0x04034B50, 0x02014B50, 0x06064B50
_LOCATOR_MAGIC, _END_MAGIC = 0x07064B50, 0x06054B50
_VERSION = 45  # the first version of zip that has 64-bit sizes
_UNIX = 3 << 8
_FIRST_DAY = 0x21  # 1980-01-01
_PADDING_ID = 0xD935  # as Android's zipalign marks padding
_SEE_64, _SEE_64_SHORT = 0xFFFFFFFF, 0xFFFF
_MODE = 0o100644 << 16


class Entry(NamedTuple):
    """What the frame needs to know of a member: `crc` is zip's CRC-32 of its content, `align` is in bytes."""

    name: str
    size: int
    crc: int
    align: int


class Frame(NamedTuple):
    """Where each member's content starts, and the bytes between: `gaps[i]` precedes member i, the last one ends it."""

    offsets: tuple[int, ...]
    gaps: tuple[bytes, ...]
    size: int


def frame(entries: Sequence[Entry], comment: bytes) -> Frame:
    """The frame around `entries`, in their order, with `comment` as the last bytes of the file."""
    offsets: list[int] = []
    gaps: list[bytes] = []
    central = b""
    end = 0
    for entry in entries:
        header = _local_header(entry, end)
        gaps.append(header)
        offsets.append(end + len(header))
        central += _central_header(entry, end)
        end = offsets[-1] + entry.size
    tail = central
    tail += _END64.pack(
        _END64_MAGIC, _END64.size - 12, _UNIX | _VERSION, _VERSION, 0, 0, len(entries), len(entries), len(central), end
    )
    tail += _LOCATOR.pack(_LOCATOR_MAGIC, 0, end + len(central), 1)
    tail += _END.pack(_END_MAGIC, 0, 0, _SEE_64_SHORT, _SEE_64_SHORT, _SEE_64, _SEE_64, len(comment))
    gaps.append(tail + comment)
    return Frame(tuple(offsets), tuple(gaps), end + len(gaps[-1]))


def first_member(head: bytes) -> tuple[str, int, int] | None:
    """Name, offset and size of the first member of a file that starts with `head`; None if it is no such file."""
    if len(head) < _LOCAL.size:
        return None
    magic, *_, name_size, extra_size = _LOCAL.unpack_from(head)
    offset = _LOCAL.size + name_size + extra_size
    if magic != _LOCAL_MAGIC or extra_size < _ZIP64_SIZES.size or len(head) < offset:
        return None
    name = head[_LOCAL.size : _LOCAL.size + name_size].decode("ascii", "replace")
    _, _, size, _ = _ZIP64_SIZES.unpack_from(head, _LOCAL.size + name_size)
    return name, offset, size


def _local_header(entry: Entry, start: int) -> bytes:
    name = entry.name.encode("ascii")
    fixed = _LOCAL.size + len(name) + _ZIP64_SIZES.size + _EXTRA.size
    padding = -(start + fixed) % entry.align
    extra = _ZIP64_SIZES.pack(1, _ZIP64_SIZES.size - _EXTRA.size, entry.size, entry.size)
    extra += _EXTRA.pack(_PADDING_ID, padding) + bytes(padding)
    header = _LOCAL.pack(
        _LOCAL_MAGIC, _VERSION, 0, 0, 0, _FIRST_DAY, entry.crc, _SEE_64, _SEE_64, len(name), len(extra)
    )
    return header + name + extra


def _central_header(entry: Entry, start: int) -> bytes:
    name = entry.name.encode("ascii")
    extra = _ZIP64_PLACE.pack(1, _ZIP64_PLACE.size - _EXTRA.size, entry.size, entry.size, start)
    header = _CENTRAL.pack(
        _CENTRAL_MAGIC, _UNIX | _VERSION, _VERSION, 0, 0, 0, _FIRST_DAY, entry.crc, _SEE_64, _SEE_64,
        len(name), len(extra), 0, 0, 0, _MODE, _SEE_64,
    )  # fmt: skip
    return header + name + extra
