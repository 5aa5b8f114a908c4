"""The device that an artifact runs on: found, opened, and asked for memory and copies, through TVM's C ABI."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from dscc.errors import ArtifactError, DsccError, unknown
from dscc.runtime import ffi

if TYPE_CHECKING:
    from dscc.artifact.manifest import Manifest
    from dscc.runtime.cuda_graph import Graphs
    from dscc.runtime.inputs import Array

_POOLED = 2  # TVM's allocator that keeps memory by size: asking a device for memory takes as long as a kernel


class Device:
    """A device of this process.

    Attributes:
        kind: TVM's name of its modules, as in `opencl`.
        type: DLPack's number of its type.
        name: as its driver says it.
    """

    def __init__(self, library: ffi.Library, kind: str, number: int, name: str):
        self.kind, self.type, self.name = kind, number, name
        self._library = library
        self._allocate = library.function("runtime.TVMTensorAllocWithScope")
        self._copy = library.function("runtime.TVMTensorCopyFromTo")
        self._wait = library.function("runtime.Device_StreamSync")
        self._shape = library.function("ffi.Shape")

    def graphs(self, launch: Callable[[ffi.Value], int]) -> Graphs | None:
        """What replays a session's runs as one launch, if the device can."""
        if self.kind != "cuda":
            return None
        from dscc.runtime import cuda

        return cuda.graphs(self._library, launch)

    @property
    def machine(self) -> tuple[int, int, int]:
        """What the virtual machine is told of it: type, number, allocator."""
        return self.type, 0, _POOLED

    def tensor(self, dtype: ffi.DataType, shape: tuple[int, ...]) -> ffi.Ref:
        """A tensor in the device's memory, without values yet."""
        sizes = self._library.invoke(self._shape, *shape)
        tensor = self._library.invoke(self._allocate, sizes, ffi.of_dtype(dtype), ffi.of_device(self.type), None)
        if not isinstance(tensor, ffi.Ref):
            raise ffi.RuntimeFailure("InternalError", "the device gave no tensor")
        return tensor

    def read(self, handle: int, dtype: ffi.DataType, array: Array) -> Array:
        """Copy the device's tensor with this handle to `array`, which is contiguous; returns it."""
        if array.size:
            address = array.__array_interface__["data"][0]
            self.copy(ffi.Value(ffi.TENSOR, 0, handle), self._library.tensor(address, dtype, array.shape))
        return array

    def copy(self, source: ffi.Ref | ffi.Value, target: ffi.Ref) -> None:
        """Copy between tensors of one size, at least one of them on the device; done when it returns."""
        self._library.invoke(self._copy, source, target)
        self.wait()

    def wait(self) -> None:
        """Until everything that has been launched is done."""
        self._library.invoke(self._wait, ffi.of_device(self.type), ffi.Value(ffi.INT, 0, 0))


def _opencl(library: ffi.Library, needs: Mapping[str, Any], wanted: str) -> str:
    """Open an OpenCL device: the one that the artifact is for, or one with `wanted` in its name."""
    from dscc.runtime import opencl

    return opencl.open_device(library, needs, wanted)


def _cuda(library: ffi.Library, needs: Mapping[str, Any], wanted: str) -> str:
    """Open the CUDA device that the driver lists first."""
    from dscc.runtime import cuda

    return cuda.open_device(library, needs, wanted)


def _rocm(library: ffi.Library, needs: Mapping[str, Any], wanted: str) -> str:
    """Open the AMD device that HIP lists first, or the first one with `wanted` in its name."""
    from dscc.runtime import hip

    return hip.open_device(library, needs, wanted)


OPENERS: Mapping[str, Callable[[ffi.Library, Mapping[str, Any], str], str]] = {
    "opencl": _opencl,
    "cuda": _cuda,
    "rocm": _rocm,
}
"""For every kind of device how its runtime is loaded and the device is found; each gives the device's name."""

_lock = threading.Lock()


def missing(manifest: Manifest) -> str | None:
    """Why an artifact's device cannot be used here, or None if it can."""
    try:
        open_device(manifest)
    except ArtifactError as err:
        return str(err)
    return None


def open_device(manifest: Manifest, wanted: str | None = None) -> Device:
    """The device that an artifact needs.

    Args:
        manifest: of the artifact.
        wanted: part of a device's name, where there are several; None means what the variable DSCC_DEVICE says.

    Raises:
        ArtifactError: the device, its driver or its runtime is missing, or it is another one than was compiled for.
    """
    try:
        return opened(manifest.device, wanted)
    except ArtifactError as err:
        raise ArtifactError(f"this artifact is for {manifest.target}: {err}") from err


def opened(needs: Mapping[str, Any], wanted: str | None = None) -> Device:
    """The device that fits `needs`, which is what a target says of itself (`DeviceTarget.device`).

    Raises:
        ArtifactError: as `open_device`.
    """
    library, kind = ffi.runtime(), str(needs["kind"])
    wanted = os.environ.get("DSCC_DEVICE", "") if wanted is None else wanted
    if kind not in OPENERS:
        raise ArtifactError(unknown("kind of device", kind, OPENERS))
    with _lock:
        try:
            name = OPENERS[kind](library, needs, wanted)
        except (ffi.RuntimeFailure, DsccError) as err:
            said = err.message if isinstance(err, ffi.RuntimeFailure) else str(err)
            raise ArtifactError(" ".join(said.split())) from err
    return Device(library, kind, int(needs["type"]), name)
