"""What the rules know of a device, and the base of rules for one."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dscc.schedule.base import Rule, Scheduled
from dscc.schedule.machine import Machine

if TYPE_CHECKING:
    from tvm import tirx

    from dscc.schedule.decisions import Decisions


_FEWEST = 32  # threads of a block that a rule is tuned for


@dataclass(frozen=True)
class Device(Machine):
    """A device as the rules see it: blocks of threads (OpenCL: work-groups of work-items) that share memory.

    Attributes:
        threads: most threads of one block that kernels are written for.
        warp: threads that run in step (CUDA: warp; ROCm: wavefront; OpenCL: sub-group); 1 where that is not so.
        shared_bytes: shared memory of one block.
        units: multiprocessors (OpenCL: compute units), each of which has a few blocks at a time.
        registers: 32-bit registers that a thread can have before they spill.
        float64, float16, bfloat16: whether the device computes in these types.
    """

    threads: int = 256
    warp: int = 1
    shared_bytes: int = 16 * 1024
    units: int = 32
    registers: int = 128
    float64: bool = True
    float16: bool = False
    bfloat16: bool = False

    def computes(self, func: tirx.PrimFunc) -> bool:
        """Whether the device has the types of all parameters."""
        types = {str(param.dtype) for param in func.params if hasattr(param, "dtype")}
        return (self.float64 or "float64" not in types) and (self.float16 or "float16" not in types)


def with_threads(device: Device, decisions: Decisions) -> Device:
    """The device with as many threads to a block as the tuner says; by default the most."""
    fewer = [device.threads >> i for i in range(1, 4)]
    threads = decisions.pick("threads", [device.threads, *(n for n in fewer if n >= _FEWEST and n % device.warp == 0)])
    return replace(device, threads=threads)


class DeviceRule(Rule):
    """A schedule for one shape of computation on a device. What no rule takes runs on the host."""

    def apply(
        self, func: tirx.PrimFunc, constants: frozenset[int], machine: Machine, decisions: Decisions
    ) -> Scheduled | None:
        if not isinstance(machine, Device):
            raise TypeError(f"rule '{self.name}' is for devices")
        return self.schedule(func, constants, machine, decisions) if machine.computes(func) else None

    @abstractmethod
    def schedule(
        self, func: tirx.PrimFunc, constants: frozenset[int], device: Device, decisions: Decisions
    ) -> Scheduled | None:
        """As `Rule.apply`."""
