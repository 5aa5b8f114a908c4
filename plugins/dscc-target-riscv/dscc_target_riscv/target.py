"""64-bit RISC-V CPUs with vectors: the rules, the code generator and the linker are those of every CPU.

LLVM turns vectors of a fixed number of lanes into the vector extension's instructions. The baseline promises registers
of 128 bits; the processors that have wider ones say so by a feature such as `zvl256b`.
"""

from __future__ import annotations

from dscc.schedule.machine import Machine
from dscc.targets.cpu.processor import Family
from dscc.targets.cpu.target import CpuTarget

FAMILY = Family(
    machine="riscv64",
    baseline="generic-rv64",
    instruction_sets={name: name for name in (*"mafdcv", "zba", "zbb", "zbs", "zfh", "zvfh")},
    adds=frozenset("mafdcv"),
    needs=frozenset("v"),
    options={"mabi": "lp64d"},
)


class RiscV(CpuTarget):
    """Code for one RISC-V processor."""

    name = "riscv"
    family = FAMILY

    @property
    def machine(self) -> Machine:
        widths = [int(name[3:-1]) for name in self.processor.implied if name.startswith("zvl")]
        l1, l2 = self.processor.cache_bytes
        return Machine(max(widths), 32, l1 or 32 * 1024, l2 or 512 * 1024, features=self.processor.features)
