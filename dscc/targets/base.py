"""What every target is: a name, an architecture, the rules it lists, and how it makes a library."""

from __future__ import annotations

import platform
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from dscc.errors import TargetError

if TYPE_CHECKING:
    import tvm

    from dscc.schedule.base import Rule
    from dscc.schedule.machine import Machine
    from dscc.targets.requirements import Requirement


class Target(ABC):
    """A place that code is generated for. One instance is made at the door of a compilation and never changes."""

    name: ClassVar[str]
    forms: ClassVar[Mapping[str, str]] = MappingProxyType({"source": "ll", "asm": "asm"})
    """What `--emit` can show of the generated code, and how TVM's modules call it."""
    spells_out_math: ClassVar[bool] = True
    """Whether elementary functions become arithmetic and LLVM's intrinsics; else TVM calls the C library's."""
    precisions: ClassVar[tuple[str, ...]] = ("fp32",)
    """What `--precision` may be."""
    lowering: ClassVar[tuple[str, ...]] = ()
    """Passes of this target's own, before operators become loops."""
    arch: str

    @classmethod
    @abstractmethod
    def resolve(cls, arch: str | None) -> Target:
        """The target for `arch` as written after the colon; None means this machine, or the usual one of its kind.

        Raises:
            TargetError: the architecture is unknown.
        """

    def in_precision(self, precision: str) -> Target:
        """This target, computing products as `--precision` says.

        Raises:
            TargetError: it does not compute in this precision.
        """
        if precision not in self.precisions:
            known = " or ".join(self.precisions)
            raise TargetError(f"--precision must be {known} for target '{self}', got '{precision}'")
        return self

    @property
    @abstractmethod
    def tvm_target(self) -> tvm.target.Target:
        """TVM's view of this target."""

    @property
    @abstractmethod
    def machine(self) -> Machine:
        """The facts that the rules' analytic defaults are computed from."""

    @property
    @abstractmethod
    def rules(self) -> tuple[Rule, ...]:
        """Schedule rules in the order in which they are asked; the last one takes everything."""

    @property
    @abstractmethod
    def features(self) -> tuple[str, ...]:
        """What the generated code asks of the machine that runs it; for CPUs the flags of Linux's /proc/cpuinfo."""

    @classmethod
    def requirements(cls) -> tuple[Requirement, ...]:
        """What has to be installed to compile for this target and to run what was compiled, present or not."""
        from dscc.targets import requirements

        return (requirements.linker(),)

    @property
    def host(self) -> Target:
        """The target of what does not run on a device: the calls of kernels, shapes, and kernels that no rule of the
        device takes. A CPU is its own host.
        """
        return self

    @property
    def loader_target(self) -> tvm.target.Target:
        """What the code that registers the kernels is compiled for: TVM's LLVM, whatever the kernels are made of."""
        return self.tvm_target

    def write_object(self, kernels: tvm.runtime.Module, path: Path) -> None:
        """Write the kernels that TVM generated for `tvm_target` as an object file."""
        kernels.write_to_file(str(path))

    @abstractmethod
    def link(self, objects: Sequence[Path], library: Path, sources: Sequence[Path] = ()) -> None:
        """Link object files into the shared library at `library`.

        Args:
            objects: what `write_object` wrote, and the loader.
            library: the file to write.
            sources: files of dscc/library that belong into it, in C; `dscc.library.compile_flags` says how to compile.

        Raises:
            TargetError: no linker is installed, or it failed.
        """

    @classmethod
    def is_host(cls) -> bool:
        """Whether this machine is of this target's kind, so that `dscc compile` without `--target` means it."""
        return False

    @property
    def machine_name(self) -> str:
        """The processor family that loads the library, as `uname -m` calls it; this machine's if not said otherwise."""
        return platform.machine()

    def __str__(self) -> str:
        return f"{self.name}:{self.arch}"
