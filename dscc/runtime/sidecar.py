"""Runtimes of devices that TVM's wheel lacks: C++ of ours, compiled on first use and kept.

    ~/.cache/dscc/opencl-1f0c2d9a.so      (or below $XDG_CACHE_HOME)

The name has a digest of the sources and of the ABI, so that another version of dscc or TVM compiles its own.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from dscc.errors import ArtifactError

COMPILERS = ("c++", "g++", "clang++")


def library(name: str, sources: Sequence[Path]) -> Path:
    """The shared library made of these sources, the first of which is compiled; the others it includes.

    Raises:
        ArtifactError: there is no C++ compiler, or it failed.
    """
    headers = [folder for package in ("tvm_ffi", "tvm") for folder in _includes(package)]
    content = b"".join(source.read_bytes() for source in sources)
    path = _cache() / f"{name}-{hashlib.sha256(content + repr(headers).encode()).hexdigest()[:16]}.so"
    if not path.exists():
        _compile(sources[0], path, headers)
    return path


def _includes(package: str) -> list[Path]:
    spec = importlib.util.find_spec(package)  # of a package at the top, it executes nothing
    return [Path(folder) / "include" for folder in (spec.submodule_search_locations or []) if spec] if spec else []


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dscc"


def _compile(source: Path, path: Path, headers: Sequence[Path]) -> None:
    command = [*compiler(), "-std=c++17", "-O2", "-shared", "-fPIC", *(f"-I{folder}" for folder in headers)]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            made = Path(folder) / path.name
            done = subprocess.run([*command, "-o", str(made), str(source)], capture_output=True, text=True, check=False)
            if done.returncode != 0:
                said = next((line for line in done.stderr.splitlines() if "error" in line), "it gives no reason")
                raise ArtifactError(f"the C++ compiler '{command[0]}' cannot build {source.name}: {said}")
            os.replace(made, path)  # others see all of it or nothing
    except OSError as err:
        raise ArtifactError(f"cannot write '{path}': {(err.strerror or str(err)).lower()}") from err


def compiler() -> tuple[str, ...]:
    """The command that compiles C++.

    Raises:
        ArtifactError: none is installed.
    """
    for name in COMPILERS:
        if found := shutil.which(name):
            return (found,)
    if importlib.util.find_spec("ziglang") is not None:
        return (sys.executable, "-m", "ziglang", "c++")
    raise ArtifactError(
        f"no C++ compiler found for the device's runtime: none of {', '.join(COMPILERS)} is on PATH; "
        "install one, or run 'pip install ziglang'"
    )
