"""The loops around the micro-kernel of a matrix product: which tiles, in which order, on which thread.

    C[m, n] = epilogue(sum_k left(m, k) * right(k, n))        left: rows x depth, right: depth x columns

If all of the right side stays in the L2 cache, a tile of rows visits every panel of it. Else a block of rows that
stays there is multiplied with one panel after the other, so that the right side is streamed from memory once for every
block of rows. A panel that has to be filled first is filled in pieces of its depth that stay in the cache as well, and
the sums of the rows are kept between the pieces. So is one that is too deep for the cache beside a few rows: each tile
of these would read it from beyond the cache (12,544 deep, 50 rows: 68 GFLOP/s, so 92 of 114).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr, Var

from dscc.schedule.code import Code, Flat, Index, ceildiv, constant, index, quotient, remainder
from dscc.schedule.decisions import Decisions
from dscc.schedule.machine import Machine
from dscc.schedule.microkernel import LONG_RUN, SHORT_RUN, UNROLL, Operands, Partial, Terms, write_tile
from dscc.schedule.tiling import Columns, Tile, panel_base, start_of, vector_base

# Defaults, and what the tuner may try instead.
_TASK_FLOPS = (1_000_000, 250_000, 4_000_000)  # less than this is not worth handing to another thread
_L2_PERCENT = (50, 25, 75)  # that the side of a product which is read again may take
_TASKS = 16  # enough to keep many threads busy
_FILLED = 64  # rows at least for which a panel is filled
_PIECE = 6  # part of the L2 cache that a piece of a panel takes, one in so many
_TICKS = 100  # of a cycle
_L2_BYTES = 32  # of the L2 cache in a cycle
_DEEP = 4  # a packed panel that takes more than one such part of it is read in pieces


@dataclass(frozen=True)
class Product:
    """A matrix product whose parts are formulas.

    Attributes:
        rows: number of rows of the result.
        depth: length of the sums.
        columns: the columns of the result, in panels.
        left: (row, k) to a scalar.
        panels: the right side as a buffer [panel][depth][column]; or None, and
        fill: (k, column, panel, column within the panel) to an element of the right side, which is copied panel by
        panel.
        store: (row, column, value) to the statement that stores an element.
        rolled: the epilogue is too long to be unrolled.
        parallel: the loop over tasks may be parallel.
        terms: (first row of a tile, panel) to what the tile sums up, instead of products of `left` and the right side.
        work: multiply-adds that take as long as one step of the depth.
    """

    rows: Index
    depth: int
    columns: Columns
    left: Callable[[Expr, Expr], Expr]
    panels: Var | None
    fill: Callable[[Expr, Expr, Expr, Expr], Expr] | None
    store: Callable[[Expr, Expr, Expr], tirx.Stmt]
    rolled: bool
    parallel: bool = True
    terms: Callable[[Expr, Expr], Terms] | None = None
    work: int = 1


def write_product(
    code: Code, product: Product, machine: Machine, decisions: Decisions, few: Callable[[], Product] | None = None
) -> None:
    """Write the loops.

    A symbolic number of rows gets variants: for many rows tiles that overlap, for a few the height of tiles that covers
    them in the least time. `few` writes what comes before the loops over single rows, and is then the product instead;
    there are no heights between then.
    """
    tile = product.columns.tile
    rows = constant(product.rows)
    if rows is not None and few is not None and rows < tile.rows:
        _write(code, few(), machine, decisions, tile.with_rows(1))
        return
    if rows is not None:
        _write(code, product, machine, decisions, tile.with_rows(min(tile.rows, rows)))
        return
    tiles = [tile.with_rows(height) for height in ((tile.rows, 1) if few is not None else _heights(tile.rows))]
    which = _cheapest(code, index(product.rows), tiles)
    for number, one in enumerate(tiles):
        with code.when(tirx.EQ(which, index(number))):
            made = product if few is None or one.rows > 1 else few()
            _write(code, made, machine, decisions, one)


def _heights(most: int) -> list[int]:
    """Rows of the tiles that there is code for, the most first."""
    return sorted({most, *(-(-most * quarters // 4) for quarters in (3, 2, 1)), 1}, reverse=True)


def _cheapest(code: Code, rows: Expr, tiles: list[Tile]) -> Expr:
    """The number of the tile that covers `rows` in the least time; a tile is no choice for fewer rows than it has."""
    # Through memory, or TVM 0.27 concludes from 13 * w < 6 that w is 0, and then refuses to divide by w; and it would
    # put each of these expressions into the next one, twice.
    memory = code.stack("rows", 3, "int64")
    memory.store(code, 0, rows)
    count, which, least = (memory.load(at) for at in range(3))
    memory.store(code, 1, index(len(tiles) - 1))
    memory.store(code, 2, count * _ticks(tiles[-1]))
    for number, tile in reversed(list(enumerate(tiles[:-1]))):
        ticks = index(ceildiv(count, tile.rows)) * _ticks(tile)
        with code.when(tirx.And(tirx.GE(count, index(tile.rows)), tirx.LE(ticks, least))):
            memory.store(code, 1, index(number))
            memory.store(code, 2, ticks)
    return which


def _ticks(tile: Tile) -> int:
    """Of a step of the sum, for which the panel comes from the L2 cache."""
    return round(_TICKS * max(tile.cycles, 4 * tile.width / _L2_BYTES))


def _write(code: Code, product: Product, machine: Machine, decisions: Decisions, tile: Tile) -> None:
    columns, depth = product.columns, product.depth
    panels = columns.panels
    tiles = ceildiv(product.rows, tile.rows)
    if not isinstance(tiles, int):
        tiles = code.opaque("tiles", tiles)
    right_bytes = panels * depth * tile.width * 4
    tile_flops = 2 * tile.rows * depth * tile.width * product.work
    share = machine.l2_bytes * decisions.pick("l2_percent", _L2_PERCENT) // 100
    task_flops = decisions.pick("task_flops", _TASK_FLOPS)
    unroll = decisions.pick("unroll", UNROLL)
    panel_outer = product.panels is None or right_bytes > share
    known = constant(tiles)
    block: Index
    deep = product.terms is None and 4 * depth * tile.width > machine.l2_bytes // _DEEP
    piece = depth
    if product.panels is None or deep:
        piece = _piece(depth, machine.l2_bytes // _PIECE // (4 * tile.width))
    if product.panels is not None and SHORT_RUN < piece < depth:
        piece -= piece % SHORT_RUN  # a prime length would be summed in one run
    if panel_outer:
        block = max(1, share // (tile.rows * piece * 4))
        if piece < depth:
            block = max(1, min(block, machine.l2_bytes // _PIECE // (4 * tile.rows * tile.width)))
        blocks = 1 if known is None else -(-known // block)
        if known is not None:
            block = -(-known // blocks)
        group = max(1, panels * blocks // _TASKS, -(-task_flops // (tile_flops * block)))
    else:
        group = panels
        block = max(1, task_flops // (tile_flops * panels))
    most = block
    group = min(group, panels)
    groups = -(-panels // group)
    if panel_outer and known is None:
        # As many blocks as give work to all threads, if each has enough of it; and all of the same size.
        least = max(-(-task_flops // (tile_flops * group)), 1 if product.panels is not None else _FILLED // tile.rows)
        fair = tirx.min(index(-(-_TASKS // groups)), quotient(tiles, max(1, least)))
        count = tirx.max(tirx.max(index(ceildiv(tiles, block)), fair), index(1))
        block = code.opaque("block", tirx.max(index(ceildiv(tiles, count)), index(1)))
    blocks_of_rows = ceildiv(tiles, block)
    if not isinstance(blocks_of_rows, int):
        blocks_of_rows = code.opaque("blocks", blocks_of_rows)
    tasks = index(blocks_of_rows) * groups
    known = constant(blocks_of_rows)
    kind = "parallel" if product.parallel and (known is None or known * groups > 1) else "serial"
    with code.loop(tasks if known is None else known * groups, "task", kind) as task:
        first_tile, first_panel = task * block, index(0)
        if groups > 1:
            first_tile = quotient(task, groups) * block
            first_panel = remainder(task, groups) * group
        tiles_here = _here(first_tile, block, tiles)
        panels_here = _here(first_panel, group, panels)

        def visit(panel: Expr, t: Expr, right: Callable[[Expr, Expr], Expr], part: _Part, slot: Expr) -> None:
            row = start_of(first_tile + t, tile.rows, product.rows)
            products = Operands(
                [("k", part.length)],
                lambda i, ks: product.left(row + i, part.start + ks[0]),
                lambda ks, at: right(ks[0], at),
                LONG_RUN if product.panels is None else SHORT_RUN,
                unroll,
            )
            last = -(-depth // piece) - 1
            write_tile(
                code,
                tile,
                products if product.terms is None else product.terms(row, panel),
                lambda i, column, value: product.store(row + i, column, value),
                columns=columns,
                base=panel_base(panel, columns),
                rolled=product.rolled,
                partial=None if sums is None else _partial(sums, part, last, slot * tile_size, tile.width),
            )

        def in_pieces(write: Callable[[_Part], None]) -> None:
            if piece == depth:
                write(_Part(index(0), depth, index(0)))
                return
            with code.loop(depth // piece, "piece") as number:
                write(_Part(number * piece, piece, number))
            if depth % piece:
                write(_Part(index(depth // piece * piece), depth % piece, index(depth // piece)))

        kept = most if product.panels is None else most * group  # tiles whose sums wait for the next piece
        tile_size = tile.rows * tile.width
        sums = code.heap("sums", kept * tile_size) if piece < depth else None
        if product.panels is not None:
            packed = product.panels
            loops = [(panels_here, "p"), (tiles_here, "t")]
            outer, inner = loops if panel_outer else reversed(loops)

            def multiply(part: _Part) -> None:
                with code.loop(*outer) as i, code.loop(*inner) as j:
                    p, t = (i, j) if panel_outer else (j, i)
                    panel = first_panel + p

                    def right(k: Expr, at: Expr) -> Expr:
                        return tirx.BufferLoad(packed, [panel, part.start + k, at])

                    visit(panel, t, right, part, p * most + t)

            in_pieces(multiply)
            return
        scratch = code.heap("panel", piece * tile.width)
        with code.loop(panels_here, "p") as p:
            panel = first_panel + p

            def pass_(part: _Part) -> None:
                right = _fill(code, product, panel, part, scratch)
                with code.loop(tiles_here, "t") as t:
                    visit(panel, t, right, part, t)

            in_pieces(pass_)


@dataclass(frozen=True)
class _Part:
    """Some of the depth: `length` from `start` on, the part number `number`."""

    start: Expr
    length: int
    number: Expr


def _piece(depth: int, most: int) -> int:
    """The length of pieces of at most `most`, of the same length if `depth` has such a factor."""
    count = -(-depth // max(1, most))
    even = next((n for n in range(count, 2 * count) if depth % n == 0), count)
    return -(-depth // even)


def _partial(sums: Flat, part: _Part, last: int, slot: Expr, width: int) -> Partial:
    """The sums of the tile at `slot`, between the parts of which `last` is the number of the last one."""
    return Partial(
        part.number,
        last,
        lambda i, at: sums.load(slot + i * width + at),
        lambda i, at, value: tirx.BufferStore(sums.buffer, value, [slot + i * width + at]),
    )


def _fill(code: Code, product: Product, panel: Expr, part: _Part, scratch: Flat) -> Callable[[Expr, Expr], Expr]:
    """Fill a part of the right side's panel; reads of it, with k from the part's start on."""
    columns, fill = product.columns, product.fill
    tile = columns.tile
    assert fill is not None  # where there are no packed panels
    base = panel_base(panel, columns)
    with code.loop(part.length, "k") as k, code.loop(tile.vectors, "j") as j:
        with code.loop(tile.lanes, "l", "vectorized") as lane:
            column = base + vector_base(j, columns) + lane
            if columns.padded:
                column = tirx.min(column, index(columns.count - 1))
            value = fill(part.start + k, column, panel, j * tile.lanes + lane)
            code.add(tirx.BufferStore(scratch.buffer, value, [k * tile.width + j * tile.lanes + lane]))
    return lambda k, at: scratch.load(k * tile.width + at)


def _here(first: Expr, size: Index, extent: Index) -> Index:
    """How many of `size` from `first` on there are."""
    known = constant(extent)
    if known is not None and isinstance(size, int) and (known % size == 0 or known <= size):
        return min(size, known)
    return tirx.min(index(size), index(extent) - first)
