"""The C compiler that object files are linked into a shared library with.

Only linking is needed: LLVM is inside TVM. Any C compiler driver does, since it knows where the system's start files
and libraries are; where the system has none, the `ziglang` package from PyPI brings one.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from dscc.errors import TargetError
from dscc.library import compile_flags

DRIVERS = ("cc", "gcc", "clang", "c++", "g++", "clang++")


@cache
def find_linker() -> tuple[str, ...]:
    """The command, as the first words of its argument list, that links a shared library for this machine.

    Raises:
        TargetError: there is neither a C compiler on PATH nor the `ziglang` package.
    """
    for driver in DRIVERS:
        if path := shutil.which(driver):
            return (path,)
    if importlib.util.find_spec("ziglang") is not None:
        # Without a target, zig would use every instruction that this machine has, whatever the artifact is for.
        return (sys.executable, "-m", "ziglang", "cc", "-target", "x86_64-linux-gnu")
    raise TargetError(
        f"no C linker found: none of {', '.join(DRIVERS)} is on PATH, nor is the Python package 'ziglang' installed; "
        "install a C compiler, or run 'pip install ziglang'"
    )


def link(objects: Sequence[Path], library: Path, flags: Sequence[str] = (), sources: Sequence[Path] = ()) -> None:
    """Link `objects`, and `sources` in C that use nothing but TVM's C ABI, into the shared library `library`.

    Raises:
        TargetError: there is no linker, or it failed; the text ends with what it said.
    """
    compiled = []
    for source in sources:
        compiled.append(library.with_name(f"{source.stem}.c.o"))
        compiled[-1].write_bytes(_compiled(source))
    # Without a build id and with sections in the order given, the same objects give the same bytes.
    inputs = map(str, [*objects, *compiled])
    _run(["-shared", "-fPIC", "-o", str(library), *inputs, "-Wl,--build-id=none", *flags], "linker")


@cache
def _compiled(source: Path) -> bytes:
    """The object file of a C source of ours, compiled once in a process: it takes 0.1 s."""
    with tempfile.TemporaryDirectory(prefix="dscc-") as folder:
        out = Path(folder) / "out.o"
        _run(["-O2", "-fPIC", "-pthread", *compile_flags(), "-c", str(source), "-o", str(out)], "C compiler")
        return out.read_bytes()


def _run(arguments: Sequence[str], what: str) -> None:
    done = subprocess.run([*find_linker(), *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        # The driver's last line only repeats that it failed: the first one says why.
        said = done.stderr.strip().splitlines() or ["it says nothing"]
        raise TargetError(f"the {what} '{' '.join(find_linker())}' failed with status {done.returncode}: {said[0]}")
