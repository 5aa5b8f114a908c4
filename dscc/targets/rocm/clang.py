"""The compiler that finishes kernels: clang and lld, which know AMD's devices without anything of ROCm's.

The `ziglang` package of PyPI holds both; else ROCm's own, or those on PATH, are taken. Kernels include no header of
theirs: dscc/targets/rocm/device/opencl.h declares as much of OpenCL C as generated code uses.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dscc.errors import TargetError

INSTALL = "pip install 'dscc[rocm]'"
DEVICE = Path(__file__).parent / "device"
_FLAGS = (
    *("-x", "cl", "-cl-std=CL2.0", "-cl-no-stdinc", "-nogpulib", "-O3", "-Wno-everything"),
    "--target=amdgcn-amd-amdhsa",
    "-mcode-object-version=5",  # what ROCm 5.6 and later load
    "-Rpass-analysis=kernel-resource-usage",
    *("-include", str(DEVICE / "opencl.h")),
)
_SPILLS = re.compile(r"Function Name: (\w+) .*?VGPRs Spill: (\d+)", re.S)
_KERNEL = re.compile(r"^__kernel void (\w+)\([^\n]*\) \{\n.*?^\}\n", re.M | re.S)
_LOOP = re.compile(r"^( *)for \(", re.M)


@dataclass(frozen=True)
class Clang:
    """A compiler and a linker for AMD's devices.

    Attributes:
        compiler, linker: the first words of their commands.
    """

    compiler: tuple[str, ...]
    linker: tuple[str, ...]

    def assembly(self, source: str, arch: str) -> str:
        """The machine code of kernels in OpenCL C, as text.

        Raises:
            TargetError: the compiler refused a kernel.
        """
        with tempfile.TemporaryDirectory(prefix="dscc-") as folder:
            return self._compiled(source, arch, Path(folder), "-S").read_text()

    def code_object(self, source: str, arch: str) -> bytes:
        """The machine code of kernels in OpenCL C, as HIP loads it.

        Raises:
            TargetError: the compiler refused a kernel, or the linker failed.
        """
        with tempfile.TemporaryDirectory(prefix="dscc-") as folder:
            made = self._compiled(source, arch, Path(folder), "-c")
            linked = Path(folder) / "kernels.hsaco"
            command = [*self.linker, "-shared", "--no-undefined", str(made), "-o", str(linked)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise TargetError(f"lld cannot link kernels for {arch}: {_complaint(done.stderr)}")
            return linked.read_bytes()

    def _compiled(self, source: str, arch: str, folder: Path, what: str) -> Path:
        """Kernels that need more registers than there are, when their loops are unrolled, are compiled without that."""
        made = folder / "kernels.out"
        said = self._run(source, arch, made, what)
        spilling = {name for name, count in _SPILLS.findall(said) if int(count)}
        if spilling:
            self._run(_rolled(source, spilling), arch, made, what)
        return made

    def _run(self, source: str, arch: str, made: Path, what: str) -> str:
        """Compile to `made`; what clang said, among it the registers of every kernel."""
        written = made.with_suffix(".cl")
        written.write_text(source)
        command = [*self.compiler, *_FLAGS, f"-mcpu={arch}", what, str(written), "-o", str(made)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise TargetError(f"clang refused a kernel for {arch}: {_complaint(done.stderr)}")
        return done.stderr


def spills(code: bytes) -> int:
    """Vector registers of lanes that the kernels of a code object keep in memory, by its metadata (MessagePack)."""
    found = re.findall(rb"\.vgpr_spill_count(?:\xcc(.)|\xcd(..)|([\x00-\x7f]))", code, re.S)
    return sum(int.from_bytes(b"".join(number), "big") for number in found)


def _rolled(source: str, names: set[str]) -> str:
    """The source with the loops of these kernels left as they are."""

    def kept(found: re.Match[str]) -> str:
        return _LOOP.sub(r"\1#pragma nounroll\n\1for (", found[0]) if found[1] in names else found[0]

    return _KERNEL.sub(kept, source)


def _complaint(said: str) -> str:
    lines = said.splitlines() or ["it gives no reason"]
    return next((line for line in lines if "error" in line), lines[-1])


@cache
def find() -> Clang:
    """The compiler.

    Raises:
        TargetError: none is installed.
    """
    spec = importlib.util.find_spec("ziglang")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        program = Path(folder) / "zig"
        if program.exists():
            return Clang((str(program), "clang"), (str(program), "ld.lld"))
    folders = ["/opt/rocm/llvm/bin", None]
    for path in folders:
        compiler, linker = shutil.which("clang", path=path), shutil.which("ld.lld", path=path)
        if compiler and linker:
            return Clang((compiler,), (linker,))
    raise TargetError(f"no compiler for AMD's devices is installed (clang with ld.lld, or ziglang); run {INSTALL}")
