"""Devices of Intel's oneAPI through OpenCL: `oneapi:cpu` (Intel's CPU runtime, on any x86-64 processor)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar

from dscc.errors import TargetError, unknown
from dscc.runtime.opencl import locate
from dscc.schedule.base import Rule
from dscc.schedule.gpu.device import Device
from dscc.targets.device import Binary, DeviceTarget
from dscc.targets.oneapi import opencl
from dscc.targets.oneapi.rules import RULES

ARCHITECTURES = ("cpu",)
OPTIONS = "-cl-std=CL3.0"


class OneAPI(DeviceTarget):
    """Kernels in OpenCL C, finished by the device's own compiler."""

    name: ClassVar[str] = "oneapi"
    module: ClassVar[str] = "opencl"
    device_type: ClassVar[int] = 4
    forms: ClassVar[Mapping[str, str]] = MappingProxyType({"source": "cl"})

    def __init__(self, arch: str):
        self.arch = arch

    @classmethod
    def resolve(cls, arch: str | None) -> OneAPI:
        if arch not in (None, *ARCHITECTURES):
            raise TargetError(unknown("architecture", f"oneapi:{arch}", [f"oneapi:{name}" for name in ARCHITECTURES]))
        return cls(arch or ARCHITECTURES[0])

    @cached_property
    def _opencl(self) -> opencl.OpenCL:
        return opencl.device(locate.library("cpu"))

    @property
    def tvm_device(self) -> Mapping[str, Any]:
        return {
            "kind": "opencl",
            "max_num_threads": self.machine.threads,
            "max_threads_per_block": self.machine.threads,
            "max_shared_memory_per_block": self.machine.shared_bytes,
        }

    @cached_property
    def machine(self) -> Device:
        cl = self._opencl
        return Device(
            threads=min(256, cl.group_size),
            shared_bytes=cl.local_bytes,
            float64="cl_khr_fp64" in cl.extensions,
            float16="cl_khr_fp16" in cl.extensions,
        )

    @property
    def rules(self) -> tuple[Rule, ...]:
        return RULES

    @property
    def device(self) -> Mapping[str, Any]:
        return {"kind": "opencl", "type": self.device_type, "class": "cpu", "device": self._opencl.name}

    def finish(self, source: str) -> Binary:
        return self._opencl.build(source, OPTIONS)
