"""AMD's architectures: wavefronts, local memory, matrix instructions, and how many compute units a usual card has.

After AMD's instruction set manuals (CDNA2, CDNA3, RDNA2 to RDNA4) and LLVM's "User Guide for AMDGPU Backend".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import tvm_ffi
from tvm import ir

from dscc.errors import TargetError, unknown
from dscc.schedule.gpu.device import Device
from dscc.targets.rocm import bfloat

if TYPE_CHECKING:
    from tvm import tirx

# Of double precision LLVM makes these for AMD's devices; others have no library to call there, and run on the host.
_DOUBLES = frozenset(f"tirx.{name}" for name in ("sqrt", "fabs", "floor", "ceil", "trunc", "round", "nearbyint"))
_OF_A_LIBRARY = frozenset(
    f"tirx.{name}"
    for name in (
        "exp exp2 exp10 log log2 log10 log1p pow sin cos tan sinh cosh tanh asin acos atan asinh acosh atanh atan2 "
        "erf sigmoid hypot fmod ldexp nextafter copysign"
    ).split()
)


@dataclass(frozen=True)
class RocmMachine(Device):
    """A device as the rules see it.

    Attributes:
        arch: as LLVM and the user name it, such as `gfx942`.
        matrix: the family of its matrix instructions: `mfma` (CDNA), `wmma` (RDNA3), `wmma12` (RDNA4), or none.
    """

    arch: str = "gfx90a"
    matrix: str = ""

    def computes(self, func: tirx.PrimFunc) -> bool:
        """Whether the device has the types of all parameters, and the functions of doubles; one 16-bit type at most."""
        return super().computes(func) and not _wants_library(func) and not bfloat.has_both(func)


def _wants_library(func: tirx.PrimFunc) -> bool:
    found: list[ir.Call] = []
    tvm_ffi.structural_walk(func.body, (ir.Call, found.append))
    return any(
        isinstance(call.op, ir.Op)
        and (call.op.name in _OF_A_LIBRARY or "llvm" in call.op.name)
        and str(call.ty.dtype).startswith("float64")
        for call in found
    )


# Compute units of the largest card: MI200, MI300X, MI350X; RX 6900 XT, RX 7900 XTX, RX 7800 XT, RX 7600, Strix Halo,
# RX 9060 XT, RX 9070 XT.
_CDNA = {"gfx90a": 104, "gfx942": 304, "gfx950": 256}
_RDNA2 = {"gfx1030": 80}
_RDNA3 = {"gfx1100": 96, "gfx1101": 60, "gfx1102": 32, "gfx1151": 40}
_RDNA4 = {"gfx1200": 32, "gfx1201": 64}
_UNITS = {**_CDNA, **_RDNA2, **_RDNA3, **_RDNA4}
ARCHITECTURES = tuple(_UNITS)


def named(arch: str) -> RocmMachine:
    """The machine of an architecture.

    Raises:
        TargetError: there is none of that name.
    """
    if arch not in _UNITS:
        raise TargetError(unknown("architecture", f"rocm:{arch}", [f"rocm:{name}" for name in _UNITS]))
    matrix = "mfma" if arch in _CDNA else "wmma" if arch in _RDNA3 else "wmma12" if arch in _RDNA4 else ""
    return RocmMachine(
        arch=arch,
        matrix=matrix,
        units=_UNITS[arch],
        threads=256,
        warp=64 if arch in _CDNA else 32,
        shared_bytes=64 * 1024,
        registers=256,
        float16=True,
        bfloat16=True,
    )
