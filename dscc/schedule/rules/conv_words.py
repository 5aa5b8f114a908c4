"""Two-dimensional convolutions of 8-bit integers with constant weights, summed in int32.

The loops are those of real convolutions (dscc/schedule/rules/conv.py), over words of several channels. The rows of the
data are copied with their padding in the form that the instruction takes, the channels filled up to whole words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tvm import tirx
from tvm.ir import Expr, Var

from dscc.schedule.base import Rule, Scheduled
from dscc.schedule.code import Index, constant, index
from dscc.schedule.convolution import Convolution
from dscc.schedule.decisions import Decisions
from dscc.schedule.epilogue import Fused
from dscc.schedule.lines import Form, Lines, Window
from dscc.schedule.machine import Machine
from dscc.schedule.math import vector_math
from dscc.schedule.microkernel import Depth, Terms
from dscc.schedule.rules.conv import Position, Writer
from dscc.schedule.taps import Taps
from dscc.schedule.tiling import Columns, choose
from dscc.schedule.words import Instruction, Integers, WordPacking, Words, right_of
from dscc.schedule.words import choose as choose_instruction


class ConvWords(Rule):
    """Dense convolutions of 8-bit integers and constant weights; see the module."""

    name = "conv_words"

    def apply(
        self, func: tirx.PrimFunc, constants: frozenset[int], machine: Machine, decisions: Decisions
    ) -> Scheduled | None:
        fused = Fused.of(func)
        conv = None if fused is None else Convolution.of(fused, "int32", converted=True)
        if fused is None or conv is None or conv.groups != 1:
            return None
        params, kind = list(func.params), str(conv.weight.source.dtype)
        if conv.weight.source not in params or kind not in ("int8", "int16"):
            return None
        which = params.index(conv.weight.source)
        data = Integers.of(conv.data, conv.at)
        if which not in constants or data is None or (kind == "int8" and machine.makes_blocks):
            return None
        turned = conv.is_one_wide
        if turned:
            conv = conv.turned()
        dot = choose_instruction(machine, kind)
        channels = -(-conv.inputs // dot.group) * dot.group
        steps = conv.height.kernel * conv.width.kernel * channels // dot.group
        wide = constant(conv.width.out)
        spare = machine.vector_registers // 16 if wide is None else 0
        row_bytes = conv.width.stride * channels * 4 // dot.group
        columns = Columns(conv.outputs, choose(decisions, machine, conv.outputs, wide, row_bytes, steps, spare))
        packing = WordPacking(columns, (1, 2, 3, 0), dot.group, sums=not dot.centred)
        shape = (columns.panels, steps + packing.sums, columns.tile.width * dot.group)
        panels = tirx.decl_buffer([index(extent) for extent in shape], kind, conv.weight.source.name)
        params[which] = panels
        writer = _Writer(dot, data, channels, fused, conv, turned, columns, panels, machine, decisions)
        body = vector_math(tirx.PrimFunc(params, writer.write(), func.ret_type, func.attrs))
        return Scheduled(body, {which: packing})


class _Writer(Writer):
    def __init__(
        self,
        dot: Instruction,
        data: Integers,
        channels: int,
        fused: Fused,
        conv: Convolution,
        turned: bool,
        columns: Columns,
        panels: Var,
        machine: Machine,
        decisions: Decisions,
    ):
        self._dot, self._data, self._padded = dot, data, channels
        super().__init__(fused, conv, turned, columns, panels, machine, decisions)
        self._channels, self._unit = channels, dot.group

    def _reached(self) -> tuple[Taps, Taps]:
        # All: what the sums start with stands for padding too.
        return Taps.every(self._conv.height), Taps.every(self._conv.width)

    def _skips_padding(self) -> bool:
        return False

    def _make_window(self, pixels: Index) -> Window:
        data, dot = self._data, self._dot
        self._centre = self._code.bind("centre", data.centre(dot))
        outside = tirx.Cast(dot.left, self._centre)
        form = Form(self._padded, dot.left, data.element(dot), outside)
        return Window(self._code, self._conv, self._machine.lanes(), pixels, form)

    def _terms(
        self, lines: Lines, panel: Expr, depth: Depth, start: Callable[[Expr], Expr], position: Position
    ) -> Terms:
        dot, lanes = self._dot, self._columns.tile.lanes

        def left(i: Expr, ks: Sequence[Expr]) -> Expr:
            at = start(i) + position(ks)[0]
            return tirx.BufferLoad(lines.buffer, [tirx.Ramp(at, index(1), dot.group)])

        return Words(
            dot,
            depth,
            left,
            lambda ks, at: right_of(dot, self._panels, panel, position(ks)[1], at, lanes),
            self._data.start(dot, self._panels, panel, self._centre, lanes),
        )
