"""AMD's kernels executed on the processor here: compiled for it, and run by a stand-in for the HIP runtime.

Everything is as on a device, from the artifact to the launches, but for three things: clang compiles the same OpenCL C
for x86-64, matrix instructions are functions that do what AMD's manuals say of them (device.h), and threads of a block
take turns (hip.c). So the schedules, the indices, the barriers and the places of elements in the lanes of matrix
instructions are executed; that clang's machine code for AMD is right is not.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dscc.errors import TargetError
from dscc.runtime import ffi, hip
from dscc.targets.rocm import clang
from dscc.targets.rocm.machine import named

FOLDER = Path(__file__).parent
_FLAGS = (
    *("-x", "cl", "-cl-std=CL2.0", "-cl-no-stdinc", "-O1", "-Wno-everything", "-fPIC", "-march=x86-64-v3"),
    *("--target=x86_64-linux-gnu", "-c"),
    *("-include", str(clang.DEVICE / "opencl.h"), "-include", str(FOLDER / "device.h"), f"-I{clang.DEVICE}"),
)
_KERNEL = re.compile(r"^__kernel void (\w+)\(([^)]*)\) \{", re.M)


@dataclass(frozen=True)
class HostClang(clang.Clang):
    """Compiles kernels for the processor here. `dscc.targets.rocm.clang.find` is to give one.

    Attributes:
        hip: the stand-in, which its libraries are linked to.
    """

    hip: Path

    def code_object(self, source: str, arch: str) -> bytes:
        """A shared library for the stand-in."""
        machine = named(arch)
        defines = [f"-DDSCC_WAVE={machine.warp}", f"-DDSCC_RDNA={4 if machine.matrix == 'wmma12' else 3}"]
        with tempfile.TemporaryDirectory(prefix="dscc-") as name:
            folder = Path(name)
            (folder / "kernels.cl").write_text(_plain(source))
            made, linked = folder / "kernels.o", folder / "kernels.so"
            _run([*self.compiler, *_FLAGS, *defines, str(folder / "kernels.cl"), "-o", str(made)])
            _run([*self.linker, "-shared", str(made), str(self.hip), "-o", str(linked)])
            return linked.read_bytes()


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise TargetError(f"a kernel cannot be built for the host: {done.stderr}")


def build(folder: Path) -> HostClang:
    """The stand-in as `folder`/libamdhip64.so, and what compiles for it.

    Raises:
        TargetError: there is no C compiler, or no clang.
    """
    found, compiler = clang.find(), shutil.which("cc")
    if compiler is None:
        raise TargetError("the stand-in for HIP needs a C compiler; install one")
    path = folder / "libamdhip64.so"
    # The loader takes libraries of one name for the same: kernels find the threads of the stand-in that they are for.
    flags = ["-O1", "-shared", "-fPIC", f"-Wl,-soname,{path}"]
    subprocess.run([compiler, *flags, "-o", str(path), str(FOLDER / "hip.c")], check=True)
    return HostClang(found.compiler, found.linker, path)


@contextlib.contextmanager
def standing_in(found: HostClang) -> Iterator[None]:
    """While this lasts, kernels for AMD's devices are compiled for the processor here, and run on it."""

    def opened(library: ffi.Library, needs: object, wanted: str) -> str:
        hip._runtime()
        return str(library.text(library.function("dscc.hip.open"), str(found.hip), wanted)).partition("\n")[0]

    before = clang.find, hip.open_device
    os.environ.setdefault("FAKE_HIP_ARCH", "gfx942")
    clang.find = lambda: found  # type: ignore[assignment]
    hip.open_device = opened  # whatever architecture: the process has one device
    try:
        yield
    finally:
        clang.find, hip.open_device = before


def _plain(source: str) -> str:
    """Kernels as functions, and for every one of them a function that takes its arguments' addresses.

    Memory that a block shares is static: one block runs at a time.
    """
    source = re.sub(r"^( +)__local (?=\w+ \w+\[)", r"\1static __global ", source, flags=re.M)
    source = source.replace("__local", "__global")
    calls = [_call(name, parameters) for name, parameters in _KERNEL.findall(source)]
    return "\n".join([source.replace("__kernel void", "void"), *calls])


def _call(name: str, parameters: str) -> str:
    types = [parameter.rpartition(" ")[0] for parameter in parameters.split(",") if parameter.strip()]
    values = [f"*({each.replace('restrict', '').strip()}*)arguments[{i}]" for i, each in enumerate(types)]
    return f"void dscc_call_{name}(void** arguments) {{ {name}({', '.join(values)}); }}"
