"""What an x86-64 processor can do: by its LLVM name, or this machine's as the kernel reports it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import tvm

from dscc.errors import TargetError, unknown
from dscc.schedule.machine import Machine

# The instruction sets that generated code uses: LLVM's name, and the kernel's. Everything else that LLVM
# implies by a processor's name (sse4a, clzero, ...) is never selected for our kernels.
INSTRUCTION_SETS = {
    "sse3": "pni", "ssse3": "ssse3", "sse4.1": "sse4_1", "sse4.2": "sse4_2", "popcnt": "popcnt",
    "avx": "avx", "avx2": "avx2", "fma": "fma", "f16c": "f16c", "bmi": "bmi1", "bmi2": "bmi2", "avxvnni": "avx_vnni",
    "avx512f": "avx512f", "avx512bw": "avx512bw", "avx512cd": "avx512cd", "avx512dq": "avx512dq",
    "avx512vl": "avx512vl", "avx512vnni": "avx512_vnni", "avx512vbmi": "avx512vbmi", "avx512vbmi2": "avx512_vbmi2",
    "avx512bf16": "avx512_bf16",
    "avx512bitalg": "avx512_bitalg", "avx512vpopcntdq": "avx512_vpopcntdq", "avx512ifma": "avx512ifma",
    "avx512fp16": "avx512_fp16", "amx-tile": "amx_tile", "amx-int8": "amx_int8", "amx-bf16": "amx_bf16",
}  # fmt: skip

BASELINE = "x86-64-v2"


@dataclass(frozen=True)
class Cpu:
    """An architecture.

    Attributes:
        name: LLVM's name of the processor.
        features: the instruction sets of `INSTRUCTION_SETS` that may be used.
        masked: those that `name` implies but this machine does not show (a virtual machine may hide them).
    """

    name: str
    features: frozenset[str]
    masked: frozenset[str]
    l1_bytes: int
    l2_bytes: int

    @property
    def machine(self) -> Machine:
        """The facts that rules compute their defaults from."""
        wide = {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= self.features
        bits = 512 if wide else 256 if {"avx2", "fma"} <= self.features else 128
        return Machine(bits, 32 if wide else 16, self.l1_bytes, self.l2_bytes, wide, self.features)


def named(arch: str) -> Cpu:
    """The processor that LLVM calls `arch`, with the cache sizes that are usual for its kind.

    Raises:
        TargetError: LLVM knows no such 64-bit processor.
    """
    known = _known()
    if arch not in known:
        raise TargetError(unknown("architecture", f"x86:{arch}", [f"x86:{name}" for name in known]))
    features = _implied(arch)
    return Cpu(arch, features, frozenset(), 32 * 1024, (1024 if "avx512f" in features else 512) * 1024)


@cache
def host() -> Cpu:
    """This machine. Falls back to the baseline where the kernel tells nothing (no /proc/cpuinfo)."""
    flags = _kernel_flags()
    name = _system_name()
    if not flags or name not in _known():
        return named(BASELINE)
    implied = _implied(name)
    shown = frozenset(llvm for llvm, kernel in INSTRUCTION_SETS.items() if kernel in flags)
    return Cpu(
        name,
        implied & shown,
        implied - shown,
        _cache_bytes(1, 32 * 1024),
        _cache_bytes(2, 512 * 1024),
    )


@cache
def _known() -> tuple[str, ...]:
    with tvm.target.Target({"kind": "llvm", "mcpu": BASELINE}) as target:
        names = tvm.get_global_func("target.llvm_get_cpu_archlist")(target)
    return tuple(sorted(name for name in map(str, names) if "sse4.2" in _implied(name)))


@cache
def _implied(name: str) -> frozenset[str]:
    with tvm.target.Target({"kind": "llvm", "mcpu": name}) as target:
        features = tvm.get_global_func("target.llvm_get_cpu_features")(target)
    return frozenset(map(str, features)) & INSTRUCTION_SETS.keys()


def _system_name() -> str:
    return str(tvm.get_global_func("target.llvm_get_system_cpu")())


def _kernel_flags() -> frozenset[str]:
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return frozenset()
    lines = (line for line in path.read_text().splitlines() if line.startswith("flags"))
    return frozenset(next(lines, ":").split(":", 1)[1].split())


def _cache_bytes(level: int, default: int) -> int:
    """Size of core 0's data cache of a level, as Linux reports it (sysconf answers 0 on virtual machines)."""
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        if int((index / "level").read_text()) == level and (index / "type").read_text().strip() != "Instruction":
            size = (index / "size").read_text().strip()
            return int(size.rstrip("KM")) * {"K": 1024, "M": 1024**2}.get(size[-1], 1)
    return default
