"""Weights in huge pages, for a module that is used again and again.

Weights are mapped from the artifact, so they lie in whatever pages the file is cached in: of 4 kB, unless the file
system and the history of the file are kind. A kernel that streams through them then walks the page table at every
page. Once a module is in steady use, a thread of low priority copies the weights to anonymous memory in huge pages, and
`mremap(2)` puts that memory in the place of the file's pages: at once, and at the same addresses, so that runs go on
meanwhile and read the same bytes before and after.

The memory is the process's own: several that serve one model share its weights no longer. DSCC_HUGE_PAGES=0 in the
environment keeps them in the pages of the file.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import threading
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dscc import scratch

if TYPE_CHECKING:
    import numpy as np

_SYSTEM = Path("/sys/kernel/mm/transparent_hugepage")
_GROUP = Path("/sys/fs/cgroup")
_MEMORY = Path("/proc/meminfo")
_STEP_PAGES = 8  # huge pages that are replaced at a time
_LEAST_PAGES = 2  # of weights, for it to be worth a thread
_MREMAP_MAYMOVE, _MREMAP_FIXED = 1, 2
_LOWEST_PRIORITY = 19
_FAILED = ctypes.c_void_p(-1).value


def settle(image: np.ndarray[Any, Any]) -> threading.Thread | None:
    """Start to move read-only bytes to huge pages.

    Args:
        image: bytes that nobody writes, in pages that belong to a mapping of a file, of the same process.

    Returns:
        The thread that does it; None where it would be of no use: on another system than Linux, without transparent
        huge pages, where the environment says no, for few bytes, or where less memory is free than twice what it takes.
    """
    if not (page := _page_bytes()):
        return None
    start, size = image.__array_interface__["data"][0], image.nbytes
    begin, end = -(-start // page) * page, (start + size) // page * page
    if end - begin < _LEAST_PAGES * page or _available() < 2 * (end - begin):
        return None
    scratch.keep(image)
    thread = threading.Thread(target=_move, args=(image, begin, end, page), name="dscc-pages", daemon=True)
    try:
        thread.start()
    except RuntimeError as err:  # there are too many, or the interpreter is about to end
        _report("weights stay in the pages of the file", err)
        return None
    return thread


def _report(what: str, err: Exception) -> None:
    import logging  # only here: with what it imports it takes a third of the runtime's import

    logging.getLogger(__name__).debug("%s: %s", what, err)


def _move(image: np.ndarray[Any, Any], begin: int, end: int, page: int) -> None:
    """Replace the pages from address `begin` to `end`; `image` keeps them mapped."""
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST_PRIORITY)
        for at in range(begin, end, _STEP_PAGES * page):
            _replace(at, min(_STEP_PAGES * page, end - at), page)
    except OSError as err:
        _report("weights stay in the pages of the file", err)


def _replace(at: int, size: int, page: int) -> None:
    libc = _libc()
    room = _checked(libc.mmap(None, size + page, mmap.PROT_READ | mmap.PROT_WRITE, _ANONYMOUS, -1, 0))
    copy = -(-room // page) * page
    # Only what is aligned is kept; once it has moved, its old place may be another thread's.
    for start, end in ((room, copy), (copy + size, room + size + page)):
        if start < end:
            _checked(libc.munmap(start, end - start))
    try:
        _checked(libc.madvise(copy, size, mmap.MADV_HUGEPAGE))
        ctypes.memmove(copy, at, size)  # without the lock of the interpreter, as all calls here
        _checked(libc.mprotect(copy, size, mmap.PROT_READ))
        _checked(libc.mremap(copy, size, size, _MREMAP_MAYMOVE | _MREMAP_FIXED, at))
    except OSError:
        libc.munmap(copy, size)
        raise


_ANONYMOUS = mmap.MAP_PRIVATE | getattr(mmap, "MAP_ANONYMOUS", 0)


@cache
def _page_bytes() -> int:
    """The size of a huge page; 0 where there are none."""
    try:
        wanted = os.environ.get("DSCC_HUGE_PAGES", "1") != "0"
        if not wanted or not sys.platform.startswith("linux") or "[never]" in (_SYSTEM / "enabled").read_text():
            return 0
        return int((_SYSTEM / "hpage_pmd_size").read_text())
    except (OSError, ValueError):
        return 0


def _available() -> int:
    """Bytes of memory that may be taken, from the machine and from the control group of a container."""
    try:
        fields = [line.split() for line in _MEMORY.read_text().splitlines()]
    except OSError as err:  # a sandbox without /proc
        _report("how much memory is free is not known", err)
        return 0
    free = next((int(words[1]) << 10 for words in fields if words[0] == "MemAvailable:"), 0)
    try:
        limit, used = ((_GROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
        return free if limit == "max" else min(free, int(limit) - int(used))
    except (OSError, ValueError):
        return free


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    address, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    libc.mmap.argtypes, libc.mmap.restype = [address, size, number, number, number, ctypes.c_long], address
    libc.mremap.argtypes, libc.mremap.restype = [address, size, size, number, address], address
    libc.munmap.argtypes = [address, size]
    for function in (libc.madvise, libc.mprotect):
        function.argtypes = [address, size, number]
    return libc


def _checked(result: int | None) -> int:
    if result in (-1, _FAILED):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result or 0
