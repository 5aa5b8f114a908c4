"""x86-64 CPUs: `x86` (this machine), `x86:znver4`, `x86:skylake-avx512`, `x86:x86-64-v3`, ... by LLVM's names."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import tvm

from dscc.schedule.base import Rule
from dscc.schedule.machine import Machine
from dscc.targets.base import Target
from dscc.targets.x86 import cpu, toolchain
from dscc.targets.x86.rules import RULES

# The threads of a library's parallel loops come with it: the runtime sets how many there are.
PARALLEL_LOOPS = Path(__file__).parents[2] / "runtime" / "parallel.c"


class X86(Target):
    """Code for one x86-64 processor, linked by the system's C compiler or by `ziglang`."""

    name = "x86"

    def __init__(self, processor: cpu.Cpu):
        self._cpu = processor
        self.arch = processor.name

    @classmethod
    def resolve(cls, arch: str | None) -> X86:
        return cls(cpu.named(arch) if arch else cpu.host())

    @classmethod
    def is_host(cls) -> bool:
        return cls.machine_name() in ("x86_64", "AMD64")

    @cached_property
    def tvm_target(self) -> tvm.target.Target:
        masked = [f"-{feature}" for feature in sorted(self._cpu.masked)]
        spec = {"kind": "llvm", "mcpu": self._cpu.name, "mtriple": "x86_64-unknown-linux-gnu"}
        return tvm.target.Target({**spec, "mattr": masked} if masked else spec)

    @property
    def machine(self) -> Machine:
        return self._cpu.machine

    @property
    def features(self) -> tuple[str, ...]:
        return tuple(sorted(cpu.INSTRUCTION_SETS[feature] for feature in self._cpu.features))

    @property
    def rules(self) -> tuple[Rule, ...]:
        return RULES

    def link(self, objects: Sequence[Path], library: Path, sources: Sequence[Path] = ()) -> None:
        toolchain.link(objects, library, ["-pthread"], [PARALLEL_LOOPS, *sources])
