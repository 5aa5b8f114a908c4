"""NVIDIA's kernels executed on the processor here, through the stand-in for HIP of benchmarks/hip_here.

Everything is as on a device, from the artifact to the launches, but for three things: a C++ compiler of the host takes
the same CUDA C++, instructions of the tensor cores and asynchronous copies are functions that do what NVIDIA's manual
says of them (device.h), and threads of a block take turns (hip.c). So the schedules, the indices, the barriers and the
places of elements in the lanes of matrix instructions are executed; that ptxas' machine code is right is not. Kernels
without halves only: the host's compiler knows no `half`.
"""

from __future__ import annotations

import contextlib
import ctypes
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tvm import tirx

from benchmarks import hip_here
from dscc.errors import ArtifactError, TargetError
from dscc.runtime import cuda, ffi, hip, sidecar
from dscc.targets.cuda import nvrtc
from dscc.targets.cuda.kernel import CudaKernel

FOLDER = Path(__file__).parent
_FLAGS = ("-x", "c++", "-std=c++17", "-O1", "-w", "-fPIC", "-shared", "-march=x86-64-v3", "-ffp-contract=off")
_KERNEL = re.compile(r'^extern "C" __global__ void __launch_bounds__\([^)]*\) (\w+)\(([^)]*)\) \{', re.M)
_PRELUDE = re.compile(r"^#ifdef __CUDACC_RTC__$.*?^  #include <cuda\.h>\n#endif$", re.M | re.S)


@dataclass(frozen=True)
class HostCompiler:
    """Compiles kernels for the processor here, as `dscc.targets.cuda.nvrtc.Nvrtc` does for a device.

    Attributes:
        hip: the stand-in, which its libraries are linked to.
    """

    hip: Path

    def compile(self, source: str, arch: str) -> nvrtc.Compiled:
        """A shared library for the stand-in."""
        with tempfile.TemporaryDirectory(prefix="dscc-") as name:
            made, linked = Path(name) / "kernels.cu", Path(name) / "kernels.so"
            made.write_text(_plain(source))
            command = [*sidecar.compiler(), *_FLAGS, "-include", str(FOLDER / "device.h"), str(made), "-x", "none"]
            done = subprocess.run(
                [*command, str(self.hip), "-o", str(linked)], capture_output=True, text=True, check=False
            )
            if done.returncode != 0:
                raise TargetError(f"a kernel cannot be built for the host: {done.stderr}")
            return nvrtc.Compiled(linked.read_bytes(), "")


def build(folder: Path) -> HostCompiler:
    """The stand-in in `folder`, and what compiles for it.

    Raises:
        TargetError: there is no C or C++ compiler, or this machine has a CUDA device.
    """
    with contextlib.suppress(TargetError):
        cuda._device()
        raise TargetError("this machine has a CUDA device, and a process has one runtime for it")
    try:
        sidecar.compiler()
    except ArtifactError as err:
        raise TargetError(str(err)) from err
    return HostCompiler(hip_here.build(folder).hip)


@contextlib.contextmanager
def standing_in(found: HostCompiler) -> Iterator[None]:
    """While this lasts, kernels for CUDA devices are compiled for the processor here, and run on it."""

    def opened(library: ffi.Library, needs: Mapping[str, Any], wanted: str) -> str:
        _runtime(found.hip.parent)
        return library.text(library.function("dscc.cuda_here.open"), str(found.hip), wanted).partition("\n")[0]

    def static(code: CudaKernel, name: str, size_bytes: int) -> tirx.Var:
        buffer = tirx.decl_buffer((size_bytes,), "uint8", name, scope="shared")
        code.add(tirx.AllocBuffer(buffer))
        return buffer

    patched: tuple[tuple[Any, str, Any], ...] = (
        (nvrtc, "find", lambda: found),
        (cuda, "open_device", opened),
        (cuda, "graphs", lambda *_: None),
        (CudaKernel, "block_bytes", static),  # of a size that the kernel itself says
    )
    before = [(where, name, getattr(where, name)) for where, name, _ in patched]
    try:
        for where, name, value in patched:
            setattr(where, name, value)
        yield
    finally:
        for where, name, value in before:
            setattr(where, name, value)


def _runtime(folder: Path) -> ctypes.CDLL:
    """TVM's device type "cuda", over the stand-in: our runtime for HIP under other names."""
    text = hip.SOURCES[0].read_text()
    for header in hip.SOURCES[1:]:
        text = re.sub(rf'#include "(\.\./)?{header.name}"', f'#include "{header}"', text)
    path = folder / "runtime.cc"
    path.write_text(
        text.replace('"rocm"', '"cuda"')
        .replace("_bytes.rocm", "_bytes.cuda")
        .replace("device_api.rocm", "device_api.cuda")
        .replace("dscc.hip.open", "dscc.cuda_here.open")
    )
    return ctypes.CDLL(str(sidecar.library("cuda_here", [path])), ctypes.RTLD_GLOBAL)


def _plain(source: str) -> str:
    """The source without NVIDIA's headers, and for every kernel a function that takes its arguments' addresses."""
    calls = [_call(name, parameters) for name, parameters in _KERNEL.findall(source)]
    source = source.replace("#include <math_constants.h>", "")
    source = re.sub(r"__shared__ (alignas\(\d+\))", r"\1 static", _PRELUDE.sub("", source))
    return "\n".join([source, *calls])


def _call(name: str, parameters: str) -> str:
    types = [parameter.rpartition(" ")[0] for parameter in parameters.split(",") if parameter.strip()]
    values = [f"*({each.replace('__restrict__', '').strip()}*)arguments[{i}]" for i, each in enumerate(types)]
    return f'extern "C" void dscc_call_{name}(void** arguments) {{ {name}({", ".join(values)}); }}'
