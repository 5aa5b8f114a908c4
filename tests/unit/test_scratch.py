"""Large arrays in temporary files."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from dscc import scratch


def resident(array: np.ndarray) -> int:
    """Bytes of an array that are mapped to memory of this process."""
    address = array.__array_interface__["data"][0]
    found, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        head = line.split()[0]
        if "-" in head and not head.endswith(":"):
            start, end = (int(text, 16) for text in head.split("-"))
            inside = start <= address < end
        elif inside and head == "Rss:":
            found = int(line.split()[1]) * 1024
    return found


def test_a_large_array_is_in_a_file_and_leaves_memory(tmp_path: Path) -> None:
    content = np.arange(2**20, dtype=np.int32).reshape(1024, 1024)
    kept = scratch.stored(content.T)
    assert kept.flags.c_contiguous and not kept.flags.owndata
    before = resident(kept)
    assert np.array_equal(kept, content.T)
    assert resident(kept) >= before + kept.nbytes // 2
    scratch.done(kept)
    assert resident(kept) <= before + kept.nbytes // 4
    assert np.array_equal(kept, content.T)


def test_small_arrays_stay_in_memory() -> None:
    for array in (np.array(3.0), np.arange(6).reshape(2, 3).T):
        kept = scratch.stored(array)
        assert np.array_equal(kept, array) and kept.shape == array.shape and kept.flags.c_contiguous
    scratch.done(b"")
    scratch.done(np.arange(10))


def test_many_arrays_do_not_share_bytes() -> None:
    arrays = [scratch.stored(np.full(2**18 + i, i, np.float32)) for i in range(300)]
    assert all((array == i).all() and len(array) == 2**18 + i for i, array in enumerate(arrays))


def test_a_full_file_system(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "posix_fallocate", full)
    kept = scratch.stored(np.ones(2**20, np.float32))
    assert kept.flags.owndata and (kept == 1).all()


def test_a_mapped_file_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(3 * 2**20))
    array = np.frombuffer(scratch.mapped(tmp_path / "f", 3 * 2**20), np.uint8)
    assert array.sum() == 0
    before = resident(array)
    scratch.done(array)
    assert resident(array) < before
    array[5] = 1
    del array
    assert (tmp_path / "f").read_bytes() == bytes(3 * 2**20)


def test_pieces() -> None:
    content = memoryview(bytes(range(256)) * 8)
    assert b"".join(scratch.pieces(content)) == content
    assert list(scratch.pieces(memoryview(b""))) == []
