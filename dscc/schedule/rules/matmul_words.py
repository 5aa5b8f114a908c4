"""Matrix products of 8-bit integers with constant weights, summed in int32.

    C[.., m, n] = epilogue(sum_k (A[.., m, k] - zero) * W[k, n])

The loops are those of real products (dscc/schedule/product.py), over words of several k. The left side is read where it
is if the instruction takes it so, else it is converted first, once, to rows that are a whole number of words.
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx
from tvm.ir import Expr
from tvm.ir import TensorLoad as Load

from dscc.schedule.base import Rule, Scheduled
from dscc.schedule.code import Code, constant, index
from dscc.schedule.decisions import Decisions
from dscc.schedule.epilogue import Fused
from dscc.schedule.lines import fill
from dscc.schedule.machine import Machine
from dscc.schedule.math import vector_math
from dscc.schedule.merge import Merge
from dscc.schedule.microkernel import has_long_functions
from dscc.schedule.product import Product, write_product
from dscc.schedule.rules.matmul import Roles, packed_axes, roles
from dscc.schedule.stages import substitute
from dscc.schedule.tiling import Columns, choose
from dscc.schedule.words import Instruction, Integers, WordPacking, Words, right_of
from dscc.schedule.words import choose as choose_instruction


class MatmulWords(Rule):
    """Products of 8-bit integers and constant weights; see the module."""

    name = "matmul_words"

    def apply(
        self, func: tirx.PrimFunc, constants: frozenset[int], machine: Machine, decisions: Decisions
    ) -> Scheduled | None:
        fused = Fused.of(func)
        found = None if fused is None else roles(fused, "int32")
        if fused is None or found is None or found.batch or not isinstance(found.right, tirx.Cast):
            return None
        weight, params = found.right.value, list(func.params)
        data = Integers.of(found.left, (*found.rows, found.depth))
        if data is None or not isinstance(weight, Load) or weight.source not in params:
            return None
        which = params.index(weight.source)
        axes = packed_axes(weight, found.depth, found.column)
        kind = str(weight.source.dtype)
        if which not in constants or axes is None or kind not in ("int8", "int16"):
            return None
        if kind == "int8" and machine.makes_blocks:
            return None
        extents = fused.anchor.extents
        depth, count = int(extents[found.depth]), int(extents[found.column])
        dot = choose_instruction(machine, kind)
        code = Code()
        merge = Merge(found.rows, [extents[var] for var in found.rows], code)
        steps = -(-depth // dot.group)
        columns = Columns(count, choose(decisions, machine, count, constant(merge.extent), 4 * steps, steps))
        packing = WordPacking(columns, axes, dot.group, sums=not dot.centred)
        shape = (columns.panels, packing.steps([depth]), columns.tile.width * dot.group)
        panels = tirx.decl_buffer([index(extent) for extent in shape], kind, weight.source.name)
        params[which] = panels
        view = merge.fused(fused)
        left = _Left(code, data, dot, merge, found, depth, machine)
        centre = code.bind("centre", data.centre(dot))

        def terms(row: Expr, panel: Expr) -> Words:
            lanes = columns.tile.lanes
            return Words(
                dot,
                [("k", steps)],
                lambda i, ks: left.word(row + i, ks[0]),
                lambda ks, at: right_of(dot, panels, panel, ks[0], at, lanes),
                data.start(dot, panels, panel, centre, lanes),
            )

        product = Product(
            rows=merge.extent,
            depth=steps,
            columns=columns,
            left=lambda row, k: left.word(row, k),
            panels=panels,
            fill=None,
            store=lambda row, column, value: view.store([row, column], value),
            rolled=has_long_functions(fused),
            terms=terms,
        )
        write_product(code, product, machine, decisions)
        return Scheduled(vector_math(tirx.PrimFunc(params, code.stmt(), func.ret_type, func.attrs)), {which: packing})


class _Left:
    """The left side in words of the instruction."""

    def __init__(
        self, code: Code, data: Integers, dot: Instruction, merge: Merge, found: Roles, depth: int, machine: Machine
    ):
        self._dot, self._row, self._depth = dot, merge.row, found.depth
        element = merge.expr(data.element(dot))
        in_place = isinstance(element, Load) and depth % dot.group == 0 and element.indices[-1].same_as(found.depth)
        if in_place and not any(at.same_as(found.depth) for at in element.indices[:-1]):
            self._load: Load | None = element
            return
        self._load = None
        self._pitch = -(-depth // dot.group) * dot.group
        self._buffer = code.heap("left", index(merge.extent) * self._pitch, dot.left).buffer

        with code.loop(merge.extent, "row", "parallel") as row:
            to = row * self._pitch
            at_row, zero, lanes = substitute(element, {merge.row: row}), tirx.const(0, dot.left), machine.lanes()
            fill(code, self._buffer, to, depth, lambda k: substitute(at_row, {found.depth: k}), lanes)
            fill(code, self._buffer, to + depth, self._pitch - depth, lambda _: zero, lanes)

    def word(self, row: Expr, k: Expr) -> Expr:
        """`group` elements of a row, from the word `k` on."""
        group = self._dot.group
        first = tirx.Ramp(k * group, index(1), group)
        if self._load is None:
            return tirx.BufferLoad(self._buffer, [tirx.Ramp(row * self._pitch + k * group, index(1), group)])
        indices: Sequence[Expr] = [substitute(at, {self._row: row}) for at in self._load.indices[:-1]]
        return tirx.BufferLoad(self._load.source, [*indices, first])
