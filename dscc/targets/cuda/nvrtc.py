"""NVIDIA's compiler as a library: CUDA C++ in, device code out, without a host compiler and without a device.

It is found in NVIDIA's packages from PyPI (`pip install dscc[cuda]`), else in a CUDA toolkit that is installed. NVRTC
is loaded with ctypes: of its interface we need a dozen functions.
"""

from __future__ import annotations

import ctypes
import importlib.util
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dscc.errors import TargetError

_TOOLKITS = (Path("/usr/local/cuda"), Path("/opt/cuda"))
INSTALL = "pip install 'dscc[cuda]'"
_INSTALL = "run 'pip install dscc[cuda]', or install a CUDA toolkit of version 12.4 or newer"
_OLDEST = (12, 4)


@dataclass(frozen=True)
class Compiled:
    """What the compiler made of a source.

    Attributes:
        code: a cubin, the machine code of one architecture.
        log: what ptxas said of every kernel: registers, spills, shared memory.
    """

    code: bytes
    log: str

    @property
    def spills(self) -> int:
        """Bytes that the kernels keep in memory for want of registers."""
        return sum(map(int, re.findall(r"(\d+) bytes spill (?:stores|loads)", self.log)))


class Nvrtc:
    """The library at one place, with the folders that hold its headers."""

    def __init__(self, library: Path, headers: Sequence[Path]):
        self.library, self.headers = library, tuple(headers)
        self._lib = ctypes.CDLL(str(library))
        self._lib.nvrtcGetErrorString.restype = ctypes.c_char_p
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._check(self._lib.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
        self.version = (major.value, minor.value)

    @property
    def architectures(self) -> tuple[int, ...]:
        """The architectures that this version compiles for, such as 90 for sm_90."""
        count = ctypes.c_int()
        self._check(self._lib.nvrtcGetNumSupportedArchs(ctypes.byref(count)))
        numbers = (ctypes.c_int * count.value)()
        self._check(self._lib.nvrtcGetSupportedArchs(numbers))
        return tuple(numbers)

    def compile(self, source: str, arch: str) -> Compiled:
        """The cubin of `source` for `arch`, such as `sm_90a`.

        Raises:
            TargetError: the compiler refused the source; the text ends with what it said first.
        """
        options = [
            f"--gpu-architecture={arch}",
            "--std=c++17",
            "--use_fast_math",
            "--ptxas-options=-v",
            "-default-device",
            "--diag-suppress=177",  # functions of TVM's that no kernel calls
            *(f"--include-path={folder}" for folder in self.headers),
            *(f"-U__CUDA_NO_{name}__" for name in ("HALF_OPERATORS", "HALF_CONVERSIONS", "BFLOAT16_OPERATORS")),
            *(f"-U__CUDA_NO_{name}__" for name in ("BFLOAT16_CONVERSIONS", "BFLOAT162_OPERATORS")),
        ]
        program = ctypes.c_void_p()
        created = self._lib.nvrtcCreateProgram(
            ctypes.byref(program), source.encode(), b"dscc_kernels.cu", ctypes.c_int(0), None, None
        )
        self._check(created)
        try:
            words = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
            status = self._lib.nvrtcCompileProgram(program, len(options), words)
            log = self._text(program, "ProgramLog")
            if status != 0:
                raise TargetError(
                    f"NVRTC {'.'.join(map(str, self.version))} refused a kernel for {arch}: {_first(log)}"
                )
            return Compiled(self._bytes(program, "CUBIN"), log)
        finally:
            self._lib.nvrtcDestroyProgram(ctypes.byref(program))

    def _bytes(self, program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        self._check(getattr(self._lib, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
        out = ctypes.create_string_buffer(size.value)
        self._check(getattr(self._lib, f"nvrtcGet{what}")(program, out))
        return out.raw

    def _text(self, program: ctypes.c_void_p, what: str) -> str:
        return self._bytes(program, what).rstrip(b"\0").decode(errors="replace")

    def _check(self, status: int) -> None:
        if status != 0:
            said = self._lib.nvrtcGetErrorString(status).decode()
            raise TargetError(f"NVRTC ('{self.library}') failed: {said}; {_INSTALL}")


def fatbin() -> Path:
    """NVIDIA's library that puts code for several architectures into one image.

    Raises:
        TargetError: it is not installed.
    """
    found = [path for library, _ in _places() for path in sorted(library.parent.glob("libnvfatbin.so.1[0-9]"))]
    if not found:
        raise TargetError(f"several architectures in one artifact need NVIDIA's library nvFatbin; {_INSTALL}")
    return found[0]


def bundle(cubins: Mapping[str, bytes]) -> bytes:
    """Machine code for several architectures as one image, from which the driver takes what the device needs.

    Args:
        cubins: by architecture, such as `sm_80`.

    Raises:
        TargetError: NVIDIA's library for it is not installed, or it failed.
    """
    library = fatbin()
    lib = ctypes.CDLL(str(library))

    def check(status: int) -> None:
        if status != 0:
            raise TargetError(f"nvFatbin ('{library}') failed with status {status}; {_INSTALL}")

    handle, size = ctypes.c_void_p(), ctypes.c_size_t()
    options = (ctypes.c_char_p * 1)(b"-64")
    check(lib.nvFatbinCreate(ctypes.byref(handle), options, ctypes.c_size_t(1)))
    try:
        for arch, code in sorted(cubins.items()):
            number = arch.removeprefix("sm_").encode()
            check(lib.nvFatbinAddCubin(handle, code, ctypes.c_size_t(len(code)), number, b"kernels"))
        check(lib.nvFatbinSize(handle, ctypes.byref(size)))
        image = ctypes.create_string_buffer(size.value)
        check(lib.nvFatbinGet(handle, image))
        return image.raw
    finally:
        lib.nvFatbinDestroy(ctypes.byref(handle))


def _first(log: str) -> str:
    lines = log.strip().splitlines() or ["it says nothing"]
    return next((line for line in lines if re.search(r"\berror\b|fatal", line)), lines[0])


@cache
def find() -> Nvrtc:
    """The compiler of this machine.

    Raises:
        TargetError: there is none, or it is too old.
    """
    for library, headers in _places():
        found = Nvrtc(library, headers)
        if found.version >= _OLDEST:
            return found
        raise TargetError(f"NVRTC {'.'.join(map(str, found.version))} at '{library}' is too old; {_INSTALL}")
    raise TargetError(
        f"no CUDA compiler found: neither the Python package 'nvidia-cuda-nvrtc' nor a toolkit; {_INSTALL}"
    )


def _places() -> list[tuple[Path, tuple[Path, ...]]]:
    """Libraries with their folders of headers, those of Python packages first."""
    found: list[tuple[Path, tuple[Path, ...]]] = []
    spec = importlib.util.find_spec("nvidia")
    for root in map(Path, (spec.submodule_search_locations or ()) if spec else ()):
        for folder in sorted(root.glob("cu[0-9]*"), reverse=True):
            found += _in_toolkit(folder)
    system = [Path(compiler).resolve().parents[1] for compiler in [shutil.which("nvcc")] if compiler]
    for folder in (*system, *_TOOLKITS):
        found += _in_toolkit(folder)
    return found


def _in_toolkit(root: Path) -> list[tuple[Path, tuple[Path, ...]]]:
    include = next((p for p in (root / "include", root / "targets/x86_64-linux/include") if p.is_dir()), None)
    if include is None or not (include / "cuda_fp16.h").exists():
        return []
    headers = tuple(p for p in (include, include / "cccl") if p.is_dir())
    libraries = [p for part in ("lib", "lib64") for p in sorted((root / part).glob("libnvrtc.so.1[0-9]"))]
    return [(library, headers) for library in libraries[:1]]
