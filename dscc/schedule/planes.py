"""Windows of many taps over channels-last data: one vector of channels at a time, copied with its padding.

    for task (image, block of rows, c: vector of channels):
        lines[row][column] = data[first * stride - before + row, column - before, c], or padding
        for y: for x (tile of T pixels):
            for ry: for column of the tile's window: v = lines[..]
                acc[t] = update(acc[t], v)           for every t, rx that this column belongs to
            out[n, y, x + t, c] = epilogue(acc[t])

What `dscc.schedule.sliding` computes pixel by pixel, near the borders of an image whose width is open, is a small part
of its time for 3 x 3 taps on a large image, and most of it for 9 x 9 taps on 16 x 16 pixels. Here no pixel is at a
border; the copy is one load and one store of an element that is multiplied as often as there are taps.
"""

from __future__ import annotations

from tvm import tirx
from tvm.ir import Expr

from dscc.schedule.code import Code, Flat, Index, broadcast, ceildiv, constant, index, product, quotient, remainder
from dscc.schedule.decisions import Decisions
from dscc.schedule.epilogue import Fused
from dscc.schedule.lines import fill, margins
from dscc.schedule.loops import worth_threads
from dscc.schedule.machine import Machine
from dscc.schedule.sliding import MOST_TAPS, Tap, Window, channel_lanes, store_pixels, tile_sizes, uses

_TASKS = 8
_LEAST_SIDE = 7  # taps along both axes, from which on the borders of an open width are worth the copy: 5 were not


def pays(window: Window) -> bool:
    """Whether the window is too large to be written out, or the borders of an open width take much of the time."""
    height, width = window.height, window.width
    if height.kernel * width.kernel > MOST_TAPS:
        return True
    known = constant(width.out) is not None and constant(width.size) is not None
    return not known and width.padded and min(height.kernel, width.kernel) >= _LEAST_SIDE


class PlaneWriter:
    """Writes the loops of one operator; `outside` is what padding is."""

    def __init__(self, code: Code, fused: Fused, window: Window, outside: Expr, machine: Machine, decisions: Decisions):
        self._code, self._fused, self._window, self._outside = code, fused, window, outside
        self._data, self._lanes = code.view(window.source), channel_lanes(machine, window.channels)
        width = window.width
        most = 8 if machine.vector_registers >= 32 else 4
        self._tile = decisions.pick("tile", tile_sizes(most, constant(width.out), most))
        tiles = ceildiv(width.out, self._tile)
        self._tiles: Index = tiles if isinstance(tiles, int) else code.opaque("tiles", tiles)
        pitch = (self._tiles * self._tile - 1) * width.stride + width.reach  # of columns; the last tile may hang over
        self._pitch: Index = pitch if isinstance(pitch, int) else code.opaque("pitch", pitch)
        self._room = machine.l2_bytes // 4 // (4 * self._lanes)  # elements of one channel, in a quarter of L2

    def write(self) -> None:
        code, window, lanes = self._code, self._window, self._lanes
        height, vectors = window.height, -(-window.channels // self._lanes)
        most = self._rows_of_task(vectors)
        blocks = ceildiv(height.out, most)
        if not isinstance(blocks, int):
            blocks = code.opaque("blocks", blocks)
        parallel = worth_threads([window.batch, height.out, window.width.out, window.channels])
        count = product([window.batch, blocks, vectors])
        with code.loop(count, "task", "parallel" if parallel else "serial") as task:
            rest, step = quotient(task, vectors), remainder(task, vectors)
            image, block = quotient(rest, blocks), remainder(rest, blocks)
            image, first = code.opaque("image", image), code.opaque("first", block * most)
            c = code.opaque("c", tirx.min(step * lanes, index(window.channels - lanes)))
            rows = code.opaque("rows", tirx.min(index(most), height.out - first))
            lines = self._copy(image, first, rows, most, c)
            with code.loop(rows, "row") as row, code.loop(self._tiles, "t") as t:
                self._pixels(lines, image, first, row, code.bind("x", t * self._tile), c)

    def _rows_of_task(self, vectors: int) -> Index:
        """Output rows: their lines stay in cache, there are tasks enough, and a line is not copied for each again."""
        height = self._window.height
        fair = ceildiv(height.out, -(-_TASKS // vectors))
        lines = quotient(self._room, index(self._pitch))
        fit = quotient(tirx.max(lines - height.reach, index(0)), height.stride) + 1
        least = -(-height.reach // height.stride)
        rows = tirx.min(tirx.min(tirx.max(index(fair), index(least)), fit), height.out)
        return self._code.opaque("most", tirx.max(rows, index(1)))

    def _copy(self, image: Expr, first: Expr, rows: Expr, most: Index, c: Expr) -> Flat:
        """The rows that a block reads, with their padding: element (row, column) at (row * pitch + column) * lanes."""
        code, window, lanes = self._code, self._window, self._lanes
        height, width, channels = window.height, window.width, window.channels
        lines = code.heap("lines", product([(most - 1) * height.stride + height.reach, self._pitch, lanes]))
        left, middle = (index(columns) for columns in margins(code, width.before, width.size, self._pitch))

        def pad(to: Expr, columns: Expr) -> None:
            fill(code, lines.buffer, to * lanes, columns * lanes, lambda _: self._outside, lanes)

        with code.loop((rows - 1) * height.stride + height.reach, "r") as r:
            line = code.opaque("line", first * height.stride - height.before + r)
            to = code.opaque("to", r * self._pitch)
            inside = tirx.And(tirx.LE(index(0), line), tirx.LT(line, height.size))
            with code.when(inside):
                pad(to, left)
                start = code.opaque("from", (image * height.size + line) * width.size * channels + c)
                with code.loop(middle, "x") as x:
                    lines.store(code, (to + left + x) * lanes, self._data.load(start + x * channels, lanes))
                pad(to + left + middle, self._pitch - middle - left)
            with code.when(tirx.Not(inside)):
                pad(to, index(self._pitch))
        return lines

    def _pixels(self, lines: Flat, image: Expr, first: Expr, row: Expr, x: Expr, c: Expr) -> None:
        """A tile of pixels of one row."""
        code, window, lanes, tile = self._code, self._window, self._lanes, self._tile
        height, width = window.height, window.width
        acc = code.stack("acc", tile * lanes)
        for t in range(tile):
            acc.store(code, t * lanes, broadcast(window.init, lanes))
        with code.loop(height.kernel, "ry") as ry:
            at = code.bind("at", (row * height.stride + ry * height.dilation) * self._pitch + x * width.stride)
            for column in range((tile - 1) * width.stride + width.reach):
                if not (taps := uses(width, column, tile)):
                    continue
                value = code.bind("v", lines.load((at + column) * lanes, lanes))
                for t, rx in taps:
                    tap = Tap(ry * width.kernel + rx, c, lanes)
                    acc.store(code, t * lanes, window.update(acc.load(t * lanes, lanes), value, tap))
        known = constant(width.out)
        guard = None if known is not None and known % tile == 0 else lambda t: x + t < width.out
        store_pixels(code, self._fused, acc, (image, first + row, x, c), tile, lanes, guard)
