"""What finishes kernels for devices that are not here: `ocloc`, to a GPU's own code, or else SPIR-V.

`ocloc` comes with Intel's compute runtime (Debian: intel-opencl-icd). SPIR-V is what the C front end makes that is in
Intel's OpenCL runtime for processors, `intel-opencl-rt` of PyPI; a GPU's driver finishes it when it is loaded.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
import threading
from functools import cache
from pathlib import Path

from dscc.errors import TargetError
from dscc.runtime.opencl import locate
from dscc.targets.device import Binary

OCLOC = "ocloc"
INSTALL_OCLOC = "apt-get install intel-opencl-icd"

_lock = threading.Lock()  # the front end has global state


def ocloc() -> str | None:
    """The offline compiler, if it is installed."""
    return shutil.which(OCLOC)


def by_ocloc(source: str, device: str, options: str) -> Binary:
    """A GPU's own code.

    Raises:
        TargetError: the compiler refused a kernel.
    """
    with tempfile.TemporaryDirectory(prefix="dscc-") as folder:
        path = Path(folder) / "kernels.cl"
        path.write_text(source)
        command = [OCLOC, "compile", "-file", str(path), "-device", device, "-options", options, "-out_dir", folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        made = sorted(Path(folder).glob("kernels_*.bin"))
        if done.returncode != 0 or not made:
            said = (done.stdout + done.stderr).splitlines()
            complaint = next((line for line in said if "error" in line.lower()), (said or ["it gives no reason"])[-1])
            raise TargetError(f"'ocloc' refused a kernel for {device}: {complaint}")
        return Binary("bin", made[0].read_bytes())


def to_spirv(source: str, options: str) -> Binary:
    """SPIR-V, for any device.

    Raises:
        TargetError: the front end is not installed, or refused a kernel.
    """
    library = _front_end(locate.front_end())
    result = ctypes.c_void_p()
    version = b"300" if "CL3.0" in options else b"200"
    with _lock:
        # opencl-clang's C interface (opencl_clang.h): the source, no headers, options, options of its own.
        status = library.Compile(
            ctypes.c_char_p(source.encode()),
            None,
            0,
            None,
            None,
            ctypes.c_size_t(0),
            ctypes.c_char_p(options.encode()),
            ctypes.c_char_p(b"-emit-spirv -spirv-ext=-all"),  # drivers lack the newest extensions
            ctypes.c_char_p(version),
            ctypes.byref(result),
        )
    methods = _Result(result)
    try:
        if status != 0:
            lines = methods.log().splitlines() or ["it gives no reason"]
            raise TargetError(
                f"the OpenCL front end refused a kernel: {next((li for li in lines if 'error' in li), lines[0])}"
            )
        return Binary("spv", methods.code())
    finally:
        methods.release()


@cache
def _front_end(path: Path) -> ctypes.CDLL:
    return ctypes.CDLL(str(path))


class _Result:
    """An object of the class IOCLFEBinaryResult of opencl_clang.h, by the places of its virtual functions."""

    _SIZE, _CODE, _LOG, _RELEASE = 0, 1, 4, 5

    def __init__(self, result: ctypes.c_void_p):
        self._result = result

    def _call(self, place: int, kind: type) -> int | None:
        table = ctypes.cast(self._result, ctypes.POINTER(ctypes.POINTER(ctypes.c_void_p)))[0]
        method = ctypes.CFUNCTYPE(kind, ctypes.c_void_p)(table[place])
        found: int | None = method(self._result)
        return found

    def code(self) -> bytes:
        return ctypes.string_at(
            self._call(self._CODE, ctypes.c_void_p) or 0, self._call(self._SIZE, ctypes.c_size_t) or 0
        )

    def log(self) -> str:
        address = self._call(self._LOG, ctypes.c_void_p) if self._result else None
        return ctypes.string_at(address).decode(errors="replace") if address else ""

    def release(self) -> None:
        if self._result:
            self._call(self._RELEASE, ctypes.c_void_p)
