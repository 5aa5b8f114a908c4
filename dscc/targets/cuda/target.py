"""NVIDIA's devices: `cuda:sm_90`, `cuda:sm_80`, ..., or several in one artifact: `cuda:sm_80+sm_86`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar

from dscc.errors import TargetError
from dscc.schedule.base import Rule
from dscc.targets import requirements
from dscc.targets.cuda import nvrtc
from dscc.targets.cuda.machine import CudaMachine, named
from dscc.targets.cuda.rules import RULES
from dscc.targets.device import Binary, DeviceTarget
from dscc.targets.requirements import Requirement

DEFAULT = "sm_80"  # what every data-centre card since 2020 runs


class Cuda(DeviceTarget):
    """Kernels in CUDA C++, compiled to machine code by NVRTC."""

    name: ClassVar[str] = "cuda"
    module: ClassVar[str] = "cuda"
    device_type: ClassVar[int] = 2
    forms: ClassVar[Mapping[str, str]] = MappingProxyType({"source": "cuda"})

    precisions: ClassVar[tuple[str, ...]] = ("fp32", "tf32", "fp16", "bf16")
    lowering: ClassVar[tuple[str, ...]] = ("multiply-halves",)

    def __init__(self, machines: tuple[CudaMachine, ...]):
        self._machines = machines
        self.arch = "+".join(machine.arch for machine in machines)

    @classmethod
    def resolve(cls, arch: str | None) -> Cuda:
        names = (arch or DEFAULT).split("+")
        machines = tuple(sorted({named(name) for name in names}, key=lambda machine: machine.capability))
        if len(machines) != len(names):
            raise TargetError(f"target 'cuda:{arch}' names an architecture twice; leave one out")
        return cls(machines)

    def in_precision(self, precision: str) -> Cuda:
        super().in_precision(precision)
        least = self._machines[0]
        if precision in ("tf32", "bf16") and not least.has_mma:
            raise TargetError(
                f"--precision {precision} needs sm_80 or later, and target '{self}' has {least.arch}; "
                "use fp16, or leave it out"
            )
        return Cuda(tuple(replace(machine, tf32=precision == "tf32") for machine in self._machines))

    @classmethod
    def requirements(cls) -> tuple[Requirement, ...]:
        from dscc.runtime import cuda as runtime

        return (
            requirements.linker(),
            Requirement.of("NVRTC", "compiling", nvrtc.INSTALL, lambda: str(nvrtc.find().library)),
            Requirement.of("nvFatbin", "several architectures", nvrtc.INSTALL, lambda: str(nvrtc.fatbin()), True),
            Requirement.of("NVIDIA's driver and a device", "running", "NVIDIA's driver", runtime.device_name, True),
        )

    @property
    def machine(self) -> CudaMachine:
        """The least of the architectures: one set of kernels serves all."""
        return self._machines[0] if len(self._machines) == 1 else self._machines[0].plain

    @property
    def tvm_device(self) -> Mapping[str, Any]:
        return {
            "kind": "cuda",
            "arch": self.machine.code,
            "max_num_threads": 1024,
            "max_threads_per_block": 1024,
            "max_shared_memory_per_block": self.machine.shared_bytes,
            "thread_warp_size": self.machine.warp,
        }

    @property
    def rules(self) -> tuple[Rule, ...]:
        return RULES

    @property
    def device(self) -> Mapping[str, Any]:
        return {"kind": self.module, "type": self.device_type, "architectures": [each.code for each in self._codes]}

    @property
    def _codes(self) -> tuple[CudaMachine, ...]:
        return self._machines if len(self._machines) == 1 else tuple(machine.plain for machine in self._machines)

    def finish(self, source: str) -> Binary:
        compiler = nvrtc.find()
        made = {machine.code: compiler.compile(source, machine.code) for machine in self._codes}
        spills = sum(each.spills for each in made.values())
        cubins = {arch: each.code for arch, each in made.items()}
        return Binary("cubin", next(iter(cubins.values())) if len(cubins) == 1 else nvrtc.bundle(cubins), spills)
