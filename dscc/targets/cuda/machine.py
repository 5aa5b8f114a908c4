"""NVIDIA's architectures: what a multiprocessor has, and how many of them a usual card has."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dscc.errors import TargetError, unknown
from dscc.schedule.base import Scheduled
from dscc.schedule.gpu.device import Device, DeviceRule

if TYPE_CHECKING:
    from tvm import tirx

    from dscc.schedule.decisions import Decisions


@dataclass(frozen=True)
class CudaMachine(Device):
    """A CUDA device as the rules see it.

    Attributes:
        arch: as the user names it, such as `sm_90`.
        code: as the compiler names it: with an `a`, code for this architecture alone and all that it has.
        capability: the architecture as a number, 90 for sm_90.
        block_bytes: shared memory that one block can have if it asks for it; `shared_bytes` it has without.
        tf32: whether products of float32 may round their factors to 11 bits, as the tensor cores take them.
    """

    arch: str = "sm_80"
    code: str = "sm_80"
    capability: int = 80
    block_bytes: int = 163 * 1024
    tf32: bool = False

    @property
    def has_wgmma(self) -> bool:
        """Whether code for this architecture may use warp group products and the bulk tensor copy engine."""
        return self.code == "sm_90a"

    @property
    def plain(self) -> CudaMachine:
        """The same without what only this architecture has."""
        return replace(self, code=self.arch)

    @property
    def has_mma(self) -> bool:
        """Whether it has asynchronous copies to shared memory, and products of 16 x 8 x 16 halves, 32 bytes deep."""
        return self.capability >= 80

    @property
    def multiplies_bytes(self) -> bool:
        return self.has_mma


class CudaRule(DeviceRule):
    """A rule for CUDA devices."""

    def schedule(
        self, func: tirx.PrimFunc, constants: frozenset[int], device: Device, decisions: Decisions
    ) -> Scheduled | None:
        if not isinstance(device, CudaMachine):
            raise TypeError(f"rule '{self.name}' is for CUDA devices")
        return self.write(func, constants, device, decisions)

    @abstractmethod
    def write(
        self, func: tirx.PrimFunc, constants: frozenset[int], machine: CudaMachine, decisions: Decisions
    ) -> Scheduled | None:
        """As `Rule.apply`."""


_MULTIPROCESSORS = {75: 40, 80: 108, 86: 84, 87: 16, 89: 128, 90: 132, 100: 148, 103: 148, 110: 20, 120: 170, 121: 48}
_SHARED_KIB = {75: 64, 80: 163, 86: 99, 87: 163, 89: 99, 90: 227, 100: 227, 103: 227, 110: 227, 120: 99, 121: 99}


def named(arch: str) -> CudaMachine:
    """The machine of an architecture.

    Raises:
        TargetError: there is none of that name.
    """
    known = {f"sm_{number}": number for number in _MULTIPROCESSORS}
    if arch not in known:
        raise TargetError(unknown("architecture", f"cuda:{arch}", [f"cuda:{name}" for name in known]))
    number = known[arch]
    return CudaMachine(
        arch=arch,
        code="sm_90a" if number == 90 else arch,
        capability=number,
        units=_MULTIPROCESSORS[number],
        block_bytes=_SHARED_KIB[number] * 1024,
        threads=256,
        warp=32,
        shared_bytes=48 * 1024,
        registers=255,
        float16=True,
        bfloat16=number >= 80,
    )
