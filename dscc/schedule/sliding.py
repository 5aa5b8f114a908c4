"""Operators that move a window over channels-last data: vectors of channels, a tile of pixels in registers.

    for task (image, block of rows): for c (vector of channels): for strip: for y: for x (tile of T pixels):
        for ry: for column of the tile's window: v = data[row, column, c]
            acc[t] = update(acc[t], v)               for every t, rx that this column belongs to
        out[n, y, x + t, c] = epilogue(acc[t])

The tuner may put the loop over channels inside of the one over x: whole lines are then read in order, which is faster
where the data comes from memory, and slower where it is in L2.

An element of the data is loaded once per tile and row of the window. Rows outside the data are skipped by a branch
around all of their products. Columns outside are known at compile time where the width is: the tiles that touch the
border are written out without them. Where the width is symbolic, tiles cover the inside, and the few pixels at the
border are computed one by one. The last tile is moved back over its neighbour.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr, Var

from dscc.schedule.code import Code, Flat, Index, broadcast, ceildiv, constant, decided, index, product
from dscc.schedule.convolution import Axis
from dscc.schedule.decisions import Decisions
from dscc.schedule.epilogue import Fused
from dscc.schedule.loops import worth_threads
from dscc.schedule.machine import Machine
from dscc.schedule.microkernel import has_long_functions

_TASKS = 8
_L2_PARTS = [4, 2, 8, 16]  # the data of a task takes one of so many
_MOST_EDGES = 4  # tiles at the border that are written out
MOST_TAPS = 49  # of a window that is written out


@dataclass(frozen=True)
class Tap:
    """A position in the window, `number` = ry * kernel width + rx, for `lanes` channels from `c` on."""

    number: Expr
    c: Expr
    lanes: int


@dataclass(frozen=True)
class Window:
    """What is computed.

    Attributes:
        source: the data, (batch, height, width, channels).
        init: what an accumulator starts from.
        update: (accumulator, element of the data, tap) to the new accumulator.
    """

    source: Var
    batch: Expr
    height: Axis
    width: Axis
    channels: int
    init: Expr
    update: Callable[[Expr, Expr, Tap], Expr]


def tile_sizes(most: int, extent: int | None, usual: int) -> list[int]:
    """Output pixels of a tile, at most `most`, best first: little overlap at the end; `usual` where that is open."""
    if extent is not None and extent <= most:
        return [extent]
    sizes = range(max(most // 2, 2), most + 1)
    return sorted(sizes, key=lambda t: (t != usual, t) if extent is None else (-(-extent // t) * (t + 1), -t))


@dataclass(frozen=True)
class _Block:
    """Output rows from `first` on of one image; one vector of channels from `c` on, or None: all of them."""

    image: Expr
    first: Expr
    rows: Index
    c: Expr | None


@dataclass(frozen=True)
class _Place:
    """Where a tile is: `size` pixels of row `y` from `x` on; the window of the first begins at (top, left)."""

    image: Expr
    top: Expr
    y: Expr
    left: Expr
    x: Expr
    c: Expr | None
    size: int


class WindowWriter:
    """Writes the loops of one operator."""

    def __init__(self, code: Code, fused: Fused, window: Window, machine: Machine, decisions: Decisions):
        self._code, self._fused, self._window, self._machine = code, fused, window, machine
        self._data = code.view(window.source)
        self._channels = window.channels
        self._lanes = channel_lanes(machine, window.channels)
        self._decisions = decisions
        self._innermost = decisions.pick("channels", ["outside", "inside"]) == "inside"

    def write(self) -> None:
        code, window = self._code, self._window
        rows = self._rows_of_block()
        blocks = ceildiv(window.height.out, rows)
        parallel = worth_threads([window.batch, window.height.out, window.width.out, self._channels])
        with code.loop(product([window.batch, blocks]), "task", "parallel" if parallel else "serial") as task:
            image, block = task, index(0)
            if constant(blocks) != 1:
                image, block = code.bind("image", task // index(blocks)), code.bind("block", task % index(blocks))
            first = code.bind("first", block * rows)
            tall = constant(window.height.out)
            even = tall is not None and tall % rows == 0
            count: Index = rows if even else tirx.min(index(rows), index(window.height.out) - first)
            if self._innermost:
                self._block(_Block(image, first, count, None))
            else:
                with self._each_vector(None) as c:
                    self._block(_Block(image, first, count, c))

    @contextmanager
    def _each_vector(self, outside: Expr | None) -> Iterator[Expr]:
        """The loop over vectors of channels, unless it is outside; yields the first channel of a vector."""
        if outside is not None:
            yield outside
            return
        code, lanes = self._code, self._lanes
        with code.loop(-(-self._channels // lanes), "step") as step:
            c = step * lanes
            if self._channels % lanes:
                c = tirx.min(c, index(self._channels - lanes))
            yield code.bind("c", c)

    def _rows_of_block(self) -> int:
        """Output rows of a task: its data stays in L2 for all channels, and there are tasks enough."""
        window = self._window
        width, tall = constant(window.width.size), constant(window.height.out)
        row_bytes = 4 * self._channels * (width or 64) * window.height.stride
        rows = max(1, self._machine.l2_bytes // self._decisions.pick("l2_parts", _L2_PARTS) // row_bytes)
        return min(rows, max(1, -(-(tall or 64) // _TASKS)))

    def _block(self, block: _Block) -> None:
        """Some rows of one vector of channels, in strips narrow enough for the rows of a window to stay in L1."""
        known = constant(self._window.width.out)
        taps = self._window.height.kernel * self._window.width.kernel
        most = 6 if self._machine.vector_registers >= 32 and taps <= 9 else 4  # which leaves some for the weights
        tile = self._decisions.pick("tile", tile_sizes(most, known, 4))
        if taps > MOST_TAPS:
            with self._each_output_row(block) as place, self._code.loop(self._window.width.out, "x") as x:
                self._pixel(place(x, 1))
            return
        if known is not None and constant(self._window.width.size) is not None:
            starts = self._starts(known, tile)
            if sum(not self._is_inside(x, tile) for x in starts) <= _MOST_EDGES:
                self._known_width(block, starts, tile)
                return
        self._symbolic_width(block, tile)

    @contextmanager
    def _each_output_row(self, block: _Block) -> Iterator[Callable[[Expr, int], _Place]]:
        """The loop over the rows of a block; yields what makes the place of a tile of it, from x and size."""
        code, height, width = self._code, self._window.height, self._window.width
        with code.loop(block.rows, "row") as row:
            y = code.bind("y", block.first + row)
            top = code.bind("top", y * height.stride - height.before)
            yield lambda x, size: _Place(block.image, top, y, x * width.stride - width.before, x, block.c, size)

    def _is_inside(self, x: int, size: int) -> bool:
        """Whether the windows of `size` pixels from x on lie within the data."""
        width, limit = self._window.width, constant(self._window.width.size)
        left = x * width.stride - width.before
        return left >= 0 and limit is not None and left + (size - 1) * width.stride + width.reach <= limit

    def _starts(self, extent: int, tile: int) -> list[int]:
        return [min(x, extent - tile) for x in range(0, extent, tile)]

    def _strip(self, tile: int) -> int:
        """Tiles side by side whose data, over the rows of a window, takes a third of L1."""
        column_bytes = 4 * self._lanes * self._window.height.reach * self._window.width.stride
        return max(1, self._machine.l1_bytes // 3 // (column_bytes * tile))

    def _known_width(self, block: _Block, starts: Sequence[int], tile: int) -> None:
        strips: list[tuple[int, int]] = []  # first pixel, number of tiles
        for x in starts:
            first, count = strips[-1] if strips else (0, 0)
            inside = count and self._is_inside(first, tile) and self._is_inside(x, tile)
            if inside and x == first + count * tile:
                strips[-1] = first, count + 1
            else:
                strips.append((x, 1))
        for first, count in strips:
            pieces = -(-count // self._strip(tile))
            each = -(-count // pieces)
            pieces = -(-count // each)
            with self._code.loop(pieces, "strip") as strip, self._each_output_row(block) as place:
                here: Index = each if count % each == 0 else tirx.min(index(each), index(count) - strip * each)
                with self._code.loop(here, "t") as step:
                    if count == 1:
                        self._tile(place(index(first), tile))
                    else:
                        self._tile(place(self._code.bind("x", first + (strip * each + step) * tile), tile))

    def _symbolic_width(self, block: _Block, tile: int) -> None:
        """Pixels from `low` on and before `high` have their window inside the data; the others are computed singly."""
        code, width = self._code, self._window.width
        out = index(width.out)
        low = index(-(-width.before // width.stride))
        slack = index(width.size) + width.before - width.reach
        high = code.bind("high", tirx.min(out, tirx.floordiv(slack, index(width.stride)) + 1))
        tiled = high - low >= tile
        tiles = code.bind("tiles", tirx.Select(tiled, ceildiv(high - low, tile), index(0)))
        each = self._strip(tile)
        with code.loop(ceildiv(tiles, each), "strip") as strip, self._each_output_row(block) as place:
            with code.loop(tirx.min(index(each), tiles - strip * each), "t") as step:
                x = tirx.min(low + (strip * each + step) * tile, high - tile)
                self._tile(place(code.bind("x", x), tile))
        left = code.bind("edge", tirx.Select(tiled, low, out))
        right = code.bind("rest", tirx.Select(tiled, out - high, index(0)))
        with self._each_output_row(block) as place, code.loop(left + right, "t") as step:
            self._pixel(place(code.bind("x", tirx.Select(step < left, step, step - left + high)), 1))

    def _tile(self, at: _Place) -> None:
        """A tile whose columns are inside, or known to be outside."""
        with self._each_vector(at.c) as c:
            self._vector_of_tile(at, c)

    def _vector_of_tile(self, at: _Place, c: Expr) -> None:
        code, height, width, lanes = self._code, self._window.height, self._window.width, self._lanes
        acc = self._accumulators(at.size)
        for ry in range(height.kernel):
            with self._each_row(at, c, index(ry)) as line:
                for column in range((at.size - 1) * width.stride + width.reach):
                    taps = uses(width, column, at.size)
                    if not taps or decided(self._is_column(at.left + column)) is False:
                        continue
                    value = code.bind("v", self._data.load(line + column * self._channels, lanes))
                    for t, rx in taps:
                        tap = Tap(index(ry * width.kernel + rx), c, lanes)
                        acc.store(code, t * lanes, self._window.update(acc.load(t * lanes, lanes), value, tap))
        self._store(acc, at, c)

    def _pixel(self, at: _Place) -> None:
        """One pixel whose window may reach over the border."""
        with self._each_vector(at.c) as c:
            self._vector_of_pixel(at, c)

    def _vector_of_pixel(self, at: _Place, c: Expr) -> None:
        code, height, width, lanes = self._code, self._window.height, self._window.width, self._lanes
        acc = self._accumulators(1)
        with code.loop(height.kernel, "ry") as ry, self._each_row(at, c, ry) as line:
            with code.loop(width.kernel, "rx") as rx, code.when(self._is_column(at.left + rx * width.dilation)):
                value = self._data.load(line + rx * (width.dilation * self._channels), lanes)
                tap = Tap(ry * width.kernel + rx, c, lanes)
                acc.store(code, 0, self._window.update(acc.load(0, lanes), value, tap))
        self._store(acc, at, c)

    def _accumulators(self, size: int) -> Flat:
        acc = self._code.stack("acc", size * self._lanes)
        for t in range(size):
            acc.store(self._code, t * self._lanes, broadcast(self._window.init, self._lanes))
        return acc

    @contextmanager
    def _each_row(self, at: _Place, c: Expr, ry: Expr) -> Iterator[Expr]:
        """What is done if row `ry` of the window is inside; yields where the tile's first column begins in it."""
        code, height = self._code, self._window.height
        row = at.top + ry * height.dilation
        inside = tirx.And(row >= 0, row < index(height.size))
        with code.when(decided(inside) if height.padded else True):
            pixel = (at.image * index(height.size) + row) * index(self._window.width.size) + at.left
            yield code.bind("line", pixel * self._channels + c)

    def _is_column(self, column: Expr) -> Expr:
        return tirx.And(column >= 0, column < index(self._window.width.size))

    def _store(self, acc: Flat, at: _Place, c: Expr) -> None:
        store_pixels(self._code, self._fused, acc, (at.image, at.y, at.x, c), at.size, self._lanes)


def channel_lanes(machine: Machine, channels: int) -> int:
    """Channels of a vector."""
    lanes = machine.lanes(32)
    while lanes > channels:
        lanes //= 2
    return lanes


def uses(width: Axis, column: int, size: int) -> list[tuple[int, int]]:
    """The pixels of a tile of `size` whose window has this column, and as which of its own."""
    pairs = ((t, rx) for t in range(size) for rx in range(width.kernel))
    return [(t, rx) for t, rx in pairs if t * width.stride + rx * width.dilation == column]


def store_pixels(
    code: Code,
    fused: Fused,
    acc: Flat,
    at: tuple[Expr, Expr, Expr, Expr],
    size: int,
    lanes: int,
    guard: Callable[[Expr], Expr] | None = None,
) -> None:
    """The epilogue of `size` pixels from `at` (image, y, x, channel) on, those for which `guard` holds.

    A long one is written once and loops over the tile, which then has to lie in memory.
    """
    source, is_long = acc, has_long_functions(fused)
    if is_long and size > 1:
        source = code.stack("sums", size * lanes)
        for t in range(size):
            source.store(code, t * lanes, acc.load(t * lanes, lanes))
    image, y, x, c = at
    with (
        code.loop(size, "t", "serial" if is_long else "unrolled") as t,
        code.when(True if guard is None else guard(t)),
        code.loop(lanes, "l", "vectorized") as lane,
    ):
        code.add(fused.store([image, y, x + t, c + lane], source.load(t * lanes + lane)))
