"""Intel's devices through OpenCL: `oneapi` or `oneapi:cpu` (any x86-64 processor), and GPUs by the names that Intel's
offline compiler has for them: `oneapi:dg2`, `oneapi:pvc`, `oneapi:xe_hp_sdv`, `oneapi:tgllp`, ...

Kernels are generated in OpenCL C. For `cpu` the device's own compiler finishes them, so that the artifact is for the
processor and the version of the runtime that it was compiled on. For GPUs `ocloc` does, where it is installed; else the
artifact holds SPIR-V, which their driver finishes when it is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from dscc.errors import TargetError, unknown
from dscc.runtime.opencl import locate
from dscc.schedule.base import Rule
from dscc.schedule.gpu.device import Device
from dscc.targets import requirements
from dscc.targets.device import Binary, DeviceTarget
from dscc.targets.oneapi import compilers, opencl
from dscc.targets.oneapi.devices import ARCHITECTURES, CPU, GPUS
from dscc.targets.oneapi.rules import RULES
from dscc.targets.opencl import UNKNOWN_TO_TVM, by_name, with_functions
from dscc.targets.requirements import Requirement

if TYPE_CHECKING:
    from tvm import tirx


class OneAPI(DeviceTarget):
    """Code for a processor or a GPU by Intel, run through OpenCL."""

    name: ClassVar[str] = "oneapi"
    module: ClassVar[str] = "opencl"
    device_type: ClassVar[int] = 4
    forms: ClassVar[Mapping[str, str]] = MappingProxyType({"source": "cl", "binary": "bin"})

    def __init__(self, arch: str):
        self.arch = arch

    @classmethod
    def resolve(cls, arch: str | None) -> OneAPI:
        if arch not in (None, *ARCHITECTURES):
            raise TargetError(unknown("architecture", f"oneapi:{arch}", [f"oneapi:{name}" for name in ARCHITECTURES]))
        return cls(arch or CPU)

    @classmethod
    def requirements(cls) -> tuple[Requirement, ...]:
        return (
            requirements.linker(),
            requirements.compiler(),
            Requirement.of("Intel's OpenCL runtime", "oneapi:cpu", locate.INSTALL_CPU, lambda: locate.library("cpu")),
            Requirement.of("SPIR-V front end", "GPUs", locate.INSTALL_CPU, lambda: str(locate.front_end())),
            Requirement("ocloc", "finished code for GPUs", compilers.ocloc() or "", compilers.INSTALL_OCLOC, True),
            Requirement.of(
                "OpenCL library", "running on GPUs", locate.INSTALL_GPU, lambda: locate.library("gpu"), True
            ),
        )

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
        if self.arch in GPUS:
            gpu = GPUS[self.arch]
            return Device(
                threads=256, warp=16, shared_bytes=64 * 1024, units=gpu.units, float64=gpu.float64, float16=True
            )
        cl = self._opencl
        return Device(
            threads=min(256, cl.group_size),
            shared_bytes=cl.local_bytes,
            units=cl.units,
            float64="cl_khr_fp64" in cl.extensions,
            float16="cl_khr_fp16" in cl.extensions,
        )

    def prepare(self, func: tirx.PrimFunc) -> tirx.PrimFunc:
        return with_functions(func, by_name(UNKNOWN_TO_TVM))

    @property
    def rules(self) -> tuple[Rule, ...]:
        return RULES

    @property
    def device(self) -> Mapping[str, Any]:
        kind = {"kind": "opencl", "type": self.device_type}
        if self.arch in GPUS:
            return {**kind, "class": "gpu", "compiled": "ocloc" if compilers.ocloc() else "SPIR-V"}
        return {
            **kind,
            "class": "cpu",
            "device": self._opencl.name,
            "driver": self._opencl.driver,
            "compiled": "OpenCL",
        }

    def finish(self, source: str) -> Binary:
        if self.arch not in GPUS:
            return self._opencl.build(source, "-cl-std=CL3.0")
        options = f"-cl-std={GPUS[self.arch].standard}"
        if compilers.ocloc():
            return compilers.by_ocloc(source, self.arch, options)
        return compilers.to_spirv(source, options)
