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
SOURCES = (_FOLDER / "runtime.cc", _FOLDER / "opencl.h", _FOLDER.parent / "kernels.h")

_TYPES = {"cpu": 2, "gpu": 4}  # CL_DEVICE_TYPE_CPU and _GPU


def open_device(library: ffi.Library, needs: Mapping[str, Any], wanted: str) -> str:
    """Open the device that an artifact needs, and give its name.

    Raises:
        DsccError: OpenCL is missing, or the device is another one than the artifact was compiled for.
    """
    kind = str(needs["class"])
    path = locate.library(kind)
    _runtime()
    name, _, driver = library.text(library.function("dscc.opencl.open"), path, wanted, _TYPES[kind]).partition("\n")
    if kind == "cpu" and (name, driver) != (needs["device"], needs["driver"]):
        raise ArtifactError(
            f"it was compiled for '{needs['device']}' with driver {needs['driver']}, "
            f"and here is '{name}' with driver {driver}; compile the model here"
        )
    return name


@cache
def _runtime() -> ctypes.CDLL:
    return ctypes.CDLL(str(sidecar.library("opencl", SOURCES)), ctypes.RTLD_GLOBAL)
