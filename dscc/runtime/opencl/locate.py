"""Where the OpenCL libraries are."""

from __future__ import annotations

import sys
from pathlib import Path

from dscc.errors import TargetError

INTEL_CPU = "libintelocl.so"
INSTALL = "pip install 'dscc[oneapi]'"


def library(device: str) -> Path:
    """The library with the devices of a class: `cpu`, Intel's runtime for processors, from PyPI.

    Raises:
        TargetError: it is not installed.
    """
    path = Path(sys.prefix) / "lib" / INTEL_CPU
    if not path.exists():
        raise TargetError(f"Intel's OpenCL runtime ({INTEL_CPU}) is not installed; run {INSTALL}")
    return path
