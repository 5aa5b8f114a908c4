"""Whether this machine can run what an artifact was compiled for. Asked before any of its code is loaded."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

from dscc.artifact.manifest import Manifest

_ALIASES = {"AMD64": "x86_64", "arm64": "aarch64"}


def unfit(manifest: Manifest) -> str | None:
    """Why this machine cannot run the artifact, or None if it can.

    Where the system does not tell what its processor has (no /proc/cpuinfo), only the processor family is compared.
    """
    here = _family(platform.machine())
    if _family(manifest.machine) != here:
        return f"it is for {manifest.machine} processors ({manifest.target}), and this one is {here}"
    flags = _cpu_flags()
    missing = [feature for feature in manifest.cpu_features if feature not in flags]
    if flags and missing:
        return f"it was compiled for {manifest.target}, and this processor lacks {', '.join(missing)}"
    return None


def _family(machine: str) -> str:
    return _ALIASES.get(machine, machine)


@cache
def _cpu_flags() -> frozenset[str]:
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return frozenset()
    for line in path.read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):  # x86 and arm
            return frozenset(value.split())
    return frozenset()
