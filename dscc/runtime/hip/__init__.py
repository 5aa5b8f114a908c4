"""AMD's devices: TVM's wheel has no runtime for them, so this folder has one, in C++, over the HIP runtime of ROCm."""

from __future__ import annotations

import ctypes
import ctypes.util
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from dscc.errors import ArtifactError, TargetError
from dscc.runtime import ffi, sidecar

INSTALL = "AMD's ROCm, 5.6 or later"
NAMES = ("libamdhip64.so", "libamdhip64.so.7", "libamdhip64.so.6", "libamdhip64.so.5")
_FOLDER = Path(__file__).parent
SOURCES = (_FOLDER / "runtime.cc", _FOLDER / "hip.h", _FOLDER.parent / "kernels.h")


def open_device(library: ffi.Library, needs: Mapping[str, Any], wanted: str) -> str:
    """Open the device that an artifact needs, and give its name.

    Raises:
        DsccError: HIP or the device is missing, or the device is of another architecture than was compiled for.
    """
    path = locate()
    _runtime()
    name, _, arch = library.text(library.function("dscc.hip.open"), path, wanted).partition("\n")
    if arch != needs["architecture"]:
        raise ArtifactError(
            f"its code is for {needs['architecture']}, and the device '{name}' is {arch}; "
            f"compile it with --target=rocm:{arch}"
        )
    return name


def locate() -> str:
    """The library of the HIP runtime.

    Raises:
        TargetError: it is not installed.
    """
    for name in (*NAMES, *(f"/opt/rocm/lib/{name}" for name in NAMES)):
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return name
    raise TargetError(f"AMD's HIP runtime ({NAMES[0]}) is not installed; install {INSTALL}")


def device_name() -> str:
    """The name of the first device.

    Raises:
        TargetError: HIP or the device is missing.
    """
    hip = ctypes.CDLL(locate())
    text = ctypes.create_string_buffer(256)
    if hip.hipInit(0) or hip.hipDeviceGetName(text, len(text), 0):
        raise TargetError("AMD's HIP runtime finds no device")
    return text.value.decode()


@cache
def _runtime() -> ctypes.CDLL:
    return ctypes.CDLL(str(sidecar.library("hip", SOURCES)), ctypes.RTLD_GLOBAL)
