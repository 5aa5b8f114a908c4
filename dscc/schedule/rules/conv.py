"""Convolutions as matrix products whose left side is read through a window: implicit, nothing is unfolded.

    out[n, y, x, f] = epilogue(sum over ry of sum over k of rows[y * stride + ry][x * stride * C + k] *
    weight[ry][k][f])

With channels last, the kernel's columns and the channels of one row of the window are one contiguous run k, so a row
of output pixels is a matrix product whose left rows overlap. A few rows of the data are copied with their padding to a
buffer that stays in the L2 cache: the inner loops have no predicate. The weight is packed as
[group][panel][ry][k][column] at compile time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr, Var

from dscc.schedule.base import Rule, Scheduled
from dscc.schedule.code import Code, Index, ceildiv, constant, index, product, quotient, remainder
from dscc.schedule.convolution import Convolution
from dscc.schedule.decisions import Decisions
from dscc.schedule.epilogue import Fused
from dscc.schedule.lines import Block, Lines, Window
from dscc.schedule.loops import worth_threads
from dscc.schedule.machine import Machine
from dscc.schedule.math import vector_math
from dscc.schedule.microkernel import SHORT_RUN, UNROLL, Depth, Operands, Partial, Terms, has_long_functions, write_tile
from dscc.schedule.taps import Taps
from dscc.schedule.tiling import Columns, PanelPacking, choose, panel_base, start_of, vector_base

_TASKS = 8  # this many keep threads busy, if a block of rows then has at least
_LEAST_ROWS = 4
_L2_PARTS = (12, 6, 24)  # the L2 cache in parts of four bytes, of which a block's data takes one: a third of it
_LEAST_PIXELS = 48  # or of so many pixels, if weights are read anew for them: in a tenth of the time of their products
_TASK_FLOPS = 1_000_000  # less is not worth handing to another thread
_DIVISION_STEPS = 4000  # multiply-adds of vectors in a tile beside which a few divisions do not show
_LEAST_IDLE = 0.02  # of all rows of taps: that are on padding, and worth leaving out
_COPY_USES = 36  # multiply-adds of vectors for every element that a task copies


Position = Callable[[Sequence[Expr]], tuple[Expr, Expr]]
"""From the place in the reduction to where the data of a term is, from a pixel's first on, and to its number."""


class Conv(Rule):
    """Dense and grouped two-dimensional convolutions; see the module."""

    name = "conv"

    def apply(
        self, func: tirx.PrimFunc, constants: frozenset[int], machine: Machine, decisions: Decisions
    ) -> Scheduled | None:
        fused = Fused.of(func)
        conv = None if fused is None else Convolution.of(fused)
        if fused is None or conv is None or conv.inputs * conv.outputs == 1:
            return None
        params = list(func.params)
        if conv.weight.source not in params:
            return None
        which = params.index(conv.weight.source)
        turned = conv.is_one_wide
        if turned:
            conv = conv.turned()
        row_bytes = 4 * conv.width.stride * conv.channels
        wide = constant(conv.width.out)
        spare = machine.vector_registers // 16 if wide is None else 0
        columns = Columns(conv.outputs, choose(decisions, machine, conv.outputs, wide, row_bytes, spare=spare))
        packing = PanelPacking(columns.alone, (1, 2, 3, 0), groups=conv.groups)
        depth = conv.height.kernel * conv.width.kernel * conv.inputs
        shape = (conv.groups * columns.panels, depth, columns.tile.width)
        panels = tirx.decl_buffer([index(extent) for extent in shape], "float32", conv.weight.source.name)
        code, known = Code(), which in constants
        if known:
            params[which] = panels
        else:
            _pack_here(code, conv.weight.source, panels, columns)
        code.add(Writer(fused, conv, turned, columns, panels, machine, decisions).write())
        body = vector_math(tirx.PrimFunc(params, code.stmt(), func.ret_type, func.attrs))
        return Scheduled(body, {which: packing} if known else {})


@dataclass(frozen=True)
class _Pixels:
    """The pixels of a tile, as functions of the row within the tile.

    Attributes:
        start: where the data of its window starts.
        row, column: where it is in the block.
        guard: whether it is stored; None if all are.
        number: of the tile within the block.
    """

    start: Callable[[Expr], Expr]
    row: Callable[[Expr], Expr]
    column: Callable[[Expr], Expr]
    guard: Callable[[Expr], Expr] | None
    number: Expr


class Writer:
    """Writes the loops of one convolution."""

    def __init__(
        self,
        fused: Fused,
        conv: Convolution,
        turned: bool,
        columns: Columns,
        panels: Var,
        machine: Machine,
        decisions: Decisions,
    ):
        self._fused, self._conv, self._columns, self._panels, self._machine = fused, conv, columns, panels, machine
        self._decisions, self._unroll = decisions, decisions.pick("unroll", UNROLL)
        self._code = Code()
        self._turned = turned
        self._channels, self._unit = conv.channels, 1  # of a pixel in the copied data; those that a term takes at once
        self._wide = constant(conv.width.out)
        self._tiles = ceildiv(conv.width.out, columns.tile.rows)
        if not isinstance(self._tiles, int):
            self._tiles = self._code.opaque("tiles", self._tiles)
        depth = conv.height.kernel * conv.width.kernel * conv.inputs
        steps = depth * columns.tile.rows * columns.tile.vectors
        self._across_rows = self._wide is None and steps >= _DIVISION_STEPS
        rounded = self._wide is None and not self._across_rows
        pixels = index(self._tiles) * columns.tile.rows if rounded else conv.width.out
        self._down, self._along = self._reached()
        self._window = self._make_window(pixels if self._wide is None else self._wide)
        self._rolled = has_long_functions(fused)
        weights = 4 * depth * conv.groups * columns.panels * columns.tile.width
        self._large_weights = weights > machine.l2_bytes // 2
        self._joined = conv.groups == 1 and conv.width.dilation == 1  # columns and channels of a window are one run
        self._skips = self._skips_padding()

    def _reached(self) -> tuple[Taps, Taps]:
        """The taps that are multiplied, down and along."""
        return Taps.reached(self._code, self._conv.height), Taps.reached(self._code, self._conv.width)

    def _skips_padding(self) -> bool:
        """Whether a tile leaves out the taps that lie on padding for all of its pixels.

        The loop over taps is not unrolled then, which shows unless the loops within are long.
        """
        height, width, idle = self._conv.height, self._conv.width, Taps.idle(self._conv.height)
        long = width.kernel * self._conv.inputs > SHORT_RUN
        return height.padded and height.kernel > 1 and long and (idle is None or idle > _LEAST_IDLE)

    def _make_window(self, pixels: Index) -> Window:
        taps = (self._down, self._along)
        return Window(self._code, self._conv, self._machine.lanes(), pixels, taps=taps)

    def write(self) -> tirx.Stmt:
        """The body of the function."""
        code, conv, columns = self._code, self._conv, self._columns
        most = self._rows_of_block()
        tall = conv.height.out
        blocks = ceildiv(tall, most)
        if not isinstance(blocks, int):
            blocks = code.opaque("blocks", blocks)
        panels = conv.groups * columns.panels
        per_task = self._panels_of_task(constant(blocks), panels)
        parts = -(-panels // per_task)
        with code.loop(product([conv.batch, blocks, parts]), "task", "parallel") as task:
            part, rest = (index(0), task) if parts == 1 else _divide(task, parts)
            number, image = (rest, index(0)) if constant(conv.batch) == 1 else _divide(rest, blocks)
            first = code.opaque("first", number * most)
            rows: Index = most
            known = constant(tall)
            if not (isinstance(most, int) and known is not None and known % most == 0):
                rows = code.opaque("rows", tirx.min(index(most), tall - first))
            block = Block(code.opaque("image", image), first, rows, most)
            lines = self._window.lines(block)
            here: Index = per_task
            if panels % per_task:
                here = tirx.min(index(per_task), index(panels) - part * per_task)
            with code.loop(here, "p") as p:
                self._panel(block, lines, part * per_task + p)
        return code.stmt()

    def _rows_of_block(self) -> Index:
        """Output rows of one task: their data stays in a third of the L2 cache, and there is work for all threads."""
        conv, height = self._conv, self._conv.height
        budget = self._machine.l2_bytes // self._decisions.pick("l2_parts", _L2_PARTS)  # elements
        # What a window reaches beyond its block is copied for every block: at most twice as much as the block itself.
        pitch, tall, reach = constant(self._window.pitch), constant(height.out), constant(self._down.reach)
        taps = constant(product([self._down.count, self._along.count]))
        if pitch is not None and tall is not None and reach is not None and taps is not None:
            half = reach // 2 // height.stride
            least = max(_LEAST_ROWS, half)
            fit = (budget // (pitch * conv.channels) - reach) // height.stride + 1
            flops = 2 * conv.outputs * taps * conv.channels * (self._wide or 1)
            fair = max(least, -(-tall // _TASKS), -(-_TASK_FLOPS // flops))
            rows = max(1, min(max(fit, half), fair, tall))
            even = -(-tall // -(-tall // rows))
            others = [max(1, even // 2), min(tall, 2 * even), tall]
            return self._decisions.pick("rows", list(dict.fromkeys([even, *others])))
        around = quotient(quotient(self._down.reach, 2), height.stride)
        lines = quotient(budget, index(self._window.pitch) * conv.channels) - self._down.reach
        fit = quotient(lines, height.stride) + 1  # less than 1 is made 1 below
        fair = tirx.max(tirx.max(index(_LEAST_ROWS), around), index(ceildiv(height.out, _TASKS)))
        if self._large_weights:
            # Every block reads all of them, from beyond the L2 cache: few blocks, of pixels enough.
            panels = conv.groups * self._columns.panels
            parts = -(-panels // self._panels_of_task(None, panels))
            wanted = -(-_TASKS // (parts * (constant(conv.batch) or 1)))
            fewest = ceildiv(_LEAST_PIXELS, tirx.max(index(1), index(conv.width.out)))
            fair = tirx.max(index(fewest), index(ceildiv(height.out, wanted)))
        return self._code.opaque("most", tirx.max(index(1), tirx.min(tirx.max(fit, around), fair)))

    def _panels_of_task(self, blocks: int | None, panels: int) -> int:
        """All of them, unless there are too few blocks to keep threads busy: every task copies its data anew."""
        conv = self._conv
        if blocks is None and not self._large_weights:
            return panels
        tasks = (blocks or 1) * (constant(conv.batch) or 1)
        if blocks is not None and tasks >= _TASKS:
            return panels
        uses = conv.height.kernel * conv.width.kernel * self._columns.tile.vectors
        least = -(-_COPY_USES // uses) if self._window.copies else 1
        parts = max(1, min(-(-_TASKS // tasks), panels // least))
        return -(-panels // parts)

    def _panel(self, block: Block, lines: Lines, panel: Expr) -> None:
        """All tiles of the block for one panel of weights."""
        code, conv, columns = self._code, self._conv, self._columns
        group, within = index(0), panel
        if conv.groups > 1:
            within, group = (index(0), panel) if columns.panels == 1 else _divide(panel, columns.panels)
        base = code.opaque("base", group * conv.outputs + panel_base(within, columns))
        depth = conv.width.kernel * conv.inputs
        blocks: Index = 1
        panel_bytes = conv.height.kernel * depth * columns.tile.width * 4
        if self._unit == 1 and conv.height.kernel > 1 and panel_bytes > self._machine.l2_bytes // 4:
            blocks = self._down.count  # of the reduction: the weights of one do not leave the L2 cache
        tiles = self._tiles
        if self._across_rows:
            tiles = code.opaque("tiles", ceildiv(block.rows * conv.width.out, columns.tile.rows))
        sums = None
        if constant(blocks) != 1:
            size = product([block.most, self._tiles, columns.tile.rows * columns.tile.width])
            sums = code.heap("sums", size).buffer
        with (
            code.loop(blocks, "part") as part,
            code.loop(1 if self._across_rows else block.rows, "y") as y,
            code.loop(tiles, "t") as t,
        ):
            pixels = self._pixels(block, lines, group, y, t)
            self._tile(block, lines, panel, base, pixels, None if sums is None else (sums, part))

    def _pixels(self, block: Block, lines: Lines, group: Expr, y: Expr, t: Expr) -> _Pixels:
        """The pixels of tile `t`: of row `y`, or of all rows one after the other."""
        code, tile, height, width = self._code, self._columns.tile, self._conv.height, self._conv.width
        down, along = height.stride * lines.pitch, width.stride * self._channels
        start = lines.start + group * self._conv.inputs
        if not self._across_rows:
            x = t * tile.rows if self._wide is None else start_of(t, tile.rows, self._wide)
            x = code.opaque("x", x)
            at = code.opaque("at", start + y * down + x * along)
            guard = None if self._wide is not None else lambda i: x + i < width.out
            return _Pixels(lambda i: at + i * along, lambda i: y, lambda i: x + i, guard, y * self._tiles + t)
        # The last pixel stands for those beyond the block, which are computed and not stored.
        count = code.opaque("pixels", block.rows * width.out)
        ats, ys, xs = (code.stack(name, tile.rows, "int64") for name in ("ats", "ys", "xs"))
        with code.loop(tile.rows, "i", "unrolled") as i:
            pixel = tirx.min(t * tile.rows + i, count - 1)
            ys.store(code, i, quotient(pixel, width.out))
            xs.store(code, i, pixel - ys.load(i) * width.out)
            ats.store(code, i, start + ys.load(i) * down + xs.load(i) * along)
        return _Pixels(ats.load, ys.load, xs.load, lambda i: t * tile.rows + i < count, t)

    def _tile(
        self,
        block: Block,
        lines: Lines,
        panel: Expr,
        base: Expr,
        pixels: _Pixels,
        sums: tuple[Var, Expr] | None,
    ) -> None:
        code, conv, columns = self._code, self._conv, self._columns
        tile, height, width = columns.tile, conv.height, conv.width
        inputs = self._channels // conv.groups // self._unit
        run = width.kernel * inputs
        (top, tall), (left, wide) = self._taps_of(block, pixels)
        depth: list[tuple[str, Index]] = [("ry", tall)]
        depth += [("k", product([wide, inputs]))] if self._joined else [("rx", wide), ("rc", inputs)]
        first = self._down.first * run + self._along.first * inputs
        if sums is not None:
            depth[0] = ("ry", tirx.Cast("int64", tirx.all(top <= sums[1], sums[1] < top + tall)) if self._skips else 1)

        def position(ks: Sequence[Expr]) -> tuple[Expr, Expr]:
            ry = ks[0] + top if sums is None else sums[1]
            down = ry * height.dilation * lines.pitch
            if self._joined:
                return down + ks[1] * self._unit, first + ry * run + ks[1]
            rx = ks[1] + left
            along = rx * (width.dilation * self._channels) + ks[2] * self._unit
            return down + along, first + ry * run + rx * inputs + ks[2]

        partial = None
        if sums is not None:
            slot = code.bind("slot", pixels.number * (tile.rows * tile.width))

            def place(i: Expr, within: Expr) -> list[Expr]:
                return [slot + i * tile.width + within]

            partial = Partial(
                sums[1],
                self._down.count - 1,
                lambda i, within: tirx.BufferLoad(sums[0], place(i, within)),
                lambda i, within, value: tirx.BufferStore(sums[0], value, place(i, within)),
            )
        write_tile(
            code,
            tile,
            self._terms(lines, panel, depth, pixels.start, position),
            lambda i, column, value: self._store(
                block.image, block.first + pixels.row(i), pixels.column(i), column, value
            ),
            columns=columns,
            base=base,
            rolled=self._rolled,
            guard=pixels.guard,
            partial=partial,
        )

    def _taps_of(self, block: Block, pixels: _Pixels) -> tuple[tuple[Expr, Index], tuple[Expr, Index]]:
        """Down and along, the taps that a tile multiplies: which is the first, and how many."""
        height, width = self._conv.height, self._conv.width
        along: tuple[Expr, Index] = (index(0), self._along.count)
        if not self._skips:
            return (index(0), self._down.count), along
        at = (index(0), index(self._columns.tile.rows - 1))
        rows = [block.first + pixels.row(i) for i in at]
        if width.padded and not self._joined:
            same = tirx.EQ(*rows)
            left, right = (
                tirx.Select(same, pixels.column(i), edge) for i, edge in zip(at, (index(0), width.out - 1), strict=True)
            )
            along = self._along.within(self._code, width, left, right)
        return self._down.within(self._code, height, *rows), along

    def _terms(
        self, lines: Lines, panel: Expr, depth: Depth, start: Callable[[Expr], Expr], position: Position
    ) -> Terms:
        """What a tile sums up, whose rows start at `start` in the lines."""
        return Operands(
            depth,
            lambda i, ks: tirx.BufferLoad(lines.buffer, [start(i) + position(ks)[0]]),
            lambda ks, within: tirx.BufferLoad(self._panels, [panel, position(ks)[1], within]),
            unroll=self._unroll,
        )

    def _store(self, image: Expr, y: Expr, x: Expr, column: Expr, value: Expr) -> tirx.Stmt:
        row, at = (x, y) if self._turned else (y, x)
        return self._fused.store([image, row, at, column], value)


def _pack_here(code: Code, source: Var, panels: Var, columns: Columns) -> None:
    """Fill `panels` with the columns of `source`, as `PanelPacking` does, when the kernel runs."""
    weight, (count, depth, width) = code.view(source), (int(extent) for extent in panels.shape)
    code.add(tirx.AllocBuffer(panels))
    lanes = columns.tile.lanes
    with code.loop(count, "panel", "parallel" if worth_threads([count, depth, width]) else "serial") as panel:
        group, within = quotient(panel, columns.panels), remainder(panel, columns.panels)
        base = code.bind("base", group * columns.count + panel_base(within, columns))
        with code.loop(columns.tile.vectors, "v") as v, code.loop(lanes, "l") as lane:
            # Padding repeats the last column: nothing of it is stored.
            column = tirx.min(lane, index(columns.count - 1)) if columns.padded else vector_base(v, columns) + lane
            start = code.bind("start", (base + column) * depth)
            with code.loop(depth, "k") as k:
                code.add(tirx.BufferStore(panels, weight.load(start + k), [panel, k, v * lanes + lane]))


def _divide(number: Expr, by: Index) -> tuple[Expr, Expr]:
    """(remainder, quotient)"""
    return remainder(number, by), quotient(number, by)
