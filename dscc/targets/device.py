"""What a target adds whose kernels run on a device: how its code is finished, and what runs it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from dscc.schedule.gpu.device import Device
from dscc.targets.base import Target

if TYPE_CHECKING:
    import tvm
    from tvm import tirx

HOST_ARCHITECTURE = "x86-64-v3"  # what every machine has that devices of the last ten years are in


@dataclass(frozen=True)
class Binary:
    """Device code.

    Attributes:
        format: how the runtime's module of this kind calls it, as in `cubin`, `hsaco`, `bin`, `spv`.
        code: the bytes.
        spills: what its kernels keep in memory for want of registers, as far as the compiler says: bytes, or registers.
    """

    format: str
    code: bytes
    spills: int = 0


class DeviceTarget(Target):
    """A device and its host. Kernels of the device's rules become its code, everything else the host's."""

    module: ClassVar[str]
    """TVM's name of the device's modules and of its device API; the kind of `tvm_device` is its code generator's."""
    device_type: ClassVar[int]
    """DLPack's number of the device type."""

    @property
    @abstractmethod
    def tvm_device(self) -> Mapping[str, Any]:
        """TVM's description of the device, without its host."""

    def prepare(self, func: tirx.PrimFunc) -> tirx.PrimFunc:
        """A scheduled function as TVM's passes can lower it."""
        return func

    def spelled(self, kernel: tirx.PrimFunc) -> tirx.PrimFunc:
        """A lowered kernel, parted from its launcher, as the code generator can write it."""
        return kernel

    @property
    @abstractmethod
    def machine(self) -> Device:
        """The facts that the rules' analytic defaults are computed from."""

    @abstractmethod
    def finish(self, source: str) -> Binary:
        """Compile what TVM's code generator wrote for one group of kernels.

        Called from several threads at once.

        Raises:
            TargetError: no compiler is installed, or it failed.
        """

    def show(self, source: str, form: str) -> str | bytes:
        """A group of kernels in one of `forms`: `source` as it is, `binary` as it goes into the artifact.

        Raises:
            TargetError: a tool that it takes is not installed, or failed.
        """
        return source if form == "source" else self.finish(source).code

    @property
    @abstractmethod
    def device(self) -> Mapping[str, Any]:
        """What the artifact says about the device that it needs; `dscc.runtime.device` reads it.

        `kind` is the device's module, `type` its number in DLPack, `name` the target, and what else its runtime checks.
        """

    @cached_property
    def host(self) -> Target:
        from dscc import targets
        from dscc.targets.x86.target import X86

        return X86.resolve(HOST_ARCHITECTURE) if X86.is_host() else targets.resolve(None)

    @cached_property
    def tvm_target(self) -> tvm.target.Target:
        import tvm

        return tvm.target.Target(dict(self.tvm_device), host=self.host.tvm_target)

    @property
    def machine_name(self) -> str:
        return self.host.machine_name

    @property
    def loader_target(self) -> tvm.target.Target:
        return self.host.loader_target

    @property
    def features(self) -> tuple[str, ...]:
        return self.host.features

    def write_object(self, kernels: tvm.runtime.Module, path: Path) -> None:
        self.host.write_object(kernels, path)

    def link(self, objects: Sequence[Path], library: Path, sources: Sequence[Path] = ()) -> None:
        self.host.link(objects, library, sources)
