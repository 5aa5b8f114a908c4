"""3x3 convolutions of stride 1 as 36 matrix products with a quarter of the multiplications.

    V[q][tile][c]  = the data of every tile of 6x6 pixels, transformed           q: 6 x 6
    M[q][tile][f]  = sum over c of V[q][tile][c] * U[q][c][f]                    U: packed at compile time
    4x4 pixels of the result = M of the tile, transformed back; then the epilogue

A task takes a band of rows of tiles, of which V stays in the L2 cache, and goes through the columns panel by panel. The
rule is taken where the multiplications that it saves outweigh its larger weights: U has four times their bytes.
"""

from __future__ import annotations

import dataclasses

from tvm import tirx
from tvm.ir import Expr

from dscc.passes.values import at_sizes
from dscc.schedule.base import Rule, Scheduled
from dscc.schedule.code import Code, Flat, Index, ceildiv, constant, index, product, quotient, remainder
from dscc.schedule.convolution import Convolution
from dscc.schedule.cost import TYPICAL_SIDE
from dscc.schedule.decisions import Decisions
from dscc.schedule.epilogue import Fused
from dscc.schedule.lines import Block, Lines, Window
from dscc.schedule.machine import Machine
from dscc.schedule.math import vector_math
from dscc.schedule.microkernel import UNROLL, Operands, write_tile
from dscc.schedule.tiling import Columns, choose, panel_base, vector_base
from dscc.schedule.winograd import IN, OUT, WinogradPacking, data_transform, result_transform

_POINTS = IN * IN
_LEAST_CHANNELS = 16
_TYPICAL_PRODUCT = 56 * 56 * 64 * 64  # of pixels and channels where a size is symbolic: networks keep it about constant
_WEIGHT_CYCLES = 0.25  # a weight's four bytes from memory, times the multiply-adds of a scalar in a cycle: 16 / 64
_L2_PERCENT = (50, 25, 75)  # that the transformed data of a task may take
_TASKS = 8  # this many keep threads busy
_LEAST_TILES = 12  # of a task: fewer leave lines of the register tile empty
_PART_COLUMNS = 128  # with fewer, the transform of the data would be most of a task


class Winograd(Rule):
    """Dense 3x3 convolutions with constant weights and enough channels; see the module."""

    name = "winograd"
    enlarges = True

    def apply(
        self, func: tirx.PrimFunc, constants: frozenset[int], machine: Machine, decisions: Decisions
    ) -> Scheduled | None:
        fused = Fused.of(func)
        conv = None if fused is None else Convolution.of(fused)
        if fused is None or conv is None or not _pays(conv):
            return None
        params = list(func.params)
        which = params.index(conv.weight.source) if conv.weight.source in params else -1
        if which not in constants:
            return None
        # Tiles hang over the edges: rows and columns beyond them are taken for padding.
        conv = dataclasses.replace(
            conv,
            height=dataclasses.replace(conv.height, padded=True),
            width=dataclasses.replace(conv.width, padded=True),
        )
        band = _Band(conv, machine, decisions)
        tile = choose(decisions, machine, conv.outputs, band.known_tiles, 4 * conv.inputs, conv.inputs)
        columns = Columns(conv.outputs, tile)
        shape = (columns.panels, _POINTS, conv.inputs, columns.tile.width)
        panels = tirx.decl_buffer([index(extent) for extent in shape], "float32", conv.weight.source.name)
        params[which] = panels
        unroll = decisions.pick("unroll", UNROLL)
        body = _Writer(fused, conv, band, columns, panels, machine, unroll).write()
        scheduled = vector_math(tirx.PrimFunc(params, body, func.ret_type, func.attrs))
        return Scheduled(scheduled, {which: WinogradPacking(columns.alone)})


def _pays(conv: Convolution) -> bool:
    """Whether it is a convolution that this rule can do, and whether it does it in less time than the direct one."""
    for axis in (conv.height, conv.width):
        if axis.kernel != 3 or axis.stride != 1 or axis.dilation != 1:
            return False
    if conv.groups != 1 or min(conv.inputs, conv.outputs) < _LEAST_CHANNELS:
        return False
    tall, wide = constant(conv.height.out), constant(conv.width.out)
    batch = constant(conv.batch) or 1
    if tall is None or wide is None:
        pixels = _typical_pixels(conv)
        tiles = -(-pixels // OUT**2)
    else:
        pixels, tiles = batch * tall * wide, batch * -(-tall // OUT) * -(-wide // OUT)
    saved = 9 * pixels - _POINTS * tiles
    return saved > (_POINTS - 9) * 16 * _WEIGHT_CYCLES * 4


def _typical_pixels(conv: Convolution) -> int:
    """Pixels of a result of open size: as networks have them by their channels, or more, if the result has a part of
    what the model is given, `height // 8`, and that is an image as networks are trained on.
    """
    by_channels = _TYPICAL_PRODUCT // (conv.inputs * conv.outputs)
    sides = (conv.height.out, conv.width.out)
    if any(isinstance(side, tirx.Var) for side in sides):
        return by_channels
    tall, wide = (at_sizes(side, {}, TYPICAL_SIDE) or 0 for side in sides)
    return max(by_channels, tall * wide)


class _Band:
    """How many rows of tiles a task takes.

    Attributes:
        across: tiles in a row.
        most: rows of tiles of a task at most, None if it is computed when the kernel runs.
        known_tiles: tiles of a task, where known.
    """

    def __init__(self, conv: Convolution, machine: Machine, decisions: Decisions):
        self.across = ceildiv(conv.width.out, OUT)
        self.down = ceildiv(conv.height.out, OUT)
        room = machine.l2_bytes * decisions.pick("l2_percent", _L2_PERCENT) // 100
        self.fit = max(1, room // (4 * _POINTS * conv.inputs))  # tiles
        # Where panels do not give enough tasks, bands do, each of at least some register tiles.
        self.parts = max(1, conv.outputs // _PART_COLUMNS)
        across, down, batch = constant(self.across), constant(self.down), constant(conv.batch) or 1
        self.wanted = -(-_TASKS // (self.parts * batch))
        self.most: int | None = None
        if across is not None and down is not None:
            fair = max(-(-_LEAST_TILES // across), -(-down // self.wanted))
            rows = max(1, min(self.fit // across, fair, down))
            self.most = -(-down // -(-down // rows))
        self.known_tiles = None if self.most is None or across is None else self.most * across


class _Writer:
    """Writes the loops of one convolution."""

    def __init__(
        self,
        fused: Fused,
        conv: Convolution,
        band: _Band,
        columns: Columns,
        panels: tirx.Var,
        machine: Machine,
        unroll: int,
    ):
        self._fused, self._conv, self._columns, self._panels, self._unroll = fused, conv, columns, panels, unroll
        self._code = code = Code()
        self._across = code.opaque("across", band.across)
        down = code.opaque("down", band.down)
        if band.most is None:
            fit = quotient(band.fit, tirx.max(index(1), self._across))
            least = ceildiv(_LEAST_TILES, tirx.max(index(1), self._across))
            fair = tirx.max(index(least), index(ceildiv(down, band.wanted)))
            self._most: Index = code.opaque("most", tirx.max(index(1), tirx.min(tirx.min(fit, fair), down)))
        else:
            self._most = band.most
        self._down = down
        self._lanes = machine.lanes()
        while self._lanes > conv.inputs:
            self._lanes //= 2
        pixels = product([self._across if band.known_tiles is None else constant(band.across) or 1, OUT])
        self._window = Window(code, conv, machine.lanes(), pixels)

    def write(self) -> tirx.Stmt:
        """The body of the function."""
        code, conv, columns = self._code, self._conv, self._columns
        bands = ceildiv(self._down, self._most)
        if not isinstance(bands, int):
            bands = code.opaque("bands", bands)
        parts = self._parts(product([conv.batch, bands]))
        each = ceildiv(columns.panels, parts)
        room = product([ceildiv(product([self._most, self._across]), columns.tile.rows), columns.tile.rows])
        pitch = room if isinstance(room, int) else code.opaque("room", room)
        with code.loop(product([conv.batch, bands, parts]), "task", "parallel") as task:
            rest, part = quotient(task, parts), remainder(task, parts)
            image, number = quotient(rest, bands), remainder(rest, bands)
            first = code.opaque("first", number * self._most)
            rows = code.opaque("rows", tirx.min(index(self._most), self._down - first))
            tiles = code.opaque("tiles", rows * self._across)
            block = Block(code.opaque("image", image), first * OUT, rows * OUT, product([self._most, OUT]))
            data = code.heap("data", product([pitch, _POINTS, conv.inputs]))
            self._transform(self._window.lines(block), rows, data, pitch)
            result = code.heap("result", product([pitch, _POINTS, columns.tile.width]))
            with code.loop(tirx.min(index(each), columns.panels - part * each), "p") as p:
                panel = code.opaque("panel", part * each + p)
                self._multiply(data, result, panel, tiles, pitch)
                self._finish(block, result, panel, rows, pitch)
        return code.stmt()

    def _parts(self, tasks: Index) -> Index:
        """Into how many parts the panels are cut, where there are few tasks otherwise."""
        least = -(-_PART_COLUMNS // self._columns.tile.width)
        most = self._columns.panels // least
        known = constant(tasks)
        if most <= 1:
            return 1
        if known is not None:
            return min(-(-_TASKS // known), most) if known < _TASKS else 1
        few = ceildiv(_TASKS, tirx.max(index(1), index(tasks)))
        return self._code.opaque("parts", tirx.min(index(few), index(most)))

    def _transform(self, lines: Lines, rows: Expr, data: Flat, pitch: Index) -> None:
        """The data of all tiles of the band."""
        code, channels, lanes = self._code, self._conv.inputs, self._lanes
        flat = Flat(lines.buffer)
        with (
            code.loop(rows, "y") as y,
            code.loop(self._across, "x") as x,
            code.loop(-(-channels // lanes), "v") as v,
        ):
            channel = tirx.min(v * lanes, index(channels - lanes))
            start = code.opaque("at", lines.start + y * OUT * lines.pitch + x * (OUT * channels) + channel)
            to = code.opaque("to", (y * self._across + x) * channels + channel)

            def name(value: Expr) -> Expr:
                return code.bind("t", value)

            half = []
            for j in range(IN):
                column = [name(flat.load(start + (lines.pitch * i + j * channels), lanes)) for i in range(IN)]
                half.append([name(value) for value in data_transform(column, name)])
            for i in range(IN):
                for j, value in enumerate(data_transform([half[k][i] for k in range(IN)], name)):
                    data.store(code, to + index(pitch) * ((i * IN + j) * channels), value)

    def _multiply(self, data: Flat, result: Flat, panel: Expr, tiles: Expr, pitch: Index) -> None:
        """The 36 products for one panel of columns."""
        code, columns, channels = self._code, self._columns, self._conv.inputs
        tile = columns.tile
        with code.loop(_POINTS, "q") as q, code.loop(ceildiv(tiles, tile.rows), "t") as t:
            first = code.opaque("row", q * pitch + t * tile.rows)

            def store(i: Expr, column: Expr, value: Expr) -> tirx.Stmt:
                return tirx.BufferStore(result.buffer, value, [(first + i) * tile.width + column])

            write_tile(
                code,
                tile,
                Operands(
                    [("c", channels)],
                    lambda i, ks: tirx.BufferLoad(data.buffer, [(first + i) * channels + ks[0]]),
                    lambda ks, within: tirx.BufferLoad(self._panels, [panel, q, ks[0], within]),
                    unroll=self._unroll,
                ),
                store,
                # Within the panel: where its columns are in the result matters to `_finish` only.
                columns=Columns(tile.width, tile),
                base=index(0),
            )

    def _finish(self, block: Block, result: Flat, panel: Expr, rows: Expr, pitch: Index) -> None:
        """Transform the products of one panel back, and store what lies within the result."""
        code, conv, columns = self._code, self._conv, self._columns
        tile = columns.tile
        base = code.opaque("base", panel_base(panel, columns))
        with (
            code.loop(rows, "y") as y,
            code.loop(self._across, "x") as x,
            code.loop(tile.vectors, "j") as j,
        ):
            start = code.opaque("at", (y * self._across + x) * tile.width + j * tile.lanes)

            def name(value: Expr) -> Expr:
                return code.bind("t", value)

            half = []
            for column in range(IN):
                offsets = [index(pitch) * ((i * IN + column) * tile.width) for i in range(IN)]
                values = [name(result.load(start + offset, tile.lanes)) for offset in offsets]
                half.append([name(value) for value in result_transform(values, name)])
            pixels = code.stack("pixels", OUT * OUT * tile.lanes)
            for i in range(OUT):
                for k, value in enumerate(result_transform([half[column][i] for column in range(IN)], name)):
                    pixels.store(code, (i * OUT + k) * tile.lanes, value)
            top, left = code.opaque("top", block.first + y * OUT), code.opaque("left", x * OUT)
            first = code.opaque("column", base + vector_base(j, columns))
            with (
                code.loop(tirx.min(index(OUT), conv.height.out - top), "r") as r,
                code.loop(tirx.min(index(OUT), conv.width.out - left), "s") as s,
                code.loop(tile.lanes, "l", "vectorized") as lane,
            ):
                value = pixels.load((r * OUT + s) * tile.lanes + lane)
                code.add(self._fused.store([block.image, top + r, left + s, first + lane], value))
