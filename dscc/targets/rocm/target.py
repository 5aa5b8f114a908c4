"""AMD's devices: `rocm:gfx90a`, `rocm:gfx942`, `rocm:gfx1100`, `rocm:gfx1201`, ...

Kernels are written in OpenCL C, as for oneAPI's devices, and compiled by clang to code objects that HIP loads. Nothing
of ROCm is needed to compile; to run, its HIP runtime is.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from tvm import tirx

from dscc.schedule.base import Rule
from dscc.targets import requirements
from dscc.targets.device import Binary, DeviceTarget
from dscc.targets.opencl import UNKNOWN_TO_TVM, by_name, with_functions
from dscc.targets.requirements import Requirement
from dscc.targets.rocm import clang
from dscc.targets.rocm.bfloat import as_halves, with_bfloat
from dscc.targets.rocm.machine import RocmMachine, named
from dscc.targets.rocm.rules import RULES

DEFAULT = "gfx90a"


class Rocm(DeviceTarget):
    """Kernels for one of AMD's architectures."""

    name: ClassVar[str] = "rocm"
    module: ClassVar[str] = "rocm"
    device_type: ClassVar[int] = 10
    forms: ClassVar[Mapping[str, str]] = MappingProxyType({"source": "cl", "asm": "s", "binary": "hsaco"})

    precisions: ClassVar[tuple[str, ...]] = ("fp32", "fp16", "bf16")
    lowering: ClassVar[tuple[str, ...]] = ("multiply-halves",)

    def __init__(self, machine: RocmMachine):
        self._machine = machine
        self.arch = machine.arch

    @classmethod
    def resolve(cls, arch: str | None) -> Rocm:
        return cls(named(arch or DEFAULT))

    @classmethod
    def requirements(cls) -> tuple[Requirement, ...]:
        from dscc.runtime import hip

        return (
            requirements.linker(),
            Requirement.of("clang and lld", "compiling", clang.INSTALL, lambda: " ".join(clang.find().compiler)),
            requirements.compiler(),
            Requirement.of("AMD's HIP runtime and a device", "running", hip.INSTALL, hip.device_name, True),
        )

    @property
    def machine(self) -> RocmMachine:
        return self._machine

    @property
    def tvm_device(self) -> Mapping[str, Any]:
        return {
            "kind": "opencl",  # the language that kernels are written in
            "target_device_type": self.device_type,
            "max_num_threads": self.machine.threads,
            "max_threads_per_block": self.machine.threads,
            "max_shared_memory_per_block": self.machine.shared_bytes,
            "thread_warp_size": self.machine.warp,
        }

    def prepare(self, func: tirx.PrimFunc) -> tirx.PrimFunc:
        return with_functions(func, by_name(UNKNOWN_TO_TVM))

    def spelled(self, kernel: tirx.PrimFunc) -> tirx.PrimFunc:
        return as_halves(kernel)

    @property
    def rules(self) -> tuple[Rule, ...]:
        return RULES

    @property
    def device(self) -> Mapping[str, Any]:
        return {"kind": self.module, "type": self.device_type, "architecture": self.arch}

    def finish(self, source: str) -> Binary:
        code = clang.find().code_object(with_bfloat(source), self.arch)
        return Binary("hsaco", code, clang.spills(code))

    def show(self, source: str, form: str) -> str | bytes:
        if form == "asm":
            return clang.find().assembly(with_bfloat(source), self.arch)
        return super().show(with_bfloat(source), form)
