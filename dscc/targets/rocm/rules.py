"""The schedule rules of AMD's devices in the order in which they are asked; what none takes runs on the host."""

from __future__ import annotations

from typing import ClassVar

from tvm import tirx

from dscc.schedule.base import Rule, Scheduled
from dscc.schedule.code import constant
from dscc.schedule.decisions import Decisions
from dscc.schedule.gpu.device import Device, DeviceRule
from dscc.schedule.gpu.gemm import Gemm
from dscc.schedule.gpu.kernel import Kernel
from dscc.schedule.gpu.rules.attention import Attention
from dscc.schedule.gpu.rules.conv import Conv
from dscc.schedule.gpu.rules.direct import Direct
from dscc.schedule.gpu.rules.elementwise import Elementwise
from dscc.schedule.gpu.rules.matmul import Matmul
from dscc.schedule.gpu.rules.rows import Rowwise
from dscc.schedule.heads import Heads
from dscc.targets.rocm import matrix
from dscc.targets.rocm.attend import Attend
from dscc.targets.rocm.attention import TILES, WAVES, Shape
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


class MatrixAttention(DeviceRule):
    """Functions that carry the attribute `dscc.attention`, by matrix instructions; see dscc.targets.rocm.attend."""

    name: ClassVar[str] = "matrix-attention"

    def schedule(
        self, func: tirx.PrimFunc, constants: frozenset[int], device: Device, decisions: Decisions
    ) -> Scheduled | None:
        heads = Heads.of(func)
        if heads is None or not isinstance(device, RocmMachine):
            return None
        held = matrix.held_by(device, heads.dtype)
        if held is None:
            return None
        shapes = [Shape(heads, held, tile) for tile in TILES]
        fitting = [shape for shape in shapes if shape.fits(device)]
        if not fitting:
            return None
        few = constant(heads.queries) is not None and int(heads.queries) <= WAVES * matrix.SIDE
        default = next((shape for shape in fitting if shape.tile.tall == 1), fitting[0]) if few else fitting[0]
        names = {f"{shape.tile.tall}x{shape.tile.keys}": shape for shape in [default, *fitting]}
        code = Kernel()
        Attend(code, names[decisions.pick("tile", list(names))]).launch()
        return Scheduled(func.with_body(code.stmt()))


RULES: tuple[Rule, ...] = (
    MatrixAttention(),
    Attention(),
    MatrixProduct(),
    MatrixConv(),
    Matmul(),
    Conv(),
    Rowwise(),
    Direct(),
    Elementwise(),
)
