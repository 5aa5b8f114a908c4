"""OpenCL devices: TVM's wheel has no runtime for them, so this folder has one, in C++."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from dscc.errors import ArtifactError
from dscc.runtime import ffi, sidecar
from dscc.runtime.opencl import locate

_FOLDER = Path(__file__).parent
SOURCES = (_FOLDER / "runtime.cc", _FOLDER / "opencl.h")


def open_device(library: ffi.Library, needs: Mapping[str, Any], wanted: str) -> str:
    """Open the device that an artifact needs, and give its name.

    Raises:
        DsccError: OpenCL or the device is missing.
    """
    path = locate.library(str(needs["class"]))
    _runtime()
    name = library.text(library.function("dscc.opencl.open"), str(path), wanted)
    if needs["class"] == "cpu" and not wanted and name != needs["device"]:
        raise ArtifactError(
            f"this artifact is for the OpenCL device '{needs['device']}', and this one is '{name}'; compile it here"
        )
    return name


@cache
def _runtime() -> ctypes.CDLL:
    return ctypes.CDLL(str(sidecar.library("opencl", SOURCES)), ctypes.RTLD_GLOBAL)
