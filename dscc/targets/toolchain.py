"""The C compiler that object files are linked into a shared library with, for this machine or for another family.

Only linking is needed: LLVM is inside TVM. Any C compiler driver does, since it knows where the system's start files
and libraries are; where the system has none, the `ziglang` package from PyPI brings one for every family.
"""

from __future__ import annotations

import importlib.util
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from dscc.artifact import host
from dscc.errors import TargetError
from dscc.library import compile_flags

DRIVERS = ("cc", "gcc", "clang", "c++", "g++", "clang++")
CROSS_DRIVERS = ("gcc", "g++")

Linker = tuple[str, ...]
"""The first words of a command."""


@cache
def find_linker(machine: str = "") -> Linker:
    """The command, as the first words of its argument list, that links a shared library.

    Args:
        machine: the family of processors that it is for, as `uname -m` says it; this machine's if empty.

    Raises:
        TargetError: there is neither a C compiler on PATH nor the `ziglang` package.
    """
    here = host.family(platform.machine())
    machine = machine or here
    drivers = DRIVERS if machine == here else tuple(f"{machine}-linux-gnu-{name}" for name in CROSS_DRIVERS)
    for driver in drivers:
        if path := shutil.which(driver):
            return (path,)
    if importlib.util.find_spec("ziglang") is not None:
        # Without a target, zig would use every instruction that this machine has, whatever the artifact is for.
        return (sys.executable, "-m", "ziglang", "cc", "-target", f"{machine}-linux-gnu")
    kind, install = ("C linker", "a C compiler") if machine == here else (f"linker for {machine}", _package(machine))
    raise TargetError(
        f"no {kind} found: none of {', '.join(drivers)} is on PATH, nor is the Python package 'ziglang' installed; "
        f"install {install}, or run 'pip install ziglang'"
    )


def _package(machine: str) -> str:
    return f"a cross compiler ('apt-get install g++-{machine.replace('_', '-')}-linux-gnu')"


def link(
    objects: Sequence[Path],
    library: Path,
    flags: Sequence[str] = (),
    sources: Sequence[Path] = (),
    linker: Linker | None = None,
) -> None:
    """Link `objects`, and `sources` in C that use nothing but TVM's C ABI, into the shared library `library`.

    Args:
        linker: what `find_linker` found; the one for this machine if there is none.

    Raises:
        TargetError: there is no linker, or it failed; the text ends with what it said.
    """
    linker = linker or find_linker()
    compiled = []
    for source in sources:
        compiled.append(library.with_name(f"{source.stem}.c.o"))
        compiled[-1].write_bytes(_compiled(source, linker))
    # Without a build id and with sections in the order given, the same objects give the same bytes. The debug
    # information that TVM writes is half of a small library, and has no source to point to.
    options = ["-shared", "-fPIC", "-Wl,--build-id=none,--strip-debug"]
    _run(linker, [*options, "-o", str(library), *map(str, [*objects, *compiled]), *flags], "linker")


@cache
def _compiled(source: Path, linker: Linker) -> bytes:
    """The object file of a C source of ours, compiled once in a process: it takes 0.1 s."""
    with tempfile.TemporaryDirectory(prefix="dscc-") as folder:
        out = Path(folder) / "out.o"
        _run(linker, ["-O2", "-fPIC", "-pthread", *compile_flags(), "-c", str(source), "-o", str(out)], "C compiler")
        return out.read_bytes()


def _run(linker: Linker, arguments: Sequence[str], what: str) -> None:
    done = subprocess.run([*linker, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        # The driver's last line only repeats that it failed: the first one says why.
        said = done.stderr.strip().splitlines() or ["it says nothing"]
        raise TargetError(f"the {what} '{' '.join(linker)}' failed with status {done.returncode}: {said[0]}")
