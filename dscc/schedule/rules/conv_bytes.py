"""Convolutions of bytes, where the processor has an instruction for their sums.

    out[n, y, x, f] = epilogue(sum int32(data[n, y * stride + .., x * stride + .., c]) * int32(weight[f, ry, rx, c]))

data: int8 or uint8, channels last, its padding around it already; weight: int8 or uint8, constant, one group. It is the
product of a matrix with a row for every output pixel, put together from runs of channels where it is read, and of the
weights as [ry, rx, c][f]. See dscc/schedule/dot.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr

from dscc.schedule.base import Rule, Scheduled
from dscc.schedule.code import Code, Flat, constant, index
from dscc.schedule.convolution import Convolution
from dscc.schedule.decisions import Decisions
from dscc.schedule.dot import (
    ByteProduct,
    DotPacking,
    Put,
    Rows,
    choose,
    flips,
    panel_bytes,
    word,
    write_byte_product,
)
from dscc.schedule.epilogue import Fused
from dscc.schedule.machine import Machine
from dscc.schedule.math import vector_math
from dscc.schedule.merge import Merge
from dscc.schedule.microkernel import has_long_functions
from dscc.schedule.stages import unravel
from dscc.schedule.tiling import Columns

_BYTES = ("int8", "uint8")


@dataclass(frozen=True)
class _Windows(Rows):
    """A row for every pixel of the result: the window's elements, its channels filled up to words."""

    conv: Convolution
    source: Flat

    @property
    def words(self) -> int:  # type: ignore[override]
        return self.conv.height.kernel * self.conv.width.kernel * -(-self.conv.inputs // 4)

    def read(self, code: Code, row: Expr, flip: bool, put: Put) -> None:
        conv, height, width = self.conv, self.conv.height, self.conv.width
        image, y, x = unravel(row, [conv.batch, height.out, width.out])
        first = (image * height.size + y * height.stride) * width.size + x * width.stride
        start, (whole, rest) = code.bind("start", first * conv.inputs), divmod(conv.inputs, 4)
        with code.loop(height.kernel, "ry") as ry, code.loop(width.kernel, "rx") as rx:
            inner = (ry * height.dilation * width.size + rx * width.dilation) * conv.inputs
            at, number = code.bind("at", start + inner), (ry * width.kernel + rx) * -(-conv.inputs // 4)
            with code.loop(whole, "q") as q:
                put(number + q, word(self.source, at + q * 4, 4, flip))
            if rest:
                put(number + whole, word(self.source, at + whole * 4, rest, flip))


class ConvBytes(Rule):
    """Convolutions of int8 and uint8 with constant weights, summed by an instruction for it; see the module."""

    name = "conv_bytes"

    def apply(
        self, func: tirx.PrimFunc, constants: frozenset[int], machine: Machine, decisions: Decisions
    ) -> Scheduled | None:
        dot = machine.dot
        fused = None if dot is None else Fused.of(func)
        conv = None if fused is None else Convolution.of(fused, "int32", converted=True)
        if dot is None or fused is None or conv is None or conv.source is None:
            return None
        params, stored = list(func.params), str(conv.weight.source.dtype)
        if str(conv.source.dtype) not in _BYTES or stored not in _BYTES or conv.source not in params:
            return None
        if conv.groups != 1 or conv.height.padded or conv.weight.source not in params:
            return None
        which = params.index(conv.weight.source)
        if which not in constants:
            return None
        anchor, code = fused.anchor, Code()
        merge = Merge(anchor.spatial[:3], [anchor.extents[var] for var in anchor.spatial[:3]], code)
        columns = Columns(conv.outputs, choose(decisions, machine, dot, conv.outputs, constant(merge.extent)))
        rows = _Windows(conv, code.view(conv.source))
        packed_shape = [index(columns.panels), index(panel_bytes(columns, dot, rows.words))]
        params[which] = tirx.decl_buffer(packed_shape, stored, conv.weight.source.name)
        view = merge.fused(fused)
        write_byte_product(
            code,
            ByteProduct(
                rows=merge.extent,
                depth=conv.height.kernel * conv.width.kernel * conv.inputs,
                columns=columns,
                left=rows,
                left_type=str(conv.source.dtype),
                left_zero=None,
                right=code.view(params[which]),
                right_type=stored,
                right_zero=None,
                store=lambda row, column, value: view.store([row, column], value),
                rolled=has_long_functions(fused),
            ),
            machine,
            dot,
            decisions,
        )
        scheduled = tirx.PrimFunc(params, code.stmt(), func.ret_type, func.attrs)
        packing = DotPacking(columns, dot.depth, flips(stored, dot.right), (1, 2, 3, 0))
        return Scheduled(vector_math(scheduled), {which: packing})
