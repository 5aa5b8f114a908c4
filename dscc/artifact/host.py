"""What this machine has: how many processor cores, and whether they can run what an artifact was compiled for."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from dscc.artifact.manifest import Manifest

_ALIASES = {"AMD64": "x86_64", "arm64": "aarch64"}


def cores() -> int:
    """How many processor cores this process may use; its container may have a quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()  # cgroup 2, in a container
        return max(1, min(count, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no such file, or `max`: no quota
        return count


def processor() -> str:
    """This machine's processor, as the system names it."""
    path = Path("/proc/cpuinfo")
    return _named(path.read_text() if path.exists() else "") or platform.processor() or platform.machine()


def _named(cpuinfo: str) -> str:
    """The first processor in what Linux says: x86 gives its name; ARM the numbers of who made it and of the core."""
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    if "model name" not in fields and "CPU part" in fields:
        return f"ARM implementer {fields.get('CPU implementer', '?')}, part {fields['CPU part']}"
    return fields.get("model name", "")


def unfit(manifest: Manifest) -> str | None:
    """Why this machine cannot run the artifact, or None if it can.

    Where the system does not tell what its processor has (no /proc/cpuinfo), only the processor family is compared.
    """
    return lacking(manifest.machine, manifest.cpu_features, manifest.target)


def lacking(machine: str, features: Iterable[str], target: str) -> str | None:
    """The same for what is compiled for `target`, by the names that a manifest has for processors and features."""
    here = family(platform.machine())
    if family(machine) != here:
        return f"it is for {machine} processors ({target}), and this one is {here}"
    flags = cpu_flags()
    missing = [feature for feature in features if feature not in flags]
    if flags and missing:
        return f"it was compiled for {target}, and this processor lacks {', '.join(missing)}"
    return None


def family(machine: str) -> str:
    """The processor family `machine`, by the name that Linux has for it."""
    return _ALIASES.get(machine, machine)


@cache
def cpu_flags() -> frozenset[str]:
    """What Linux says that this processor has; empty where it says nothing."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return frozenset()
    for line in path.read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):  # x86 and arm
            return frozenset(value.split())
        if key.strip() == "isa":  # riscv: rv64imafdcv_zba_zbb
            letters, *extensions = value.strip().removeprefix("rv64").split("_")
            return frozenset((*letters, *extensions))
    return frozenset()
