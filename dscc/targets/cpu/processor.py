"""What a processor can do: by its LLVM name, or this machine's as Linux reports it."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import tvm

from dscc.artifact import host as machine
from dscc.errors import TargetError, unknown

_NONE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, eq=False)
class Family:
    """The 64-bit processors that LLVM has one back end for.

    Attributes:
        machine: as `uname -m` says it. With `-linux-gnu` it names cross compilers, and LLVM's triple.
        baseline: LLVM's name of the least processor that code is generated for.
        instruction_sets: those that generated code uses: LLVM's name, and that of /proc/cpuinfo. Whatever else LLVM
            implies by a processor's name (sse4a, pauth, ...) is never selected for our kernels.
        needs: instruction sets without which a processor is not for us.
        adds: instruction sets of the baseline that its name does not imply.
        aliases: names that processors are sold under, and LLVM's.
        options: further fields of TVM's target, such as `mabi`.
    """

    machine: str
    baseline: str
    instruction_sets: Mapping[str, str]
    needs: frozenset[str] = frozenset()
    adds: frozenset[str] = frozenset()
    aliases: Mapping[str, str] = field(default_factory=lambda: _NONE)
    options: Mapping[str, Any] = field(default_factory=lambda: _NONE)

    def target(self, mcpu: str, added: frozenset[str] = frozenset(), masked: frozenset[str] = frozenset()) -> Any:
        """TVM's target for the processor that LLVM calls `mcpu`, with some of its instruction sets taken from it."""
        triple = f"{self.machine}-unknown-linux-gnu"
        spec: dict[str, Any] = {"kind": "llvm", "mcpu": mcpu, "mtriple": triple, **self.options}
        mattr = [*(f"+{name}" for name in sorted(added)), *(f"-{name}" for name in sorted(masked))]
        return tvm.target.Target({**spec, "mattr": mattr} if mattr else spec)

    @property
    def is_here(self) -> bool:
        """Whether this machine is of the family."""
        return machine.family(platform.machine()) == self.machine


@dataclass(frozen=True)
class Processor:
    """One processor of a family.

    Attributes:
        name: what it was asked for by, or LLVM's name of this machine's.
        mcpu: LLVM's name.
        implied: everything that LLVM knows about it; `zvl256b`, say, is no instruction set.
        features: the instruction sets of the family's table that may be used.
        added: those that `mcpu` does not imply.
        masked: those that it implies but this machine does not show (a virtual machine may hide them).
        cache_bytes: sizes of one core's L1 and L2 data caches as this machine reports them, None for another machine.
    """

    name: str
    mcpu: str
    implied: frozenset[str]
    features: frozenset[str]
    added: frozenset[str] = frozenset()
    masked: frozenset[str] = frozenset()
    cache_bytes: tuple[int | None, int | None] = (None, None)


def named(family: Family, arch: str, target: str) -> Processor:
    """The processor called `arch`; `target` is the name of the target, for the error.

    Raises:
        TargetError: LLVM knows no such 64-bit processor.
    """
    known = known_names(family)
    if arch not in known:
        raise TargetError(unknown("architecture", f"{target}:{arch}", [f"{target}:{name}" for name in known]))
    mcpu = family.aliases.get(arch, arch)
    added = family.adds if mcpu == family.baseline else frozenset()
    implied = _implied(family, mcpu, added)
    return Processor(arch, mcpu, implied, implied & family.instruction_sets.keys(), added)


@cache
def host(family: Family) -> Processor:
    """This machine, which is of the family.

    One that LLVM does not know gets the code of the baseline and what Linux says it has besides; one that tells
    nothing (no /proc/cpuinfo), the baseline.
    """
    flags, name = _kernel_flags(), _system_name()
    shown = frozenset(llvm for llvm, kernel in family.instruction_sets.items() if kernel in flags)
    known = name in known_names(family) and name != family.baseline
    if not flags:
        return named(family, family.baseline, family.machine)
    mcpu = name if known else family.baseline
    of_name = _implied(family, mcpu, frozenset()) & family.instruction_sets.keys()
    added = frozenset() if known else shown - of_name
    masked = of_name - shown
    sizes = (_cache_bytes(1), _cache_bytes(2))
    return Processor(mcpu, mcpu, _implied(family, mcpu, added), (of_name | added) & shown, added, masked, sizes)


@cache
def known_names(family: Family) -> tuple[str, ...]:
    """Every name that `named` takes."""
    with family.target(family.baseline) as target:
        names = map(str, tvm.get_global_func("target.llvm_get_cpu_archlist")(target))
    found = {name for name in names if family.needs <= _implied(family, name, frozenset())}
    return tuple(sorted({*found, family.baseline, *family.aliases}))


@cache
def _implied(family: Family, mcpu: str, added: frozenset[str]) -> frozenset[str]:
    with family.target(mcpu, added) as target:
        return frozenset(map(str, tvm.get_global_func("target.llvm_get_cpu_features")(target)))


def _system_name() -> str:
    return str(tvm.get_global_func("target.llvm_get_system_cpu")())


def _kernel_flags() -> frozenset[str]:
    return machine.cpu_flags()


def _cache_bytes(level: int) -> int | None:
    """Size of core 0's data cache of a level, as Linux reports it (sysconf answers 0 on virtual machines)."""
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        if int((index / "level").read_text()) == level and (index / "type").read_text().strip() != "Instruction":
            size = (index / "size").read_text().strip()
            return int(size.rstrip("KM")) * {"K": 1024, "M": 1024**2}.get(size[-1], 1)
    return None
