"""Matrix products with constant weights of 2, 4 or 8 bits, which may share a scale in blocks of their depth.

    C[.., m, n] = epilogue(sum_k A[.., m, k] * ((code[k, n] - zero[k // block, n]) * scale[k // block, n]))

The loops are those of real products (dscc/schedule/product.py), over words of codes; what a tile sums up is in
dscc/schedule/codes/digits.py. Where an instruction sums only pairs of products, that is faster for few rows; for more
of them a panel is expanded to float32 first, which a machine without such an instruction does always, by `Matmul`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import tirx
from tvm.ir import Expr, Var
from tvm.ir import TensorLoad as Load

from dscc.schedule.base import Packing, Rule, Scheduled
from dscc.schedule.code import Code, broadcast, constant, index
from dscc.schedule.codes.define import FLOAT_BITS, HALF_BITS, ROW_BITS
from dscc.schedule.codes.digits import COUNT, FEW, DigitRows, Digits
from dscc.schedule.codes.layout import CodePacking, Codes, Multiplier, multiplier
from dscc.schedule.codes.weight import Weight
from dscc.schedule.decisions import Decisions
from dscc.schedule.epilogue import Fused
from dscc.schedule.machine import Machine
from dscc.schedule.math import vector_math
from dscc.schedule.merge import Merge
from dscc.schedule.microkernel import has_long_functions
from dscc.schedule.product import Product, write_product
from dscc.schedule.rules.matmul import Roles, roles
from dscc.schedule.stages import substitute
from dscc.schedule.tiling import Columns, PanelPacking, Tile, choose
from dscc.schedule.words import WORD_BYTES

_MOST_VECTORS = 4
Table = Callable[[Expr, Expr, Expr, int], Expr]


class MatmulCodes(Rule):
    """Products with weights of few bits; see the module."""

    name = "matmul_codes"

    def apply(
        self, func: tirx.PrimFunc, constants: frozenset[int], machine: Machine, decisions: Decisions
    ) -> Scheduled | None:
        fused = Fused.of(func)
        found = None if fused is None else roles(fused)
        if fused is None or found is None or found.batch:
            return None
        weight = Weight.of(found.right, found.depth, found.column, int(fused.anchor.extents[found.depth]))
        dot = None if weight is None else multiplier(machine, weight.bits)
        if weight is None or dot is None or not weight.part(dot.elements(weight.bits)):
            return None
        params = list(func.params)
        if any(load.source not in params or params.index(load.source) not in constants for load in weight.tables):
            return None
        return _Writer(fused, found, weight, dot, machine, decisions).write()


class _Writer:
    def __init__(
        self, fused: Fused, found: Roles, weight: Weight, dot: Multiplier, machine: Machine, decisions: Decisions
    ):
        self._fused, self._found, self._weight, self._dot = fused, found, weight, dot
        self._machine, self._decisions = machine, decisions
        self._params = list(fused.func.params)
        self._packings: dict[int, Packing] = {}
        self._code = code = Code()
        extents = fused.anchor.extents
        self._merge = Merge(found.rows, [extents[var] for var in found.rows], code)
        self._element, self._view = self._merge.expr(found.left), self._merge.fused(fused)
        self._count = FEW if fused.anchor.annotations.get(ROW_BITS, FLOAT_BITS) <= HALF_BITS else COUNT
        count, rows = int(extents[found.column]), constant(self._merge.extent)
        depth = int(extents[found.depth])
        expanded = choose(decisions, machine, count, rows, 4 * depth, depth) if dot.widen else None
        self._columns = Columns(count, expanded or _tile(decisions, machine, count, rows, self._count))
        part, stored = weight.part(dot.elements(weight.bits)), str(weight.codes.source.dtype)
        flip = weight.bits == 8 and stored != dot.codes
        self._codes = Codes(weight.bits, depth, part, flip)
        # What the highest bit of a byte adds or takes if it flips.
        self._shift = (128.0 if dot.codes == "uint8" else -128.0) if flip else 0.0

    def write(self) -> Scheduled:
        code, codes, weight, func = self._code, self._codes, self._weight, self._fused.func
        height = codes.blocks * codes.words
        panels = self._packed(weight.codes, CodePacking(codes, self._columns), height, "int32")
        scale, zero = self._table(weight.scales), self._zero()
        if self._dot.widen:
            expanding = self._product(codes.depth, fill=self._expand(panels, scale, zero))
            digits = lambda: self._digits(panels, scale, zero)  # noqa: E731
            write_product(code, expanding, self._machine, self._decisions, digits)
        else:
            write_product(code, self._digits(panels, scale, zero), self._machine, self._decisions)
        scheduled = tirx.PrimFunc(self._params, code.stmt(), func.ret_type, func.attrs)
        return Scheduled(vector_math(scheduled), self._packings)

    def _product(self, depth: int, **right: Any) -> Product:
        """The product, whose right side is given by `panels` and `terms`, or by `fill`."""
        return Product(
            rows=self._merge.extent,
            depth=depth,
            columns=self._columns,
            left=self._left,
            store=lambda row, column, value: self._view.store([row, column], value),
            rolled=has_long_functions(self._fused),
            **{"panels": None, "fill": None, **right},
        )

    def _left(self, row: Expr, k: Expr) -> Expr:
        return substitute(self._element, {self._merge.row: row, self._found.depth: k})

    def _digits(self, panels: Var, scale: Table | None, zero: Table | None) -> Product:
        """Write the rows as digits; the product of these with the codes."""
        codes, extent, lanes = self._codes, self._merge.extent, self._columns.tile.lanes
        several = constant(extent) is None or extent > 1
        digits = DigitRows(self._code, extent, codes, self._left, self._machine.lanes(), several, count=self._count)

        def terms(row: Expr, panel: Expr) -> Digits:
            def table(read: Table | None) -> Callable[[Expr, Expr], Expr] | None:
                return None if read is None else lambda block, at: read(panel, block, at, lanes)

            def words(word: Expr, at: Expr) -> Expr:
                return tirx.BufferLoad(panels, [panel, word, tirx.Ramp(at, index(1), lanes)])

            return Digits(self._dot, codes, digits, row, words, table(scale), table(zero))

        work = self._count * codes.per // WORD_BYTES
        return self._product(codes.blocks * codes.words, panels=panels, terms=terms, work=work)

    def _expand(self, panels: Var, scale: Table | None, zero: Table | None) -> Callable[[Expr, Expr, Expr, Expr], Expr]:
        """Elements of the weight, from the words of their codes."""
        codes = self._codes

        def element(k: Expr, column: Expr, panel: Expr, at: Expr) -> Expr:
            word = tirx.BufferLoad(panels, [panel, tirx.floordiv(k, codes.per), at])
            real = tirx.Cast("float32", codes.single(word, tirx.floormod(k, codes.per)))
            block = tirx.floordiv(k, codes.block)
            if zero is not None:
                real = real - zero(panel, block, at, 1)
            return real if scale is None else real * scale(panel, block, at, 1)

        return element

    def _packed(self, load: Load, packing: Packing, height: int, dtype: str) -> Var:
        """A constant in panels, as a parameter (panels, height, columns of a panel)."""
        which = self._params.index(load.source)
        shape = [index(extent) for extent in (self._columns.panels, height, self._columns.tile.width)]
        self._params[which] = tirx.decl_buffer(shape, dtype, load.source.name)
        self._packings[which] = packing
        return self._params[which]

    def _table(self, load: Load | None) -> Table | None:
        """(panel, block of codes with a unit, column within the panel, lanes) to what `load` reads, as float32."""
        if load is None:
            return None
        parts, height = self._weight.block // self._codes.block, int(load.source.shape[0])
        packed = self._packed(load, PanelPacking(self._columns, (0, 1)), height, str(load.source.dtype))

        def read(panel: Expr, block: Expr, at: Expr, lanes: int) -> Expr:
            where = block if parts == 1 else tirx.floordiv(block, index(parts))
            value = tirx.BufferLoad(packed, [panel, where, at if lanes == 1 else tirx.Ramp(at, index(1), lanes)])
            return value if str(packed.dtype) == "float32" else tirx.Cast(_floats(lanes), value)

        return read

    def _zero(self) -> Table | None:
        """As `_table`: which code means 0."""
        zeros = self._weight.zeros
        if isinstance(zeros, Load):
            read, shift = self._table(zeros), tirx.const(self._shift, "float32")
            assert read is not None  # there is a table
            return lambda *at: read(*at) + broadcast(shift, at[-1]) if self._shift else read(*at)
        value = np.float32(0.0 if zeros is None else zeros.value) + np.float32(self._shift)
        return (lambda *at: broadcast(tirx.const(float(value), "float32"), at[-1])) if value else None


def _floats(lanes: int) -> str:
    return "float32" if lanes == 1 else f"float32x{lanes}"


def _tile(decisions: Decisions, machine: Machine, columns: int, rows: int | None, digits: int) -> Tile:
    """The tile: every element has a register for its sum, and one for each digit of the block's."""
    lanes = machine.lanes()
    while lanes > 4 and lanes > columns:
        lanes //= 2
    room = (machine.vector_registers - 4) // (digits + 1)
    wanted = _MOST_VECTORS if rows == 1 else 2 if room >= 6 else 1
    most = min(room, _MOST_VECTORS, -(-columns // lanes))
    across = sorted(range(1, most + 1), key=lambda vectors: abs(vectors - wanted))
    return Tile(*decisions.pick("tile", [(min(room // n, rows or room), n, lanes) for n in across]))
