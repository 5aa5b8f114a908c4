"""A product of matrices by blocks of threads: tiles in shared memory, tiles of sums in the registers of threads.

    for every tile of rows and columns, a block of 16 x 16 threads:
        for k in steps of the tile's depth:
            all threads: copy left[rows, k..] and right[k.., columns] to shared memory        barrier
            each thread: sums[i, j] += left[i] * right[j] for its rows i and columns j        barrier
        each thread: epilogue and store

Rows, columns and depth may be symbolic. What is outside of them is read as zero and not stored. What the operands are
is left to the caller: a convolution's left side is read through its window (implicit GEMM).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr

from dscc.schedule.code import Index, ceildiv, constant, index, quotient, remainder
from dscc.schedule.decisions import Decisions
from dscc.schedule.gpu.device import Device
from dscc.schedule.gpu.kernel import Kernel

ACROSS = 16  # threads of a block along the columns
_WAVES = 2  # blocks for every compute unit that a tile should leave

Element = Callable[[Expr], Expr]


@dataclass(frozen=True)
class Tile:
    """What a block computes at once: `rows` x `columns`, in steps of `depth`; a thread has `high` x `wide` of it."""

    high: int
    wide: int
    down: int = 16  # threads along the rows
    depth: int = 16

    @property
    def rows(self) -> int:
        return self.high * self.down

    @property
    def columns(self) -> int:
        return self.wide * ACROSS

    @property
    def threads(self) -> int:
        return ACROSS * self.down

    def shared_bytes(self, element_bytes: int) -> int:
        """Of both operands; the left one has a column more, so that neighbours are in different banks."""
        return (self.rows + 1 + self.columns) * self.depth * element_bytes


TILES = (Tile(8, 8), Tile(8, 4), Tile(4, 8), Tile(4, 4), Tile(2, 4), Tile(1, 4), Tile(2, 2), Tile(1, 1), Tile(1, 4, 4))
"""From the largest to the smallest; the last one is for a few rows."""


@dataclass(frozen=True)
class Gemm:
    """A product, or `batch` of them.

    Attributes:
        rows, columns, depth, batch: extents.
        left: given the batch and a row, evaluates what depends on them, and gives the element at a depth.
        right: given the batch and a column, the same.
        store: the statements for (batch, row, column, sum).
        left_dtype, right_dtype, dtype: of the operands in shared memory, and of the sums.
        left_runs, right_runs: whether neighbours along the depth are neighbours in memory.
        run: where they are, how many of them at least, from a multiple of this number on.
    """

    rows: Index
    columns: Index
    depth: Index
    batch: Index
    left: Callable[[Expr, Expr], Element]
    right: Callable[[Expr, Expr], Element]
    store: Callable[[Expr, Expr, Expr, Expr], tirx.Stmt]
    left_dtype: str
    right_dtype: str
    dtype: str
    left_runs: bool = True
    right_runs: bool = False
    run: int = 1


def choose(gemm: Gemm, device: Device, decisions: Decisions) -> Tile:
    """The largest tile that leaves work for the whole device; sizes that are not known are taken for a hundred."""
    rows, columns, batch = (constant(n) for n in (gemm.rows, gemm.columns, gemm.batch))
    width = max(_bytes(gemm.left_dtype), _bytes(gemm.right_dtype))
    fitting = [
        tile
        for tile in TILES
        if tile.threads <= device.threads
        and tile.shared_bytes(width) <= device.shared_bytes
        and 2 * tile.high * tile.wide <= device.registers
    ]

    def blocks(tile: Tile) -> int:
        return -(-(rows or 128) // tile.rows) * -(-(columns or 128) // tile.columns) * (batch or 1)

    def waste(tile: Tile) -> float:
        """How many sums are computed for every one that is wanted."""
        padded = -(-(rows or 128) // tile.rows) * tile.rows * -(-(columns or 128) // tile.columns) * tile.columns
        return padded / ((rows or 128) * (columns or 128))

    best = min(waste(tile) for tile in fitting)
    apt = [tile for tile in fitting if waste(tile) <= max(1.25, 1.05 * best)]
    busy = [tile for tile in apt if blocks(tile) >= _WAVES * device.units]
    default = busy[0] if busy else max(apt, key=blocks)
    names = {f"{tile.high}x{tile.wide}x{tile.down}": tile for tile in [default, *fitting]}
    return names[decisions.pick("tile", list(names))]


def _bytes(dtype: str) -> int:
    return max(1, int("".join(c for c in dtype if c.isdigit()) or 8) // 8)


def write(code: Kernel, gemm: Gemm, tile: Tile) -> None:
    """One launch that computes the product."""
    across, along = ceildiv(gemm.columns, tile.columns), ceildiv(gemm.rows, tile.rows)
    blocks = [index(along) * index(gemm.batch) if constant(gemm.batch) != 1 else along, across]
    with code.launch(blocks, [ACROSS, tile.down]) as (block, (tx, ty)):
        batch: Expr = index(0)
        number = block[0]
        if constant(gemm.batch) != 1:
            batch = code.bind("batch", quotient(number, along))
            number = code.bind("number", remainder(number, along))
        first_row = code.bind("first_row", number * tile.rows)
        first_column = code.bind("first_column", block[1] * tile.columns)
        _Block(code, gemm, tile, batch, first_row, first_column, tx, ty).write()


class _Block:
    """What one block does."""

    def __init__(
        self,
        code: Kernel,
        gemm: Gemm,
        tile: Tile,
        batch: Expr,
        first_row: Expr,
        first_column: Expr,
        tx: Expr,
        ty: Expr,
    ):
        self.code, self.gemm, self.tile, self.batch = code, gemm, tile, batch
        self.first_row, self.first_column, self.tx, self.ty = first_row, first_column, tx, ty
        self.number = code.bind("t", ty * ACROSS + tx)
        self.left = code.shared("left", tile.depth * (tile.rows + 1), gemm.left_dtype)
        self.right = code.shared("right", tile.depth * tile.columns, gemm.right_dtype)
        self.sums = code.local("sums", tile.high * tile.wide, gemm.dtype)

    def write(self) -> None:
        code, gemm, tile = self.code, self.gemm, self.tile
        zero = tirx.const(0, gemm.dtype)
        for i in range(tile.high * tile.wide):
            self.sums.store(code, i, zero)
        copies = [
            self._copier(self.left, tile.rows + 1, tile.rows, self.first_row, gemm.rows, gemm.left, gemm.left_runs),
            self._copier(
                self.right, tile.columns, tile.columns, self.first_column, gemm.columns, gemm.right, gemm.right_runs
            ),
        ]
        with code.loop(ceildiv(gemm.depth, tile.depth), "step") as step:
            first = code.bind("first", step * tile.depth)
            for copy in copies:
                copy(first)
            code.barrier()
            with code.loop(tile.depth, "k") as k:
                self._multiply(k)
            code.barrier()
        self._finish()

    def _copier(
        self,
        shared: object,
        pitch: int,
        extent: int,
        first: Expr,
        limit: Index,
        operand: Callable[[Expr, Expr], Element],
        runs: bool,
    ) -> Callable[[Expr], None]:
        """Copies one operand's part of a step; what does not depend on the step is computed here, before the loop."""
        code, tile = self.code, self.tile
        count, threads = tile.depth * extent, tile.threads
        whole = constant(limit)
        inside = whole is not None and whole % extent == 0
        elements: list[tuple[Expr, Expr, Expr | bool, Element]] = []
        seen: dict[object, tuple[Expr, Expr | bool, Element]] = {}
        for i in range(-(-count // threads)):
            # Neighbouring threads read neighbours in memory: along the depth, or across it.
            if runs:
                k, across = remainder(self.number, tile.depth), quotient(self.number, tile.depth)
                where = code.bind("at", across + i * (threads // tile.depth))
            elif threads >= extent:
                k, where = quotient(self.number, extent) + i * (threads // extent), remainder(self.number, extent)
            else:
                per = extent // threads
                k, where = index(i // per), self.number + (i % per) * threads
            key = None if runs else (0 if threads >= extent else i % (extent // threads))
            if key is None or key not in seen:
                place = code.bind("place", first + where)
                valid: Expr | bool = True if inside else place < index(limit)
                # Computed even where it is not valid, so that the place has to be one that exists.
                safe = place if inside else code.bind("safe", tirx.min(place, index(limit) - 1))
                seen[key] = (where, valid, operand(self.batch, safe))
            where, valid, element = seen[key]
            elements.append((code.bind("k", k), where, valid, element))
        return lambda step: self._copy(shared, pitch, count, elements, step)

    def _copy(
        self,
        shared: object,
        pitch: int,
        count: int,
        elements: list[tuple[Expr, Expr, Expr | bool, Element]],
        first: Expr,
    ) -> None:
        code, gemm, tile = self.code, self.gemm, self.tile
        depth = constant(gemm.depth)
        whole = depth is not None and depth % tile.depth == 0
        spare = count % tile.threads
        for i, (k, where, valid, element) in enumerate(elements):
            at = code.bind("depth", first + k)
            value = element(at)
            conditions = [] if valid is True else [valid]
            conditions += [] if whole else [at < index(gemm.depth)]
            if conditions:
                both = conditions[0] if len(conditions) == 1 else tirx.And(*conditions)
                value = tirx.if_then_else(both, value, tirx.const(0, value.ty.dtype))
            last = i == len(elements) - 1 and spare != 0
            with code.when(self.number < spare if last else True):
                shared.store(code, k * pitch + where, value)  # type: ignore[attr-defined]

    def _multiply(self, k: Expr) -> None:
        code, tile, gemm = self.code, self.tile, self.gemm
        pitch = tile.rows + 1
        left = [
            code.bind("a", _as(self.left.load(k * pitch + self.ty * tile.high + i), gemm.dtype))
            for i in range(tile.high)
        ]
        right = [
            code.bind("b", _as(self.right.load(k * tile.columns + self.tx + j * ACROSS), gemm.dtype))
            for j in range(tile.wide)
        ]
        for i, a in enumerate(left):
            for j, b in enumerate(right):
                at = i * tile.wide + j
                self.sums.store(code, at, self.sums.load(at) + a * b)

    def _finish(self) -> None:
        code, tile, gemm = self.code, self.tile, self.gemm
        rows, columns = constant(gemm.rows), constant(gemm.columns)
        for i in range(tile.high):
            row = code.bind("row", self.first_row + self.ty * tile.high + i)
            with code.when(True if rows is not None and rows % tile.rows == 0 else row < index(gemm.rows)):
                for j in range(tile.wide):
                    column = code.bind("column", self.first_column + self.tx + j * ACROSS)
                    inside = columns is not None and columns % tile.columns == 0
                    with code.when(True if inside else column < index(gemm.columns)):
                        code.add(gemm.store(self.batch, row, column, self.sums.load(i * tile.wide + j)))


def _as(value: Expr, dtype: str) -> Expr:
    return value if str(value.ty.dtype) == dtype else tirx.Cast(dtype, value)
