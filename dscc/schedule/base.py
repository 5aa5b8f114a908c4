"""What a schedule rule is: it looks at one PrimFunc and returns None ("not mine") or the scheduled function."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import numpy as np
    from tvm import tirx

    from dscc.schedule.decisions import Decisions
    from dscc.schedule.machine import Machine


class Packing(ABC):
    """How a constant parameter is laid out at compile time, once; a frozen dataclass in every rule that needs one."""

    @abstractmethod
    def pack(self, weight: np.ndarray) -> np.ndarray:
        """The weight in the layout that the scheduled function reads: C-contiguous."""


@dataclass(frozen=True)
class Scheduled:
    """A scheduled function, and the constants among its parameters that have to be packed for it.

    Attributes:
        func: the function, with the packed shapes in its signature; same parameter order as before.
        packings: parameter index to the layout that its constant must be given.
    """

    func: tirx.PrimFunc
    packings: Mapping[int, Packing] = field(default_factory=lambda: MappingProxyType({}))


class Rule(ABC):
    """A schedule for one shape of computation. Rules are stateless; a target lists its rules in order."""

    name: ClassVar[str]
    enlarges: ClassVar[bool] = False
    """Whether packed constants take more bytes than before: such a rule is not asked under `--small`."""

    @abstractmethod
    def apply(
        self, func: tirx.PrimFunc, constants: frozenset[int], machine: Machine, decisions: Decisions
    ) -> Scheduled | None:
        """The scheduled function, or None if this rule is not meant for it.

        Args:
            func: an unscheduled function, its outputs last among its parameters.
            constants: indices of the parameters that are compile-time constants, which a rule may have packed.
            machine: what the analytic defaults are computed from.
            decisions: asked for every number that the tuner may choose.
        """
