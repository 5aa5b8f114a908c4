"""The rows of one expert times one panel of its weights, in register tiles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr

from dscc.schedule.code import Code, Flat, index, quotient
from dscc.schedule.experts.mixture import Storage
from dscc.schedule.experts.panels import Panels
from dscc.schedule.microkernel import Operands, accumulate
from dscc.schedule.tiling import Tile

_UNROLL = 4


@dataclass(frozen=True)
class Weight:
    """A weight in panels, with the scales and zeros of its codes in panels of their own.

    Attributes:
        depth: elements of a column.
        storage: how they are kept.
        codes, scales, zeros: flat; the latter two None where there are none.
    """

    panels: Panels
    depth: int
    storage: Storage
    codes: Flat
    scales: Flat | None = None
    zeros: Flat | None = None

    @property
    def blocks(self) -> int:
        return self.storage.blocks(self.depth)

    @property
    def reach(self) -> int:
        """Elements of a column with the padding of the last block; rows are read as far."""
        block = self.storage.block if self.blocks > 1 else self.depth
        return -(-block // self.storage.per) * self.storage.per * self.blocks


@dataclass(frozen=True)
class Sums:
    """The sums of a tile, in memory.

    Attributes:
        row: the first row.
        rows: how many.
        load: (row within the tile, part, vector) to a vector of sums.
    """

    row: Expr
    rows: int
    load: Callable[[Expr, int, Expr], Expr]


def write_rows(
    code: Code,
    weight: Weight,
    rows: Flat,
    pitch: int,
    first: Expr,
    count: Expr,
    expert: Expr,
    panel: Expr,
    use: Callable[[Sums], None],
) -> None:
    """The products of rows `first` to before `first + count` with one panel, and `use` for every tile.

    Every row is in one tile: the largest ones first, then halves, down to single rows.
    """
    left, row, size = count, first, weight.panels.rows
    while True:
        tiles = code.opaque("tiles", quotient(left, size))
        with code.loop(tiles, "tile") as tile:
            _write_tile(code, weight, rows, pitch, code.opaque("row", row + tile * size), size, expert, panel, use)
        if size == 1:
            return
        left = code.opaque("left", left - tiles * size)
        row = code.opaque("next", row + tiles * size)
        size //= 2


def _write_tile(
    code: Code,
    weight: Weight,
    rows: Flat,
    pitch: int,
    row: Expr,
    size: int,
    expert: Expr,
    panel: Expr,
    use: Callable[[Sums], None],
) -> None:
    panels, storage = weight.panels, weight.storage
    width, lanes = panels.width, panels.lanes
    number = expert * panels.count + panel
    stored = weight.reach // storage.per
    start = code.opaque("start", number * (stored * width))
    group = code.opaque("group", number * (weight.blocks * width))
    begin = code.opaque("begin", row * pitch)
    depth = (
        [("block", weight.blocks), ("k", weight.reach // weight.blocks)] if weight.blocks > 1 else [("k", weight.reach)]
    )

    def place(ks: list[Expr]) -> Expr:
        return ks[0] if len(ks) == 1 else ks[0] * index(weight.reach // weight.blocks) + ks[1]

    def number_of(k: Expr, block: Expr, at: Expr) -> Expr:
        if storage.per == 1:
            code_ = tirx.BufferLoad(weight.codes.buffer, [start + k * width + at])
        else:
            code_ = tirx.BufferLoad(weight.codes.buffer, [start + tirx.floordiv(k, storage.per) * width + at])
        if storage.bits == 32:
            return code_
        if not storage.coded:
            return tirx.Cast("float32", code_)
        code_ = tirx.Cast("int32", code_)
        if storage.per > 1:
            shift = tirx.Cast("int32", tirx.floormod(k, storage.per)) * storage.bits
            code_ = tirx.bitwise_and(tirx.shift_right(code_, shift), tirx.const(2**storage.bits - 1, "int32"))
        if weight.zeros is None:
            return tirx.Cast("float32", code_ - tirx.const(storage.zero, "int32"))
        return tirx.Cast("float32", code_) - tirx.BufferLoad(weight.zeros.buffer, [group + block * width + at])

    def scale(block: Expr, at: Expr) -> Expr:
        assert weight.scales is not None  # codes have them
        return tirx.BufferLoad(weight.scales.buffer, [group + block * width + at])

    operands = Operands(
        depth,
        lambda i, ks: tirx.BufferLoad(rows.buffer, [begin + i * pitch + place(list(ks))]),
        lambda ks, at: number_of(place(list(ks)), ks[0] if len(ks) > 1 else index(0), at),
        unroll=_UNROLL,
        scale=scale if weight.blocks > 1 else None,
    )
    if storage.coded and weight.blocks == 1:
        operands = Operands(operands.depth, operands.left, operands.right, 1 << 30, _UNROLL)
    tile = Tile(size, panels.parts * panels.vectors, lanes)
    acc = accumulate(code, tile, operands)
    copy = code.stack("sums", size * width)
    with code.loop(size, "i", "unrolled") as i, code.loop(tile.vectors, "j", "unrolled") as j:
        with code.loop(lanes, "l", "vectorized") as lane:
            at = j * lanes + lane
            value = tirx.BufferLoad(acc, [i * width + at])
            if storage.coded and weight.blocks == 1:
                value = value * scale(index(0), at)
            code.add(tirx.BufferStore(copy.buffer, value, [i * width + at]))

    def load(i: Expr, part: int, vector: Expr) -> Expr:
        return copy.load(i * width + part * panels.step + vector * lanes, lanes)

    use(Sums(row, size, load))
