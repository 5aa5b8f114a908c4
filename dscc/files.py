"""Whether a result can be written, found out before the work rather than after it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from dscc.errors import ArtifactError


def check_writable(path: Path) -> None:
    """Find out before a long computation whether its result can be written to `path`.

    Raises:
        ArtifactError: `path` is a folder, or its folder is missing or may not be written to.
    """
    folder = path.parent
    if path.is_dir():
        raise ArtifactError(f"cannot write '{path}': it is a folder; name a file in it")
    if not folder.exists():
        raise ArtifactError(f"cannot write '{path}': folder '{folder}' does not exist; make it first")
    if not folder.is_dir():
        raise ArtifactError(f"cannot write '{path}': '{folder}' is not a folder; choose another place for it")
    try:
        # Only an attempt tells: permissions say nothing about a file system that is mounted read-only, or to root.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as err:
        reason = (err.strerror or str(err)).lower()
        raise ArtifactError(f"cannot write '{path}': folder '{folder}': {reason}; choose another place for it") from err
