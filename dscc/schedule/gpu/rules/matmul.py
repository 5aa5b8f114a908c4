"""Matrix products, also of batches and with symbolic sizes; see dscc.schedule.gpu.gemm.

    C[.., m, n] = epilogue(sum_k A[.., m, k] * W[k, n])

A constant weight that is stored with its depth last, as [n][k], is turned at compile time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from tvm import tirx
from tvm.ir import Expr, Var
from tvm.ir import TensorLoad as Load
from tvm.sym import Analyzer

from dscc.schedule.base import Packing, Scheduled
from dscc.schedule.code import constant, product
from dscc.schedule.decisions import Decisions
from dscc.schedule.epilogue import Fused
from dscc.schedule.gpu.device import Device, DeviceRule
from dscc.schedule.gpu.gemm import Gemm, choose, write
from dscc.schedule.gpu.kernel import Kernel
from dscc.schedule.merge import Merge
from dscc.schedule.rules.matmul import packed_axes, roles
from dscc.schedule.stages import loads, ravel, substitute, unravel, variables
from dscc.schedule.strides import stride

SUMS = ("float32", "float64", "int32")


@dataclass(frozen=True)
class Turned(Packing):
    """A matrix with its axes in another order.

    Attributes:
        axes: of the weight, the two of the matrix last.
    """

    axes: tuple[int, ...]

    def pack(self, weight: np.ndarray) -> np.ndarray:
        turned = weight.transpose(self.axes)
        return np.ascontiguousarray(turned.reshape(turned.shape[-2:]))


class Matmul(DeviceRule):
    """Products of matrices, batched or not; see the module."""

    name: ClassVar[str] = "matmul"
    depth_last: ClassVar[bool] = False  # constant weights are stored as [column][depth], not as [depth][column]

    def write(self, code: Kernel, gemm: Gemm, device: Device, decisions: Decisions) -> bool:
        """Write the launch; False if this rule does not take such a product."""
        write(code, gemm, choose(gemm, device, decisions))
        return True

    def schedule(
        self, func: tirx.PrimFunc, constants: frozenset[int], device: Device, decisions: Decisions
    ) -> Scheduled | None:
        fused = Fused.of(func)
        if fused is None or str(fused.anchor.buffer.dtype) not in SUMS:
            return None
        found = roles(fused, str(fused.anchor.buffer.dtype), open_sizes=True)
        if found is None:
            return None
        extents = fused.anchor.extents
        code = Kernel()
        merge = Merge(found.rows, [extents[var] for var in found.rows], code)
        left, right = stored(merge.expr(found.left)), stored(found.right)
        params = list(func.params)
        packings: dict[int, Packing] = {}
        which = params.index(right.source) if isinstance(right, Load) and right.source in params else -1
        axes = packed_axes(right, found.depth, found.column) if which in constants and not found.batch else None
        matrix = [found.depth, found.column]
        if axes is not None and self.depth_last:
            axes, matrix = (*axes[:-2], axes[-1], axes[-2]), [found.column, found.depth]
        if axes is not None and axes != tuple(sorted(axes)):
            packings[which] = Turned(axes)
            params[which] = tirx.decl_buffer([extents[var] for var in matrix], right.source.dtype, right.source.name)
            right = tirx.BufferLoad(params[which], matrix)
        view = merge.fused(fused)
        shape = [extents[var] for var in found.batch]

        def batched(number: Expr) -> dict[Var, Expr]:
            return dict(zip(found.batch, unravel(number, shape) if shape else [], strict=True))

        def element(factor: Expr, var: Var):  # type: ignore[no-untyped-def]
            return lambda batch, at: lambda k: substitute(factor, {**batched(batch), var: at, found.depth: k})

        gemm = Gemm(
            rows=merge.extent,
            columns=extents[found.column],
            depth=extents[found.depth],
            batch=product(shape),
            left=element(left, merge.row),
            right=element(right, found.column),
            store=lambda batch, row, column, value: view.store([*batched(batch).values(), row, column], value),
            left_dtype=str(left.ty.dtype),
            right_dtype=str(right.ty.dtype),
            dtype=str(fused.anchor.buffer.dtype),
            left_runs=_runs(left, found.depth),
            right_runs=_runs(right, found.depth),
            run=constant(extents[found.depth]) or 1,
        )
        if not self.write(code, gemm, device, decisions):
            return None
        return Scheduled(tirx.PrimFunc(params, code.stmt(), func.ret_type, func.attrs), packings)


def stored(factor: Expr) -> Expr:
    """A factor of halves without its conversion to the type of the sum, which comes after shared memory."""
    halves = isinstance(factor, tirx.Cast) and str(factor.value.ty.dtype) in ("float16", "bfloat16")
    return factor.value if halves else factor


def _runs(factor: Expr, depth: Var) -> bool:
    """Whether neighbours along the depth are neighbours in memory, in the largest tensor that depends on it."""
    reads = [load for load in loads(factor) if depth in variables(load)]
    if not reads:
        return False
    largest = max(reads, key=lambda load: len(load.indices))
    return stride(ravel(largest.indices, list(largest.source.shape)), depth, Analyzer()) == 1
