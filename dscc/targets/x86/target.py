"""x86-64 CPUs: `x86` (this machine), `x86:znver4`, `x86:skylake-avx512`, `x86:x86-64-v3`, ... by LLVM's names."""

from __future__ import annotations

from dscc.schedule.machine import Dot, Machine
from dscc.targets.cpu.processor import Family
from dscc.targets.cpu.target import CpuTarget

FAMILY = Family(
    machine="x86_64",
    baseline="x86-64-v2",
    needs=frozenset({"sse4.2"}),
    instruction_sets={
        "sse3": "pni", "ssse3": "ssse3", "sse4.1": "sse4_1", "sse4.2": "sse4_2", "popcnt": "popcnt",
        "avx": "avx", "avx2": "avx2", "fma": "fma", "f16c": "f16c", "bmi": "bmi1", "bmi2": "bmi2",
        "avxvnni": "avx_vnni", "avx512f": "avx512f", "avx512bw": "avx512bw", "avx512cd": "avx512cd",
        "avx512dq": "avx512dq", "avx512vl": "avx512vl", "avx512vnni": "avx512_vnni", "avx512vbmi": "avx512vbmi",
        "avx512vbmi2": "avx512_vbmi2", "avx512bf16": "avx512_bf16", "avx512bitalg": "avx512_bitalg",
        "avx512vpopcntdq": "avx512_vpopcntdq", "avx512ifma": "avx512ifma", "avx512fp16": "avx512_fp16",
        "amx-tile": "amx_tile", "amx-int8": "amx_int8", "amx-bf16": "amx_bf16",
    },
)  # fmt: skip


VPDPBUSD_512 = Dot("llvm.x86.avx512.vpdpbusd.512", "uint8", "int8", lanes=16)
VPDPBUSD_256 = Dot("llvm.x86.avx512.vpdpbusd.256", "uint8", "int8", lanes=8)


class X86(CpuTarget):
    """Code for one x86-64 processor."""

    name = "x86"
    family = FAMILY

    @property
    def machine(self) -> Machine:
        has = self.processor.features
        wide = {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= has
        bits = 512 if wide else 256 if {"avx2", "fma"} <= has else 128
        l1, l2 = self.processor.cache_bytes
        # Without a machine to ask, the sizes that are usual for its kind.
        l1, l2 = l1 or 32 * 1024, l2 or (1024 if "avx512f" in has else 512) * 1024
        dot = VPDPBUSD_512 if wide and "avx512vnni" in has else VPDPBUSD_256 if "avxvnni" in has else None
        return Machine(bits, 32 if wide else 16, l1, l2, wide, has, dot)
