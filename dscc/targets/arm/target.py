"""64-bit ARM CPUs: `arm` (this machine), `arm:cortex-a72`, `arm:neoverse-v1`, `arm:apple-m1`, ... by LLVM's names.

Code is for NEON, whose 32 registers of 128 bits every such processor has. The scalable vectors of SVE are not used as
such: on the cores whose SVE is 128 bits wide (neoverse-v2, neoverse-n2, cortex-x) or 2 x 256 (neoverse-v1), NEON does
as many multiply-adds per cycle. Only a64fx, with 512 bits, would do more by SVE; LLVM 22 makes instructions for vectors
of that length by an option of the whole process only, which compilations for other processors beside it would see.
"""

from __future__ import annotations

from dscc.schedule.machine import Dot, Machine
from dscc.targets.arm.cores import CORES, FAMILY, Core
from dscc.targets.cpu.target import CpuTarget

# The better one first: smmla does twice the products of sdot.
DOTS = {
    "i8mm": Dot("llvm.aarch64.neon.smmla.v4i32.v16i8", "int8", "int8", lanes=4, rows=2, depth=8),
    "dotprod": Dot("llvm.aarch64.neon.sdot.v4i32.v16i8", "int8", "int8", lanes=4),
}


class Arm(CpuTarget):
    """Code for one 64-bit ARM processor."""

    name = "arm"
    family = FAMILY

    @property
    def machine(self) -> Machine:
        core = CORES.get(self.processor.mcpu, Core())
        l1, l2 = self.processor.cache_bytes
        return Machine(
            vector_bits=128,
            vector_registers=32,
            l1_bytes=l1 or core.l1_kbytes * 1024,
            l2_bytes=l2 or core.l2_kbytes * 1024,
            features=self.processor.features,
            dot=next((dot for feature, dot in DOTS.items() if feature in self.processor.features), None),
        )
