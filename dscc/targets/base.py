"""What every target is: a name, an architecture, the rules it lists, and how it makes a library."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import tvm

    from dscc.schedule.base import Rule
    from dscc.schedule.machine import Machine


class Target(ABC):
    """A place that code is generated for. One instance is made at the door of a compilation and never changes."""

    name: ClassVar[str]
    arch: str

    @classmethod
    @abstractmethod
    def resolve(cls, arch: str | None) -> Target:
        """The target for `arch` as written after the colon; None means this machine, or the usual one of its kind.

        Raises:
            TargetError: the architecture is unknown.
        """

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

    @abstractmethod
    def export(self, executable: tvm.runtime.Executable, path: Path) -> None:
        """Link the compiled code into one shared library at `path`."""

    def __str__(self) -> str:
        return f"{self.name}:{self.arch}"
