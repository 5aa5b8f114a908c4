"""Products of matrices of bytes, where the processor has an instruction for their sums.

    C[.., m, n] = epilogue(sum_k (int32(A[.., m, k]) - a) * (int32(W[k, n]) - w[n]))          A, W: int8 or uint8

W is constant and packed at compile time; the zero points a and w[n] may be missing. See dscc/schedule/dot.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr, Var
from tvm.ir import TensorLoad as Load

from dscc.schedule.base import Rule, Scheduled
from dscc.schedule.code import Code, constant, index
from dscc.schedule.decisions import Decisions
from dscc.schedule.dot import ByteProduct, DotPacking, MatrixRows, choose, flips, panel_bytes, write_byte_product
from dscc.schedule.epilogue import Fused
from dscc.schedule.machine import Machine
from dscc.schedule.math import vector_math
from dscc.schedule.merge import Merge
from dscc.schedule.microkernel import has_long_functions
from dscc.schedule.rules.matmul import roles
from dscc.schedule.stages import substitute, variables
from dscc.schedule.tiling import Columns

BYTES = ("int8", "uint8")


@dataclass(frozen=True)
class Factor:
    """int32(bytes[..]) - zero; the zero point is None where there is none."""

    bytes: Load
    zero: Expr | None

    @staticmethod
    def of(factor: Expr, indices: Sequence[Var], zero_of: Sequence[Var]) -> Factor | None:
        """The factor if its bytes are read at exactly these indices, and its zero point depends on no other ones."""
        zero = None
        if isinstance(factor, tirx.Sub):
            factor, zero = factor.a, factor.b
        load = factor.value if isinstance(factor, tirx.Cast) else None
        if not isinstance(load, Load) or str(load.source.dtype) not in BYTES:
            return None
        if len(load.indices) != len(indices) or any(
            not at.same_as(var) for at, var in zip(load.indices, indices, strict=True)
        ):
            return None
        return None if zero is not None and variables(zero) - _symbols(zero) - set(zero_of) else Factor(load, zero)


def _symbols(expr: Expr) -> set[Var]:
    """The buffers among the variables of an expression."""
    return {var for var in variables(expr) if tirx.is_buffer_var(var)}


class MatmulBytes(Rule):
    """Products of int8 and uint8 with constant weights, summed by an instruction for it; see the module."""

    name = "matmul_bytes"

    def apply(
        self, func: tirx.PrimFunc, constants: frozenset[int], machine: Machine, decisions: Decisions
    ) -> Scheduled | None:
        dot = machine.dot
        fused = None if dot is None else Fused.of(func)
        found = None if fused is None else roles(fused, "int32")
        if dot is None or fused is None or found is None or found.batch:
            return None
        left = Factor.of(found.left, [*found.rows, found.depth], [])
        right = Factor.of(found.right, [found.depth, found.column], [found.column])
        params = list(func.params)
        if left is None or right is None or left.bytes.source not in params or right.bytes.source not in params:
            return None
        which = params.index(right.bytes.source)
        if which not in constants:
            return None
        extents = fused.anchor.extents
        depth, count = int(extents[found.depth]), int(extents[found.column])
        code = Code()
        merge = Merge(found.rows, [extents[var] for var in found.rows], code)
        columns = Columns(count, choose(decisions, machine, dot, count, constant(merge.extent)))
        stored = str(right.bytes.source.dtype)
        rows = MatrixRows(code.view(left.bytes.source), depth)
        packed_shape = [index(columns.panels), index(panel_bytes(columns, dot, rows.words))]
        params[which] = tirx.decl_buffer(packed_shape, stored, right.bytes.source.name)
        view, zero = merge.fused(fused), right.zero
        write_byte_product(
            code,
            ByteProduct(
                rows=merge.extent,
                depth=depth,
                columns=columns,
                left=rows,
                left_type=str(left.bytes.source.dtype),
                left_zero=None if left.zero is None else code.bind("zero", left.zero),
                right=code.view(params[which]),
                right_type=stored,
                right_zero=None if zero is None else lambda column: substitute(zero, {found.column: column}),
                store=lambda row, column, value: view.store([row, column], value),
                rolled=has_long_functions(fused),
            ),
            machine,
            dot,
            decisions,
        )
        scheduled = tirx.PrimFunc(params, code.stmt(), func.ret_type, func.attrs)
        return Scheduled(vector_math(scheduled), {which: DotPacking(columns, dot.depth, flips(stored, dot.right))})
