"""OpenCL as a compiler: kernels built from source by the runtime of a device that is here, through ctypes."""

from __future__ import annotations

import ctypes
import threading
from functools import cache
from typing import Any

from dscc.errors import TargetError
from dscc.targets.device import Binary

_ALL_DEVICES = 0xFFFFFFFF
_DEVICE_NAME, _DRIVER_VERSION, _LOCAL_MEMORY, _GROUP_SIZE = 0x102B, 0x102D, 0x1023, 0x1004
_EXTENSIONS, _UNITS = 0x1030, 0x1002
_BINARY_SIZES, _BINARIES, _BUILD_LOG = 0x1165, 0x1166, 0x1183


class OpenCL:
    """One device of an OpenCL library.

    Attributes:
        name, driver: of the device, as the library says them.
        group_size: most work-items of a work-group.
        local_bytes: local memory of a work-group.
        units: compute units.
        extensions: of the standard that the device has.
    """

    def __init__(self, library: str):
        self._cl = ctypes.CDLL(library)
        for name in ("clCreateContext", "clCreateProgramWithSource"):
            getattr(self._cl, name).restype = ctypes.c_void_p
        self._lock = threading.Lock()
        self._device = self._first_device(library)
        self.name = self._text(_DEVICE_NAME)
        self.driver = self._text(_DRIVER_VERSION)
        self.extensions = frozenset(self._text(_EXTENSIONS).split())
        self.local_bytes = self._number(_LOCAL_MEMORY)
        self.group_size = self._number(_GROUP_SIZE)
        self.units = self._number(_UNITS)
        code = ctypes.c_int32()
        self._context = ctypes.c_void_p(
            self._cl.clCreateContext(None, 1, ctypes.byref(self._device), None, None, ctypes.byref(code))
        )
        if code.value:
            raise TargetError(f"OpenCL gives no context for '{self.name}': error {code.value}")

    def _first_device(self, library: str) -> ctypes.c_void_p:
        count, platforms = ctypes.c_uint32(), (ctypes.c_void_p * 16)()
        self._cl.clGetPlatformIDs(16, platforms, ctypes.byref(count))
        device = ctypes.c_void_p()
        for platform in platforms[: count.value]:
            given = ctypes.c_void_p(platform)
            if not self._cl.clGetDeviceIDs(given, ctypes.c_uint64(_ALL_DEVICES), 1, ctypes.byref(device), None):
                return device
        raise TargetError(f"'{library}' has no OpenCL device")

    def _info(self, what: int) -> bytes:
        size = ctypes.c_size_t()
        self._cl.clGetDeviceInfo(self._device, what, ctypes.c_size_t(0), None, ctypes.byref(size))
        value = ctypes.create_string_buffer(size.value)
        self._cl.clGetDeviceInfo(self._device, what, size, value, None)
        return value.raw

    def _text(self, what: int) -> str:
        return self._info(what).rstrip(b"\0 ").decode(errors="replace")

    def _number(self, what: int) -> int:
        return int.from_bytes(self._info(what), "little")

    def build(self, source: str, options: str) -> Binary:
        """The device's own code for a program in OpenCL C.

        Raises:
            TargetError: the compiler refused it; the text has its first complaint.
        """
        text = source.encode()
        content, size, code = ctypes.c_char_p(text), ctypes.c_size_t(len(text)), ctypes.c_int32()
        program = ctypes.c_void_p(
            self._cl.clCreateProgramWithSource(
                self._context, 1, ctypes.byref(content), ctypes.byref(size), ctypes.byref(code)
            )
        )
        try:
            device = ctypes.byref(self._device)
            if code.value or self._cl.clBuildProgram(program, 1, device, options.encode(), None, None):
                raise TargetError(f"OpenCL's compiler for '{self.name}' refused a kernel: {self._complaint(program)}")
            self._cl.clGetProgramInfo(program, _BINARY_SIZES, ctypes.sizeof(size), ctypes.byref(size), None)
            binary = ctypes.create_string_buffer(size.value)
            place = ctypes.c_void_p(ctypes.addressof(binary))
            self._cl.clGetProgramInfo(program, _BINARIES, ctypes.sizeof(place), ctypes.byref(place), None)
            return Binary("bin", binary.raw)
        finally:
            self._cl.clReleaseProgram(program)

    def _complaint(self, program: Any) -> str:
        size = ctypes.c_size_t()
        self._cl.clGetProgramBuildInfo(program, self._device, _BUILD_LOG, ctypes.c_size_t(0), None, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value + 1)
        self._cl.clGetProgramBuildInfo(program, self._device, _BUILD_LOG, size, log, None)
        lines = log.value.decode(errors="replace").splitlines()
        return next((line for line in lines if "error" in line), (lines or ["it gives no reason"])[0])


@cache
def device(library: str) -> OpenCL:
    """The device of a library; one for the process."""
    return OpenCL(library)
