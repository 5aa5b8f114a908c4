"""Convolutions as matrix products whose left side is read through a window: implicit, nothing is unfolded.

    out[n, y, x, f] = epilogue(sum over ry of sum over k of rows[y * stride + ry][x * stride * C + k] *
    weight[ry][k][f])

With channels last, the kernel's columns and the channels of one row of the window are one contiguous run k, so a row
of output pixels is a matrix product whose left rows overlap. A few rows of the data are copied with their padding to a
buffer that stays in the L2 cache: the inner loops have no predicate. The weight is packed as
[group][panel][ry][k][column] at compile time.
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx
from tvm.ir import Expr, Var

from dscc.schedule.base import Rule, Scheduled
from dscc.schedule.code import Code, Index, ceildiv, constant, index, product, quotient, remainder
from dscc.schedule.convolution import Convolution
from dscc.schedule.epilogue import Fused
from dscc.schedule.lines import Block, Lines, Window
from dscc.schedule.machine import Machine
from dscc.schedule.math import vector_math
from dscc.schedule.microkernel import Operands, Partial, has_long_functions, write_tile
from dscc.schedule.tiling import Columns, PanelPacking, choose, panel_base, start_of

_TASKS = 8  # this many keep threads busy, if a block of rows then has at least
_LEAST_ROWS = 4
_TASK_FLOPS = 1_000_000  # less is not worth handing to another thread
_COPY_USES = 60  # multiply-adds of vectors for every element that a task copies


class Conv(Rule):
    """Dense and grouped two-dimensional convolutions with constant weights; see the module."""

    name = "conv"

    def apply(self, func: tirx.PrimFunc, constants: frozenset[int], machine: Machine) -> Scheduled | None:
        fused = Fused.of(func)
        conv = None if fused is None else Convolution.of(fused)
        if fused is None or conv is None or conv.inputs * conv.outputs == 1:
            return None
        params = list(func.params)
        if conv.weight.source not in params or params.index(conv.weight.source) not in constants:
            return None
        which = params.index(conv.weight.source)
        turned = conv.is_one_wide
        if turned:
            conv = conv.turned()
        row_bytes = 4 * conv.width.stride * conv.channels
        columns = Columns(conv.outputs, choose(machine, conv.outputs, constant(conv.width.out), row_bytes))
        packing = PanelPacking(columns, (1, 2, 3, 0), groups=conv.groups)
        depth = conv.height.kernel * conv.width.kernel * conv.inputs
        shape = (conv.groups * columns.panels, depth, columns.tile.width)
        panels = tirx.decl_buffer([index(extent) for extent in shape], "float32", conv.weight.source.name)
        params[which] = panels
        body = _Writer(fused, conv, turned, columns, panels, machine).write()
        return Scheduled(vector_math(tirx.PrimFunc(params, body, func.ret_type, func.attrs)), {which: packing})


class _Writer:
    """Writes the loops of one convolution."""

    def __init__(self, fused: Fused, conv: Convolution, turned: bool, columns: Columns, panels: Var, machine: Machine):
        self._fused, self._conv, self._columns, self._panels, self._machine = fused, conv, columns, panels, machine
        self._code = Code()
        self._turned = turned
        self._wide = constant(conv.width.out)
        self._tiles = ceildiv(conv.width.out, columns.tile.rows)
        if not isinstance(self._tiles, int):
            self._tiles = self._code.opaque("tiles", self._tiles)
        pixels: Index = self._wide if self._wide is not None else index(self._tiles) * columns.tile.rows
        self._window = Window(self._code, conv, machine.lanes(), pixels)
        self._rolled = has_long_functions(fused)

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
        budget = self._machine.l2_bytes // 12
        pitch, tall = constant(self._window.pitch), constant(height.out)
        if pitch is not None and tall is not None:
            fit = (budget // (pitch * conv.channels) - height.reach) // height.stride + 1
            flops = 2 * conv.outputs * height.kernel * conv.width.kernel * conv.channels * (self._wide or 1)
            fair = max(_LEAST_ROWS, -(-tall // _TASKS), -(-_TASK_FLOPS // flops))
            rows = max(1, min(fit, fair, tall))
            return -(-tall // -(-tall // rows))
        lines = quotient(budget, index(self._window.pitch) * conv.channels) - height.reach
        fit = quotient(lines, height.stride) + 1  # less than 1 is made 1 below
        fair = tirx.max(index(_LEAST_ROWS), index(ceildiv(height.out, _TASKS)))
        return self._code.opaque("most", tirx.max(index(1), tirx.min(fit, fair)))

    def _panels_of_task(self, blocks: int | None, panels: int) -> int:
        """All of them, unless there are too few blocks to keep threads busy: every task copies its data anew."""
        conv = self._conv
        if constant(conv.batch) != 1 or blocks is None or blocks >= _TASKS:
            return panels
        uses = conv.height.kernel * conv.width.kernel * self._columns.tile.vectors
        least = -(-_COPY_USES // uses) if self._window.copies else 1
        parts = max(1, min(-(-_TASKS // blocks), panels // least))
        return -(-panels // parts)

    def _panel(self, block: Block, lines: Lines, panel: Expr) -> None:
        """All tiles of the block for one panel of weights."""
        code, conv, columns = self._code, self._conv, self._columns
        group, within = index(0), panel
        if conv.groups > 1:
            within, group = (index(0), panel) if columns.panels == 1 else _divide(panel, columns.panels)
        base = code.opaque("base", group * conv.outputs + panel_base(within, columns))
        depth = conv.width.kernel * conv.inputs
        blocks = 1
        if conv.height.kernel > 1 and conv.height.kernel * depth * columns.tile.width * 4 > self._machine.l2_bytes // 4:
            blocks = conv.height.kernel  # of the reduction: the weights of one do not leave the L2 cache
        sums = None
        if blocks > 1:
            size = product([block.most, self._tiles, columns.tile.rows * columns.tile.width])
            sums = code.heap("sums", size).buffer
        with (
            code.loop(blocks, "part") as part,
            code.loop(block.rows, "y") as y,
            code.loop(self._tiles, "t") as t,
        ):
            self._tile(block, lines, panel, group, base, y, t, None if sums is None else (sums, part))

    def _tile(
        self,
        block: Block,
        lines: Lines,
        panel: Expr,
        group: Expr,
        base: Expr,
        y: Expr,
        t: Expr,
        sums: tuple[Var, Expr] | None,
    ) -> None:
        code, conv, columns = self._code, self._conv, self._columns
        tile, height, width = columns.tile, conv.height, conv.width
        x = t * tile.rows if self._wide is None else start_of(t, tile.rows, self._wide)
        x = code.opaque("x", x)
        at = lines.start + y * height.stride * lines.pitch + x * (width.stride * conv.channels) + group * conv.inputs
        at = code.opaque("at", at)
        joined = conv.groups == 1 and width.dilation == 1
        run = width.kernel * conv.inputs
        depth: list[tuple[str, Index]] = [("ry", height.kernel)]
        depth += [("k", run)] if joined else [("rx", width.kernel), ("rc", conv.inputs)]
        if sums is not None:
            depth[0] = ("ry", 1)

        def position(ks: Sequence[Expr]) -> tuple[Expr, Expr]:
            """Of a term of the sum: where its data is from `at` on, and its number."""
            ry = ks[0] if sums is None else sums[1]
            down = ry * height.dilation * lines.pitch
            if joined:
                return down + ks[1], ry * run + ks[1]
            along = ks[1] * (width.dilation * conv.channels) + ks[2]
            return down + along, ry * run + ks[1] * conv.inputs + ks[2]

        partial = None
        if sums is not None:
            slot = code.bind("slot", (y * self._tiles + t) * (tile.rows * tile.width))

            def place(i: Expr, within: Expr) -> list[Expr]:
                return [slot + i * tile.width + within]

            partial = Partial(
                sums[1],
                height.kernel - 1,
                lambda i, within: tirx.BufferLoad(sums[0], place(i, within)),
                lambda i, within, value: tirx.BufferStore(sums[0], value, place(i, within)),
            )
        write_tile(
            code,
            tile,
            Operands(
                depth,
                lambda i, ks: tirx.BufferLoad(
                    lines.buffer, [at + position(ks)[0] + i * (width.stride * conv.channels)]
                ),
                lambda ks, within: tirx.BufferLoad(self._panels, [panel, position(ks)[1], within]),
            ),
            lambda i, column, value: self._store(block.image, block.first + y, x + i, column, value),
            columns=columns,
            base=base,
            rolled=self._rolled,
            guard=None if self._wide is not None else lambda i: x + i < width.out,
            partial=partial,
        )

    def _store(self, image: Expr, y: Expr, x: Expr, column: Expr, value: Expr) -> tirx.Stmt:
        row, at = (x, y) if self._turned else (y, x)
        return self._fused.store([image, row, at, column], value)


def _divide(number: Expr, by: Index) -> tuple[Expr, Expr]:
    """(remainder, quotient)"""
    return remainder(number, by), quotient(number, by)
