"""Where the OpenCL libraries are."""

from __future__ import annotations

import ctypes.util
import sys
from pathlib import Path

from dscc.errors import TargetError

INTEL_CPU, FRONT_END = "libintelocl.so", "libcommon_clang.so"
INSTALL_CPU = "pip install 'dscc[oneapi]'"
INSTALL_GPU = "apt-get install intel-opencl-icd ocl-icd-libopencl1"


def library(kind: str) -> str:
    """The library with the devices of a kind.

    Args:
        kind: `cpu`, Intel's runtime for processors, from PyPI; `gpu`, the system's, with what drivers it knows.

    Raises:
        TargetError: it is not installed.
    """
    if kind == "cpu":
        return str(_intel(INTEL_CPU, "Intel's OpenCL runtime for processors"))
    found = ctypes.util.find_library("OpenCL")
    if found is None:
        raise TargetError(f"the system's OpenCL library (libOpenCL.so.1) is not installed; run {INSTALL_GPU}")
    return found


def front_end() -> Path:
    """The library that compiles OpenCL C to SPIR-V.

    Raises:
        TargetError: it is not installed.
    """
    return _intel(FRONT_END, "the OpenCL front end of Intel's runtime")


def _intel(name: str, what: str) -> Path:
    path = Path(sys.prefix) / "lib" / name  # where pip puts the data of a wheel
    if not path.exists():
        raise TargetError(f"{what} ({name}) is not installed; run {INSTALL_CPU}")
    return path
