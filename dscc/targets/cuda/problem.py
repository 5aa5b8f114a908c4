"""A matrix product whose factors the tensor cores can take as they lie in memory.

out[z, row, column] = epilogue(sum_k left[z, row, k] * right[z, k, column])     right may be stored [column][k]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import tvm_ffi
from tvm import tirx
from tvm.ir import Expr, Var
from tvm.ir import TensorLoad as Load

from dscc.schedule.base import Packing
from dscc.schedule.code import Index, constant, product
from dscc.schedule.epilogue import Fused
from dscc.schedule.gpu.rules.matmul import Turned
from dscc.schedule.merge import Merge
from dscc.schedule.rules.matmul import Roles, roles
from dscc.schedule.stages import is_one, is_zero
from dscc.targets.cuda.kernel import CudaKernel


@dataclass(frozen=True)
class Factor:
    """A factor as a stack of matrices in row-major order.

    Attributes:
        buffer: a parameter.
        batched: whether there is a matrix for every element of the batch, or one for all.
        depth_inner: whether the axis that is summed over is the contiguous one.
    """

    buffer: Var
    batched: bool
    depth_inner: bool


@dataclass(frozen=True)
class Problem:
    """See the module. `view` stores results: its anchor's axes are the batch's, `row` and the column.

    `params` are those of the function, with constants in the layout that `packings` give them.
    """

    dtype: str
    left: Factor
    right: Factor
    batch: tuple[Expr, ...]
    rows: Index
    columns: int
    depth: int
    view: Fused
    params: tuple[Var, ...]
    packings: Mapping[int, Packing]

    @property
    def batches(self) -> Index:
        """How many products there are."""
        return product(self.batch)

    @property
    def aligned(self) -> bool:
        """Whether 16 bytes divide every distance between the lines of the factors, as copies of tiles need."""
        size = {"float16": 2, "bfloat16": 2, "float32": 4, "int8": 1}[self.dtype]
        contiguous = [self.depth, self.depth if self.right.depth_inner else self.columns]
        return all(extent * size % 16 == 0 for extent in contiguous)

    @staticmethod
    def of(func: tirx.PrimFunc, code: CudaKernel, constants: frozenset[int] = frozenset()) -> Problem | None:
        """What `func` computes, or None; views of parameters are declared in `code`.

        Args:
            constants: parameters that may be packed, so that the axis that is summed over is the contiguous one.
        """
        fused = Fused.of(func)
        found = None if fused is None else roles(fused)
        if fused is None or found is None:
            return None
        extents = fused.anchor.extents
        merge = Merge(found.rows, [extents[var] for var in found.rows], code)
        left = _factor(merge.expr(_stripped(found.left)), found, merge.row, extents)
        right = _factor(_stripped(found.right), found, found.column, extents)
        if left is None or right is None or not left.depth_inner:
            return None
        if left.buffer.dtype != right.buffer.dtype:
            return None
        params, packings = list(func.params), {}
        which = params.index(right.buffer) if right.buffer in params else -1
        if which in constants and not right.depth_inner and not right.batched and len(right.buffer.shape) == 2:
            packings[which] = Turned((1, 0))
            params[which] = tirx.decl_buffer(list(right.buffer.shape)[::-1], right.buffer.dtype, right.buffer.name)
            right = Factor(params[which], False, True)
        batch = tuple(extents[var] for var in found.batch)
        columns, depth = int(extents[found.column]), int(extents[found.depth])
        dtype = str(left.buffer.dtype)
        view = merge.fused(fused)
        return Problem(dtype, left, right, batch, merge.extent, columns, depth, view, tuple(params), packings)


def _stripped(expr: Expr) -> Expr:
    """A factor without its conversion to the type of the sum, which is what the tensor cores do."""
    return expr.value if isinstance(expr, tirx.Cast) and str(expr.ty.dtype) == "float32" else expr


def _factor(expr: Expr, found: Roles, line: Var, extents: dict[Var, Expr]) -> Factor | None:
    if not isinstance(expr, Load):
        return None
    indices, shape = list(expr.indices), list(expr.source.shape)
    if len(indices) < 2:
        return None
    inner = indices[-2:]
    if inner[0].same_as(line) and inner[1].same_as(found.depth):
        depth_inner = True
    elif inner[0].same_as(found.depth) and inner[1].same_as(line):
        depth_inner = False
    else:
        return None
    inner_extent = shape[-1]
    if constant(inner_extent) is None:
        return None
    outer = [(at, extent) for at, extent in zip(indices[:-2], shape[:-2], strict=True) if not is_one(extent)]
    if not outer:
        return Factor(expr.source, False, depth_inner)
    batch = [var for var in found.batch if not is_one(extents[var])]
    if len(outer) != len(batch) or any(is_zero(at) for at, _ in outer):
        return None
    for (at, extent), var in zip(outer, batch, strict=True):
        if not at.same_as(var) or not tvm_ffi.structural_equal(extent, extents[var]):
            return None
    return Factor(expr.source, True, depth_inner)
