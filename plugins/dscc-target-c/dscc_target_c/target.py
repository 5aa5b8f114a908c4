"""Kernels through TVM's generator for C, and from there through the system's C compiler."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import tvm
import tvm_ffi
from tvm import tirx

import dscc
from dscc.errors import TargetError, unknown
from dscc.schedule.base import Rule, Scheduled
from dscc.schedule.decisions import Decisions
from dscc.schedule.machine import Machine
from dscc.targets import toolchain

# TVM 0.27 defines these two in every C file, though one library holds several: a linker merges weak definitions.
PRELUDE = """#include <stdint.h>
extern void* __tvm_ffi__library_ctx __attribute__((weak));
extern int32_t __tvm_ffi_main(void*, void*, int, void*) __attribute__((weak));
"""

ARCHITECTURES = ("portable",)


class AsWritten(Rule):
    """Leaves every function as it is: loops in the order in which the operator is defined."""

    name = "as-written"

    def apply(
        self, func: tirx.PrimFunc, constants: frozenset[int], machine: Machine, decisions: Decisions
    ) -> Scheduled | None:
        return Scheduled(func)


class C(dscc.Target):
    """C source for any processor, compiled by the system's C compiler."""

    name: ClassVar[str] = "c"
    forms: ClassVar[Mapping[str, str]] = {"source": "c"}
    spells_out_math: ClassVar[bool] = False

    def __init__(self, arch: str):
        self.arch = arch

    @classmethod
    def resolve(cls, arch: str | None) -> C:
        if arch not in (None, *ARCHITECTURES):
            raise TargetError(unknown("architecture of target 'c'", arch or "", ARCHITECTURES))
        return cls(ARCHITECTURES[0])

    @property
    def tvm_target(self) -> tvm.target.Target:
        return tvm.target.Target({"kind": "c"})

    @property
    def loader_target(self) -> tvm.target.Target:
        return tvm.target.Target({"kind": "llvm"})

    @property
    def machine(self) -> Machine:
        return Machine()

    @property
    def rules(self) -> tuple[Rule, ...]:
        return (AsWritten(),)

    @property
    def features(self) -> tuple[str, ...]:
        return ()

    def write_object(self, kernels: tvm.runtime.Module, path: Path) -> None:
        source = path.with_suffix(".c")
        kernels.write_to_file(str(source))
        prelude = path.with_suffix(".h")
        prelude.write_text(PRELUDE)
        headers = [tvm.libinfo.find_include_path(), *tvm_ffi.libinfo.include_paths()]
        command = [*toolchain.find_linker(), "-O3", "-fPIC", "-include", str(prelude)]
        command += [*(f"-I{folder}" for folder in headers), "-c", str(source), "-o", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            lines = done.stderr.splitlines() or ["it gives no reason"]
            errors = [line for line in lines if "error" in line] or lines
            raise TargetError(f"target 'c': the C compiler refused a kernel: {errors[0]}")

    def link(self, objects: Sequence[Path], library: Path, sources: Sequence[Path] = ()) -> None:
        toolchain.link(objects, library, ["-lm"], sources)
