"""Write a file so that it is complete or absent: aside, then renamed.

The file aside is called `.NAME.PID.partial`. It is removed when writing fails or is interrupted; one that a killed
process left is removed by the next write of the same file.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from dscc.errors import ArtifactError

_REASONS = {
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EROFS: "the file system is read-only",
    errno.ENOENT: "the folder does not exist",
    errno.ENOTDIR: "the folder is a file",
    errno.EISDIR: "there is a folder of that name",
    errno.ENOSPC: "no space is left on the device",
    errno.EDQUOT: "the disk quota is used up",
}


def write(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    """Write the file at `path`, over what is there.

    Raises:
        ArtifactError: it cannot be written; what was at `path` before is still there.
    """
    aside = path.parent / f".{path.name}.{os.getpid()}.partial"
    try:
        _remove_leftovers(path)
        try:
            with open(aside, "wb", buffering=0) as file:
                for piece in pieces:
                    write_all(file.fileno(), piece)
            os.replace(aside, path)
        except BaseException:  # an interrupt too
            aside.unlink(missing_ok=True)
            raise
    except OSError as err:
        reason = _REASONS.get(err.errno or 0, (err.strerror or str(err)).lower())
        raise ArtifactError(f"cannot write '{path}': {reason}; choose another place for it") from err


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write all of `data`; one call of the system writes 2 GB at most."""
    view = memoryview(data).cast("B")
    while len(view):
        view = view[os.write(fd, view) :]


def _remove_leftovers(path: Path) -> None:
    for leftover in path.parent.glob(f".{path.name}.*.partial"):
        pid = leftover.name.split(".")[-2]
        if pid.isdigit() and not _alive(int(pid)):
            leftover.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
