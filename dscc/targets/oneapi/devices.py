"""Intel's devices by the names that `ocloc` has for them, and the facts that rules want.

Sizes are those that Intel documents for the architecture (oneAPI GPU Optimization Guide, "Intel Xe GPU Architecture"):
local memory of 64 KB for a work-group, which may have 256 work-items on Gen9 and 1024 since, in sub-groups of 8 to 32.
"""

from __future__ import annotations

from dataclasses import dataclass

CPU = "cpu"


@dataclass(frozen=True)
class Gpu:
    """A GPU.

    Attributes:
        what: what it is in.
        units: Xe cores or dual sub-slices; of the largest model.
        float64: whether it computes in double precision in hardware.
        standard: the version of OpenCL C that its compiler is given.
    """

    what: str
    units: int
    float64: bool = False
    standard: str = "CL3.0"


GPUS = {
    "skl": Gpu("Gen9 graphics of Skylake processors", 3, float64=True),
    "tgllp": Gpu("Xe-LP graphics of Tiger Lake processors", 6),
    "adls": Gpu("Xe-LP graphics of Alder Lake processors", 2),
    "dg1": Gpu("Iris Xe MAX", 6),
    "dg2": Gpu("Arc A-series", 32),
    "xe_hp_sdv": Gpu("Xe-HP development boards", 32, float64=True),
    # Its compiler of 2022 knows no program scope that CL3.0 wants.
    "pvc": Gpu("Data Center GPU Max", 128, float64=True, standard="CL2.0"),
}

ARCHITECTURES = (CPU, *GPUS)
