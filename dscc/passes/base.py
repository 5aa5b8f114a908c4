"""What every pass is: a frozen dataclass whose fields are its options, and a function from IRModule to IRModule."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import tvm

    from dscc.targets.base import Target


@dataclass
class PassContext:
    """What a pass may look at and report to while it runs.

    Attributes:
        target: what is compiled for.
        remarks: what passes did, and why they refused.
        facts: what the artifact's summary says of the passes' work, by name.
        records: from an unscheduled kernel and its constant parameters to what the tuner chose for it, or None.
    """

    target: Target
    remarks: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    records: Callable[[Any, frozenset[int]], Mapping[str, Any]] | None = None

    def remark(self, text: str) -> None:
        """Say what a pass did or why it refused; `dscc opt --remarks` prints it."""
        self.remarks.append(text)


@dataclass(frozen=True)
class Pass(ABC):
    """A transformation of a whole module. Subclasses are frozen dataclasses; their fields are the pass's options."""

    name: ClassVar[str]
    stage: ClassVar[str] = "graph"  # one of dscc.pipeline.STAGES

    @abstractmethod
    def run(self, mod: tvm.IRModule, ctx: PassContext) -> tvm.IRModule:
        """The transformed module; `mod` itself is left as it was."""
