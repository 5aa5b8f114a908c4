"""The loops of a product of bytes, by an instruction that sums groups of products.

    C[m, n] = epilogue(sum_k (A[m, k] - a) * (B[k, n] - b[n]))                                     A, B: int8 or uint8
            = epilogue(sum_k A'[m, k] * B'[k, n] - a' * sum_k B'[k, n] - b'[n] * sum_k A'[m, k] + K * a' * b'[n])

A' and B' have the signs that the instruction wants: flipping the highest bit of a byte adds or takes 128, and so do the
zero points. Rows of A are brought into the instruction's order a block at a time, which then meets one panel of B after
the other; B is packed at compile time, with the sums of its columns behind every panel.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tvm import tirx
from tvm.ir import Expr

from dscc.schedule.base import Packing
from dscc.schedule.code import Code, Flat, Index, broadcast, ceildiv, constant, index, quotient, remainder
from dscc.schedule.decisions import Decisions
from dscc.schedule.machine import Dot, Machine
from dscc.schedule.microkernel import finish
from dscc.schedule.tiling import Columns, Tile, panel_base, start_of, vector_base

# Defaults, and what the tuner may try instead.
_TASK_OPERATIONS = (1_000_000, 250_000, 4_000_000)  # less than this is not worth handing to another thread
_L2_PERCENT = (50, 25, 75)  # that the side of a product which is read again may take
_TASKS = 16  # enough to keep many threads busy
_MOST_VECTORS = 6
_LATENCY, _LOAD = 4.0, 0.5  # cycles
_CANDIDATES = 24
_FLIP = -0x7F7F7F80  # as int32: 0x80808080
_TYPICAL_ROWS = 200  # stands for a symbolic extent when tiles are compared


@dataclass(frozen=True)
class DotPacking(Packing):
    """Bytes as [panel][group of the depth][column][byte], then the sums of the panel's columns.

    The bytes are those of the instruction's right operand. The axis before the columns is filled up with zeros to words
    of 4 bytes, the depth to whole groups.

    Attributes:
        columns: how the columns are cut into panels.
        group: bytes of a group.
        flip: the highest bit of every byte changes.
        axes: the order of the weight's axes that puts the columns last.
    """

    columns: Columns
    group: int
    flip: bool
    axes: tuple[int, ...] = (0, 1)

    def pack(self, weight: np.ndarray) -> np.ndarray:
        signed = weight.dtype == (np.uint8 if self.flip else np.int8)  # as the instruction sees them
        bytes_ = (weight.view(np.uint8) ^ np.uint8(0x80 if self.flip else 0)).view(np.int8 if signed else np.uint8)
        bytes_ = bytes_.transpose(self.axes)
        fill = [(0, -bytes_.shape[-2] % 4 if axis == bytes_.ndim - 2 else 0) for axis in range(bytes_.ndim)]
        words = np.pad(bytes_, fill).reshape(-1, bytes_.shape[-1])
        groups = -(-words.shape[0] // self.group)
        full = np.pad(words, ((0, groups * self.group - words.shape[0]), (0, 0)))
        cut = self.columns.cut(full)
        _, panels, width = cut.shape
        data = cut.reshape(groups, self.group, panels, width).transpose(2, 0, 3, 1).reshape(panels, -1)
        sums = cut.sum(axis=0, dtype=np.int32).view(np.uint8)
        return np.ascontiguousarray(np.concatenate([data.view(np.uint8), sums], axis=1)).view(weight.dtype)


Put = Callable[[Index, Expr], None]


class Rows(ABC):
    """The rows of the left side, one after the other, in words of 4 bytes.

    Attributes:
        words: how many a row has.
    """

    words: int

    @abstractmethod
    def read(self, code: Code, row: Expr, flip: bool, put: Put) -> None:
        """Write the code that hands over every word of a row with its number; `flip` the highest bit of every byte."""


def word(source: Flat, at: Expr, count: int, flip: bool) -> Expr:
    """`count` bytes as an int32, which is filled up with zeros."""
    if count == 4:
        value = tirx.reinterpret("int32", source.load(at, 4))
        return tirx.bitwise_xor(value, tirx.const(_FLIP, "int32")) if flip else value
    total: Expr = tirx.const(0, "int32")
    for byte in range(count):
        value = tirx.Cast("int32", tirx.reinterpret("uint8", source.load(at + byte)))
        value = tirx.bitwise_xor(value, tirx.const(0x80, "int32")) if flip else value
        total = tirx.bitwise_or(total, value << tirx.const(8 * byte, "int32"))
    return total


class MatrixRows(Rows):
    """The rows of a matrix [rows][depth]."""

    def __init__(self, source: Flat, depth: int):
        self._source, self._depth, self.words = source, depth, -(-depth // 4)

    def read(self, code: Code, row: Expr, flip: bool, put: Put) -> None:
        start, (whole, rest) = code.bind("start", row * self._depth), divmod(self._depth, 4)
        with code.loop(whole, "q") as q:
            put(q, word(self._source, start + q * 4, 4, flip))
        if rest:
            put(whole, word(self._source, start + whole * 4, rest, flip))


@dataclass(frozen=True)
class ByteProduct:
    """A product whose parts are buffers and formulas.

    Attributes:
        rows: number of rows of the result.
        depth: length of the sums.
        columns: the columns of the result, in panels.
        left: the rows of bytes of type `left_type`.
        left_zero: what is subtracted from them, an int32; or None.
        right: what `DotPacking` made of bytes of type `right_type`.
        right_zero: (column) to what is subtracted from them; or None.
        store: (row, column, value) to the statement that stores an element.
        rolled: the epilogue is too long to be unrolled.
    """

    rows: Index
    depth: int
    columns: Columns
    left: Rows
    left_type: str
    left_zero: Expr | None
    right: Flat
    right_type: str
    right_zero: Callable[[Expr], Expr] | None
    store: Callable[[Expr, Expr, Expr], tirx.Stmt]
    rolled: bool


def choose(decisions: Decisions, machine: Machine, dot: Dot, columns: int, rows: int | None) -> Tile:
    """The tile that covers `rows` x `columns` in the least time; `rows` is None if it is not known."""
    each = 1.0 if dot.lanes >= 16 else 0.5
    costs: dict[Tile, float] = {}
    for across in range(1, min(_MOST_VECTORS, -(-columns // dot.lanes)) + 1):
        panels = -(-columns // (across * dot.lanes))
        most = (machine.vector_registers - 2 - across * dot.rows) // across
        for down in range(dot.rows, max(dot.rows, most) + 1, dot.rows):
            loads = down / dot.rows + across * dot.rows
            step = max(down * across * each, _LOAD * loads, _LATENCY) + 0.05 * loads
            tiles = -(-rows // down) if rows is not None else _TYPICAL_ROWS / down + 0.5
            costs[Tile(down, across, dot.lanes)] = step * tiles * panels
    ranked = sorted(costs, key=costs.__getitem__)
    return Tile(*decisions.pick("tile", [(tile.rows, tile.vectors, tile.lanes) for tile in ranked[:_CANDIDATES]]))


def panel_bytes(columns: Columns, dot: Dot, words: int) -> int:
    """The size of a packed panel for rows of so many words."""
    return columns.tile.width * (-(-4 * words // dot.depth) * dot.depth + 4)


def flips(stored: str, wanted: str) -> bool:
    """Whether the highest bit of a byte has to change for another signedness."""
    return stored != wanted


def write_byte_product(code: Code, product: ByteProduct, machine: Machine, dot: Dot, decisions: Decisions) -> None:
    """Write the loops. A symbolic number of rows gets two variants: tiles that overlap, and one for few rows."""
    tile, rows = product.columns.tile, constant(product.rows)
    writer = _Writer(code, product, machine, dot, decisions)
    if rows is not None:
        enough = rows >= tile.rows
        writer.write(tile if enough else tile.with_rows(-(-rows // dot.rows) * dot.rows), not enough)
        return
    # Through memory, or TVM 0.27 concludes from 13 * w < 6 that w is 0, and then refuses to divide by w.
    memory = code.stack("rows", 1, "int64")
    memory.store(code, 0, index(product.rows))
    many = tirx.GE(memory.load(0), index(tile.rows))
    with code.when(many):
        writer.write(tile, False)
    with code.when(tirx.Not(many)):
        writer.write(tile.with_rows(dot.rows), True)


class _Writer:
    def __init__(self, code: Code, product: ByteProduct, machine: Machine, dot: Dot, decisions: Decisions):
        self._code, self._product, self._machine, self._dot, self._decisions = code, product, machine, dot, decisions
        self._groups = -(-4 * product.left.words // dot.depth)
        self._words = dot.depth // 4  # of 4 bytes, per row and group
        self._panel_bytes = panel_bytes(product.columns, dot, product.left.words)
        self._left_zero = self._shifted(product.left_type, dot.left, product.left_zero)
        self._right_flip = flips(product.right_type, dot.right)
        self._has_right_zero = product.right_zero is not None or self._right_flip

    @staticmethod
    def _shifted(stored: str, wanted: str, zero: Expr | None) -> Expr | None:
        """The zero point of bytes whose highest bit was flipped where the types differ; None: it is 0."""
        if not flips(stored, wanted):
            return zero
        shift = tirx.const(128 if wanted == "uint8" else -128, "int32")
        return shift if zero is None else zero + shift

    def write(self, tile: Tile, clamped: bool) -> None:
        """All of the result, in tiles; `clamped`: the rows of a tile may be more than there are."""
        code, product, columns = self._code, self._product, self._product.columns
        panels, share = columns.panels, self._machine.l2_bytes * self._decisions.pick("l2_percent", _L2_PERCENT) // 100
        least = self._decisions.pick("task_operations", _TASK_OPERATIONS)
        tiles = ceildiv(product.rows, tile.rows)
        if not isinstance(tiles, int):
            tiles = code.opaque("tiles", tiles)
        known = constant(tiles)
        words = tile.rows * self._groups * self._words
        work = 2 * tile.rows * product.depth * tile.width
        most = max(1, share // (4 * words))
        if panels * self._panel_bytes > share:
            block = min(most, known or most)
            blocks = 1 if known is None else -(-known // block)
            group = max(panels * blocks // _TASKS, -(-least // (work * block)), 1)
        else:
            block = min(most, max(1, least // (work * panels)), known or most)
            group = panels if block > 1 else max(1, -(-least // work))
        group = min(group, panels)
        groups, blocks_of_rows = -(-panels // group), ceildiv(tiles, block)
        count = constant(blocks_of_rows)
        tasks = index(blocks_of_rows) * groups if count is None else count * groups
        with code.loop(tasks, "task", "serial" if tasks == 1 else "parallel") as task:
            first_tile = (quotient(task, groups) if groups > 1 else task) * block
            first_panel = remainder(task, groups) * group if groups > 1 else index(0)
            tiles_here = block if block == 1 else tirx.min(index(block), index(tiles) - first_tile)
            panels_here = group if panels % group == 0 else tirx.min(index(group), index(panels) - first_panel)
            rows = code.heap("rows", block * words, "int32")
            sums = code.heap("sums", block * tile.rows, "int32") if self._has_right_zero else None

            def row(t: Expr, i: Index) -> Expr:
                if clamped:
                    return tirx.min((first_tile + t) * tile.rows + i, index(product.rows) - 1)
                return start_of(first_tile + t, tile.rows, product.rows) + i

            with code.loop(tiles_here, "t") as t:
                with code.loop(tile.rows, "i") as i:
                    self._order(rows, t * words + i * self._words, tile, row(t, i))
                if sums is not None:
                    self._sum(rows, t * words, tile, sums, t * tile.rows)
            with code.loop(panels_here, "p") as p:
                panel = code.bind("panel", first_panel + p)
                fixed = self._corrections(panel, tile)
                with code.loop(tiles_here, "t") as t:

                    def store(i: Expr, column: Expr, value: Expr) -> tirx.Stmt:
                        return product.store(row(t, i), column, value)

                    total = self._multiply(rows, t * words, tile, panel)
                    result = self._corrected(total, tile, fixed, sums, t * tile.rows)
                    finish(code, tile, result.buffer, store, columns, panel_base(panel, columns), product.rolled)

    def _order(self, rows: Flat, at: Expr, tile: Tile, row: Expr) -> None:
        """Bring one row into the order [group][row of the tile][word]."""
        code, left, words = self._code, self._product.left, self._words

        def put(number: Index, value: Expr) -> None:
            group, inner = (number, index(0)) if words == 1 else (quotient(number, words), remainder(number, words))
            rows.store(code, at + group * index(tile.rows * words) + inner, value)

        left.read(code, row, flips(self._product.left_type, self._dot.left), put)
        for number in range(left.words, self._groups * words):
            put(number, tirx.const(0, "int32"))

    def _left(self, rows: Flat, at: Expr, tile: Tile, g: Expr, block: int) -> Expr:
        """The left operand for the rows of an instruction."""
        code, dot, words = self._code, self._dot, self._words * self._dot.rows
        start = at + g * (tile.rows * self._words) + block * words
        held = rows.load(start, words)
        if words == 1:
            held = broadcast(held, dot.lanes)
        elif words < dot.lanes:
            held = tirx.Shuffle([code.bind("a", held)], list(range(words)) * (dot.lanes // words))
        return code.bind("a", tirx.reinterpret(f"{dot.left}x{4 * dot.lanes}", held))

    def _call(self, total: Expr, left: Expr, right: Expr) -> Expr:
        dot = self._dot
        return tirx.call_llvm_pure_intrin(f"int32x{dot.lanes}", dot.intrinsic, total, left, right)

    def _sum(self, rows: Flat, at: Expr, tile: Tile, sums: Flat, to: Expr) -> None:
        """The sums of the tile's rows, as products with ones."""
        code, dot = self._code, self._dot
        ones = broadcast(tirx.const(1, dot.right), 4 * dot.lanes)
        for block in range(tile.rows // dot.rows):
            total = code.stack("total", dot.lanes, "int32")
            total.store(code, 0, broadcast(tirx.const(0, "int32"), dot.lanes))
            with code.loop(self._groups, "g") as g:
                total.store(code, 0, self._call(total.load(0, dot.lanes), self._left(rows, at, tile, g, block), ones))
            for i in range(dot.rows):
                sums.store(code, to + block * dot.rows + i, total.load(i * (dot.lanes // dot.rows)))

    def _multiply(self, rows: Flat, at: Expr, tile: Tile, panel: Expr) -> Flat:
        """The tile's sums: [block of rows][vector][part], each of the instruction's lanes."""
        code, dot, product = self._code, self._dot, self._product
        total = code.stack("total", tile.rows * tile.width, "int32")
        start = code.bind("b", panel * self._panel_bytes)
        places = [
            (block, j, part)
            for block in range(tile.rows // dot.rows)
            for j in range(tile.vectors)
            for part in range(dot.rows)
        ]
        for n in range(len(places)):
            total.store(code, n * dot.lanes, broadcast(tirx.const(0, "int32"), dot.lanes))
        with code.loop(self._groups, "g") as g:
            operand, right = 4 * dot.lanes, {}
            for j in range(tile.vectors):
                for part in range(dot.rows):
                    where = start + g * (tile.width * dot.depth) + (j * dot.rows + part) * operand
                    right[j, part] = code.bind("w", product.right.load(where, operand))
            left = [self._left(rows, at, tile, g, block) for block in range(tile.rows // dot.rows)]
            for n, (block, j, part) in enumerate(places):
                place = n * dot.lanes
                total.store(code, place, self._call(total.load(place, dot.lanes), left[block], right[j, part]))
        return total

    def _corrections(self, panel: Expr, tile: Tile) -> tuple[Flat | None, Flat | None]:
        """For the columns of a panel: a' * (sum of B' - K * b'), and b'; None where they are 0."""
        code, dot, product = self._code, self._dot, self._product
        both = code.stack("both", tile.width, "int32") if self._left_zero is not None else None
        right = code.stack("zero", tile.width, "int32") if self._has_right_zero else None
        lanes, base = dot.lanes, panel_base(panel, product.columns)
        behind = (panel + 1) * self._panel_bytes - 4 * tile.width
        for j in range(tile.vectors):
            if right is not None:
                with code.loop(lanes, "l", "vectorized") as lane:
                    column = tirx.min(
                        base + vector_base(index(j), product.columns) + lane, index(product.columns.count - 1)
                    )
                    zero = product.right_zero(column) if product.right_zero is not None else None
                    value = self._shifted(product.right_type, dot.right, zero)
                    code.add(tirx.BufferStore(right.buffer, value, [j * lanes + lane]))
            if both is not None and self._left_zero is not None:
                packed = product.right.load(behind + 4 * j * lanes, 4 * lanes)
                value = tirx.reinterpret(f"int32x{lanes}", packed)
                if right is not None:
                    depth = broadcast(tirx.const(product.depth, "int32"), lanes)
                    value = value - depth * right.load(j * lanes, lanes)
                both.store(code, j * lanes, value * broadcast(self._left_zero, lanes))
        return both, right

    def _corrected(
        self,
        total: Flat,
        tile: Tile,
        fixed: tuple[Flat | None, Flat | None],
        sums: Flat | None,
        at: Expr,
    ) -> Flat:
        """The tile as [row][column], less what the zero points have added."""
        code, dot = self._code, self._dot
        result, (both, right), lanes = code.stack("result", tile.rows * tile.width, "int32"), fixed, dot.lanes
        each = lanes // dot.rows
        for i in range(tile.rows):
            block, inner = divmod(i, dot.rows)
            for j in range(tile.vectors):
                first = (block * tile.vectors + j) * dot.rows
                parts = [total.load((first + part) * lanes, lanes) for part in range(dot.rows)]
                order = [part * lanes + inner * each + c for part in range(dot.rows) for c in range(each)]
                value = code.bind("v", parts[0] if dot.rows == 1 else tirx.Shuffle(parts, order))
                if both is not None:
                    value = value - both.load(j * lanes, lanes)
                if right is not None and sums is not None:
                    value = value - right.load(j * lanes, lanes) * broadcast(sums.load(at + i), lanes)
                result.store(code, i * tile.width + j * lanes, value)
        return result
