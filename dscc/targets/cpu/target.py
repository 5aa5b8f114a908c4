"""What CPU targets have in common: LLVM generates the code, a C compiler links it, the rules are the same.

A target for another family of processors says what its processors have:

    class RiscV(CpuTarget):
        name = "riscv"
        family = Family("riscv64", "generic-rv64", {"v": "v"}, adds=frozenset("mafdcv"), options={"mabi": "lp64d"})

        @property
        def machine(self) -> Machine:
            return Machine(vector_bits=128, vector_registers=32)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Self

import tvm

from dscc.schedule.base import Rule
from dscc.targets import requirements, toolchain
from dscc.targets.base import Target
from dscc.targets.cpu import processor
from dscc.targets.cpu.rules import RULES
from dscc.targets.requirements import Requirement

# The threads of a library's parallel loops come with it: the runtime sets how many there are.
PARALLEL_LOOPS = Path(__file__).parents[2] / "runtime" / "parallel.c"


class CpuTarget(Target):
    """Code for one processor with Linux. `NAME` is this machine, or the family's baseline; `NAME:ARCH` as LLVM says."""

    family: ClassVar[processor.Family]

    def __init__(self, chosen: processor.Processor):
        self.processor = chosen
        self.arch = chosen.name

    @classmethod
    def resolve(cls, arch: str | None) -> Self:
        if arch is None and cls.is_host():
            return cls(processor.host(cls.family))
        return cls(processor.named(cls.family, arch or cls.family.baseline, cls.name))

    @classmethod
    def is_host(cls) -> bool:
        return cls.family.is_here

    @classmethod
    def requirements(cls) -> tuple[Requirement, ...]:
        return (requirements.linker(cls.family.machine),)

    @property
    def machine_name(self) -> str:
        return self.family.machine

    @cached_property
    def tvm_target(self) -> tvm.target.Target:
        chosen = self.processor
        return self.family.target(chosen.mcpu, chosen.added, chosen.masked)

    @property
    def features(self) -> tuple[str, ...]:
        return tuple(sorted(self.family.instruction_sets[feature] for feature in self.processor.features))

    @property
    def rules(self) -> tuple[Rule, ...]:
        return RULES

    def link(self, objects: Sequence[Path], library: Path, sources: Sequence[Path] = ()) -> None:
        linker = toolchain.find_linker(self.family.machine)
        toolchain.link(objects, library, ["-pthread"], [PARALLEL_LOOPS, *sources], linker)
