"""The compiler that finishes kernels: clang and lld, which know AMD's devices without anything of ROCm's.

The `ziglang` package of PyPI holds both; else ROCm's own, or those on PATH, are taken. Kernels include no header of
theirs: dscc/targets/rocm/device/opencl.h declares as much of OpenCL C as generated code uses.
"""

from __future__ import annotations

import importlib.util
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
    *("-include", str(DEVICE / "opencl.h")),
)


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
        written, made = folder / "kernels.cl", folder / "kernels.out"
        written.write_text(source)
        command = [*self.compiler, *_FLAGS, f"-mcpu={arch}", what, str(written), "-o", str(made)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise TargetError(f"clang refused a kernel for {arch}: {_complaint(done.stderr)}")
        return made


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
