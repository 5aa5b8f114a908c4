"""What all sessions of a loaded artifact share: kernels, weights, and the description of inputs and outputs."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING

import numpy as np

from dscc.artifact.artifact import LIBRARY, WEIGHTS
from dscc.artifact.store import write_all
from dscc.elements import numpy_dtype
from dscc.errors import ArtifactError
from dscc.runtime import device, ffi

if TYPE_CHECKING:
    from dscc.artifact import Artifact
    from dscc.artifact.safetensors import StoredTensor


# How the names of the functions start (sorting, random numbers) that TVM keeps in a library apart. Kernels name them.
_EXTRA = b"tvm.contrib."


class Program:
    """A library in this process, with its weights where they are in the artifact."""

    def __init__(self, artifact: Artifact, threads: int, wanted: str | None = None):
        self.library = ffi.runtime()
        self.inputs, self.outputs = artifact.manifest.inputs, artifact.manifest.outputs
        self.plain = all(spec.plain for spec in (*self.inputs, *self.outputs))
        self.alignment = artifact.manifest.alignment
        self.output_dtypes = tuple(numpy_dtype(spec.dtype) for spec in artifact.manifest.outputs)
        needs = artifact.manifest.device
        self.device = device.open_device(artifact.manifest, wanted) if needs else None
        self.replayable = bool(needs.get("replayable", False))
        self.on_host = frozenset(needs.get("host_parameters", ()))
        self.get_function = self.library.function("ffi.ModuleGetFunction")
        try:
            if _EXTRA in bytes(artifact.member(LIBRARY)):
                self.library.load_extra()
            self.executable = load_library(self.library, artifact.member(LIBRARY))
            set_threads = self.library.invoke(self.get_function, self.executable, "dscc_set_threads", 1)
            if isinstance(set_threads, ffi.Ref):
                self.library.invoke(set_threads, threads)
            if artifact.manifest.fallback:
                self._serve_fallback(artifact, threads)
        except ffi.RuntimeFailure as err:
            reason = (err.message.splitlines() or [err.kind])[0]
            raise ArtifactError(f"the library of this artifact cannot be loaded: {reason}") from err
        # The address of read-only memory is best asked from NumPy; the array also keeps the artifact mapped.
        self._image = np.frombuffer(artifact.member(WEIGHTS), np.uint8)
        self._start = self._image.__array_interface__["data"][0]
        stored = artifact.weights()
        self.weights = [
            self._weight(stored[name], i) for i, name in enumerate(artifact.manifest.weights, len(self.inputs))
        ]

    def _weight(self, stored: StoredTensor, parameter: int) -> ffi.Ref:
        """A weight where it is in the artifact, or a copy of it on the device."""
        dtype = self.library.dtype(stored.dtype)
        mapped = self.library.tensor(self._start + stored.offset, dtype, stored.shape)
        if self.device is None or parameter in self.on_host:
            return mapped
        copied = self.device.tensor(dtype, stored.shape)
        self.device.copy(mapped, copied)
        return copied

    def _serve_fallback(self, artifact: Artifact, threads: int) -> None:
        from dscc.runtime.fallback import Fallback

        self._fallback = Fallback(artifact, self.library, threads)
        set_fallback = self.library.invoke(self.get_function, self.executable, "dscc_set_fallback", 1)
        if isinstance(set_fallback, ffi.Ref):
            self.library.invoke(set_fallback, self._fallback.function)

    def settle(self) -> None:
        """Arrange the weights for many more runs."""
        if self.device is None:
            from dscc.runtime import pages  # only here: most processes run a model a few times

            pages.settle(self._image)

    def owns(self, address: int) -> bool:
        """Whether the address is one of a weight."""
        return self._start <= address < self._start + self._image.nbytes


_loaded = itertools.count(1)


def load_library(library: ffi.Library, content: memoryview) -> ffi.Ref:
    """The module in a shared library with this content. The system's loader takes files only: it gets one in memory."""
    load = library.function("ffi.Module.load_from_file.so")
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("model.so")
        # The loader takes two files that were opened under one name for the same file, and numbers of descriptors come
        # again. So each gets its own spelling: the binary digits of a counter, as `/.` and `/`.
        digits = "".join("/." if digit == "1" else "/" for digit in f"{next(_loaded):b}")
        path, remove = f"/proc/self/fd{digits}/{fd}", False
    else:
        import tempfile

        fd, path = tempfile.mkstemp(prefix="dscc-", suffix=".so")
        remove = True
    try:
        write_all(fd, content)
        loaded = library.invoke(load, path, "")
    finally:
        os.close(fd)
        if remove:
            os.unlink(path)
    if not isinstance(loaded, ffi.Ref):
        raise ffi.RuntimeFailure("InternalError", "it holds no module")
    return loaded
