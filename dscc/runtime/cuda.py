"""CUDA devices: NVIDIA's driver, its runtime library, and TVM's runtime for both, which comes with TVM."""

from __future__ import annotations

import ctypes
import importlib.util
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from dscc.errors import TargetError
from dscc.runtime import ffi
from dscc.runtime.cuda_graph import Cudart, Graphs

_CUDART = "libcudart.so.13"
_MAJOR, _MINOR = 75, 76  # CUdevice_attribute: of the compute capability


def open_device(library: ffi.Library, needs: Mapping[str, Any], wanted: str) -> str:
    """Open the first device, and give its name.

    Raises:
        TargetError: driver or device is missing, or the artifact's code is for other devices.
    """
    name, capability = _device()
    if wanted.lower() not in name.lower():
        raise TargetError(f"the CUDA device is '{name}', and '{wanted}' was asked for; set CUDA_VISIBLE_DEVICES")
    if not any(_runs(str(arch), capability) for arch in needs["architectures"]):
        built, here = ", ".join(needs["architectures"]), "".join(map(str, capability))
        raise TargetError(
            f"its code is for {built}, and the device '{name}' is sm_{here}; compile it with --target=cuda:sm_{here}"
        )
    _runtime(library)
    return name


def device_name() -> str:
    """The name of the first device.

    Raises:
        TargetError: driver or device is missing.
    """
    return _device()[0]


def _runs(arch: str, capability: tuple[int, int]) -> bool:
    """Whether machine code of `arch` runs: on its major version and not older devices; with an `a`, on its own only."""
    found = re.fullmatch(r"sm_(\d+)(\d)(a?)", arch)
    if found is None:
        return False
    major, minor = int(found[1]), int(found[2])
    return capability == (major, minor) if found[3] else capability[0] == major and capability[1] >= minor


@cache
def _device() -> tuple[str, tuple[int, int]]:
    """Name and compute capability of the first device."""
    try:
        driver = ctypes.CDLL("libcuda.so.1", ctypes.RTLD_GLOBAL)
    except OSError as err:
        raise TargetError("NVIDIA's driver (libcuda.so.1) is not installed") from err
    device = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), 0):
        raise TargetError("NVIDIA's driver finds no device")
    name = ctypes.create_string_buffer(256)
    driver.cuDeviceGetName(name, 256, device)
    numbers = []
    for attribute in (_MAJOR, _MINOR):
        value = ctypes.c_int()
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        numbers.append(value.value)
    return name.value.decode(), (numbers[0], numbers[1])


@cache
def _runtime(library: ffi.Library) -> None:
    """Load TVM's runtime for CUDA, which needs NVIDIA's."""
    _cudart()
    try:
        library.load_backend("cuda")
    except OSError as err:
        raise TargetError(f"TVM's runtime for CUDA cannot be loaded: {err}") from err


def graphs(library: ffi.Library, launch: Callable[[ffi.Value], int]) -> Graphs:
    """What replays a session's runs."""
    return Graphs(library, Cudart(_cudart()), launch)


@cache
def _cudart() -> ctypes.CDLL:
    spec = importlib.util.find_spec("nvidia")
    folders = [Path(root) / "cu13" / "lib" for root in (spec.submodule_search_locations or ())] if spec else []
    folders += [Path("/usr/local/cuda/lib64"), Path("/usr/local/cuda-13/lib64")]
    found = next((str(folder / _CUDART) for folder in folders if (folder / _CUDART).exists()), _CUDART)
    try:
        return ctypes.CDLL(found, ctypes.RTLD_GLOBAL)
    except OSError as err:
        raise TargetError(
            f"NVIDIA's runtime library ({_CUDART}) is not installed; run pip install nvidia-cuda-runtime"
        ) from err
