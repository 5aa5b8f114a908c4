"""The schedule rules of AMD's devices in the order in which they are asked; what none takes runs on the host."""

from __future__ import annotations

from typing import ClassVar

from dscc.schedule.base import Rule
from dscc.schedule.decisions import Decisions
from dscc.schedule.gpu.device import Device
from dscc.schedule.gpu.gemm import Gemm
from dscc.schedule.gpu.kernel import Kernel
from dscc.schedule.gpu.rules.attention import Attention
from dscc.schedule.gpu.rules.conv import Conv
from dscc.schedule.gpu.rules.direct import Direct
from dscc.schedule.gpu.rules.elementwise import Elementwise
from dscc.schedule.gpu.rules.matmul import Matmul
from dscc.schedule.gpu.rules.rows import Rowwise
from dscc.targets.rocm import matrix
from dscc.targets.rocm.machine import RocmMachine


def _write(code: Kernel, gemm: Gemm, device: Device, decisions: Decisions) -> bool:
    held = matrix.fragments(gemm, device) if isinstance(device, RocmMachine) else None
    if held is None or not isinstance(device, RocmMachine):
        return False
    matrix.write(code, gemm, held, device, decisions)
    return True


class MatrixProduct(Matmul):
    """Products of matrices by matrix instructions; see dscc.targets.rocm.matrix."""

    name: ClassVar[str] = "matrix-product"
    depth_last: ClassVar[bool] = True

    def write(self, code: Kernel, gemm: Gemm, device: Device, decisions: Decisions) -> bool:
        return _write(code, gemm, device, decisions)


class MatrixConv(Conv):
    """Dense and grouped convolutions by matrix instructions: products whose left side is read through a window."""

    name: ClassVar[str] = "matrix-conv"
    depth_last: ClassVar[bool] = True

    def write(self, code: Kernel, gemm: Gemm, device: Device, decisions: Decisions) -> bool:
        return _write(code, gemm, device, decisions)


RULES: tuple[Rule, ...] = (
    Attention(),
    MatrixProduct(),
    MatrixConv(),
    Matmul(),
    Conv(),
    Rowwise(),
    Direct(),
    Elementwise(),
)
