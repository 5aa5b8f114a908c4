"""Convolutions with fewer outputs than the shortest vector has lanes: the lanes take the depth of the sums instead.

    sum[f, x] = vectors along k of rows[y * stride + ry][x * stride * C + k] * weight[f][ry][k], added up over ry
    out[n, y, x, f] = epilogue(the lanes of sum[f, x] added up)

With channels last, one row of a window is a contiguous run k. Some pixels at once share the loads of the weight; what
follows the sums is done for a vector of neighbouring pixels. The weight is packed as [f][ry][k], each run padded to
whole vectors; of the data, the lanes beyond a run are masked, since they may hold anything.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import tirx
from tvm.ir import Expr

from dscc.schedule.base import Packing, Rule, Scheduled
from dscc.schedule.code import (
    Code,
    Flat,
    Index,
    broadcast,
    ceildiv,
    constant,
    first_lanes,
    index,
    product,
    quotient,
    remainder,
)
from dscc.schedule.convolution import Convolution
from dscc.schedule.decisions import Decisions
from dscc.schedule.epilogue import Fused
from dscc.schedule.lines import Block, Lines, Window
from dscc.schedule.machine import Machine
from dscc.schedule.math import vector_math
from dscc.schedule.tiling import start_of

_MOST_OUTPUTS = 3
_SUMS = 8  # in registers at once: enough to hide the latency of a multiply-add
_TASKS = 8
_L2_PARTS = 12  # the L2 cache in parts of four bytes, of which a block's data takes one: a third of it


@dataclass(frozen=True)
class RunPacking(Packing):
    """Weights (F, rows, columns, C) as [F][rows][columns * C], each run padded with zeros to a multiple of `lanes`.

    Attributes:
        rows: of the window as the kernel sees it: one where it has one column.
    """

    rows: int
    lanes: int

    def pack(self, weight: np.ndarray) -> np.ndarray:
        runs = weight.reshape(weight.shape[0], self.rows, -1)
        return np.pad(runs, ((0, 0), (0, 0), (0, -runs.shape[2] % self.lanes)))


class Narrow(Rule):
    """Convolutions with constant weights, of one to three outputs; see the module."""

    name = "narrow"

    def apply(
        self, func: tirx.PrimFunc, constants: frozenset[int], machine: Machine, decisions: Decisions
    ) -> Scheduled | None:
        fused = Fused.of(func)
        conv = None if fused is None else Convolution.of(fused)
        if fused is None or conv is None or conv.groups != 1 or conv.outputs > _MOST_OUTPUTS:
            return None
        params, weight = list(func.params), conv.weight.source
        kinds = (str(weight.dtype), str(fused.anchor.buffer.dtype))
        if weight not in params or params.index(weight) not in constants or kinds != ("float32", "float32"):
            return None
        if conv.width.dilation != 1 and conv.width.kernel != 1:
            return None
        which = params.index(weight)
        turned = conv.is_one_wide
        if turned:
            conv = conv.turned()
        run, lanes = conv.width.kernel * conv.inputs, machine.lanes()
        if run < lanes:
            return None
        shape = (conv.outputs, conv.height.kernel, -(-run // lanes) * lanes)
        params[which] = packed = tirx.decl_buffer([index(extent) for extent in shape], "float32", weight.name)
        body = _Writer(fused, conv, turned, packed, machine).write()
        scheduled = tirx.PrimFunc(params, body, func.ret_type, func.attrs)
        return Scheduled(vector_math(scheduled), {which: RunPacking(conv.height.kernel, lanes)})


class _Writer:
    """Writes the loops of one convolution."""

    def __init__(self, fused: Fused, conv: Convolution, turned: bool, packed: tirx.Var, machine: Machine):
        self._fused, self._conv, self._turned, self._machine = fused, conv, turned, machine
        self._code = code = Code()
        self._lanes, self._run = machine.lanes(), conv.width.kernel * conv.inputs
        self._weight = code.view(packed)
        wide = constant(conv.width.out)
        self._wide: Index = code.opaque("wide", conv.width.out) if wide is None else wide
        self._window = Window(code, conv, self._lanes, self._wide)

    def write(self) -> tirx.Stmt:
        """The body of the function."""
        code, wide = self._code, constant(self._wide)
        if wide is not None:
            size = self._lanes
            while size > wide:
                size //= 2
            self._image(size)
            return code.stmt()
        enough = tirx.GE(self._wide, index(self._lanes))
        with code.when(enough):
            self._image(self._lanes)
        with code.when(tirx.Not(enough)):
            self._image(1)
        return code.stmt()

    def _image(self, size: int) -> None:
        """All pixels, in groups of `size` side by side."""
        code, conv = self._code, self._conv
        most = self._rows_of_block()
        blocks = ceildiv(conv.height.out, most)
        if not isinstance(blocks, int):
            blocks = code.opaque("blocks", blocks)
        groups = ceildiv(self._wide, size)
        if not isinstance(groups, int):
            groups = code.opaque("groups", groups)
        # A single row is cut up as well, where that does not repeat the copying of its data.
        parts = _TASKS if blocks == 1 and not self._window.copies else 1
        each = ceildiv(groups, parts)
        with code.loop(product([conv.batch, blocks, parts]), "task", "parallel") as task:
            rest, part = (task, index(0)) if parts == 1 else (quotient(task, parts), remainder(task, parts))
            image, number = quotient(rest, blocks), remainder(rest, blocks)
            first = code.opaque("first", number * most)
            rows = code.opaque("rows", tirx.min(index(most), conv.height.out - first))
            block = Block(code.opaque("image", image), first, rows, most)
            lines = self._window.lines(block)
            here = code.opaque("here", tirx.min(index(each), index(groups) - part * each))
            with code.loop(rows, "y") as y, code.loop(here, "g") as g:
                x = code.opaque("x", start_of(part * each + g, size, self._wide))
                self._group(block, lines, y, x, size)

    def _rows_of_block(self) -> Index:
        """Output rows of one task: their data stays in a third of the L2 cache, and there is work for all threads."""
        conv, height = self._conv, self._conv.height
        budget = self._machine.l2_bytes // _L2_PARTS  # elements
        fair, tall = ceildiv(height.out, _TASKS), constant(height.out)
        row = product([self._window.pitch, conv.channels])
        if isinstance(row, int) and isinstance(fair, int) and tall is not None:
            return max(1, min((budget // row - height.reach) // height.stride + 1, fair))
        fit = quotient(quotient(budget, row) - height.reach, height.stride) + 1  # less than 1 is made 1
        return self._code.opaque("most", tirx.max(index(1), tirx.min(fit, index(fair))))

    def _group(self, block: Block, lines: Lines, y: Expr, x: Expr, size: int) -> None:
        """`size` pixels of one row from x on: a few at a time, then the epilogue for all."""
        code, conv, outputs = self._code, self._conv, self._conv.outputs
        results = code.stack("results", outputs * size)
        few = min(size, max(1, 1 << (_SUMS // outputs).bit_length() - 1))
        at = lines.start + y * conv.height.stride * lines.pitch + x * (conv.width.stride * conv.channels)
        at = code.opaque("at", at)
        with code.loop(size // few, "s") as s:
            here = code.opaque("here", at + s * (few * conv.width.stride * conv.channels))
            for f, sums in enumerate(self._sums(Flat(lines.buffer), here, lines.pitch, few)):
                for p, vector in enumerate(sums):
                    total = code.fold(vector.load(0, self._lanes), lambda a, b: a + b)
                    results.store(code, s * few + (f * size + p), total)
        for f in range(outputs):
            with code.loop(size, "l", "vectorized") as lane:
                code.add(self._store(block.image, block.first + y, x + lane, index(f), results.load(lane + f * size)))

    def _sums(self, data: Flat, start: Expr, pitch: Index, pixels: int) -> list[list[Flat]]:
        """For every output and pixel the vector of sums; the window of the first pixel begins at `start`."""
        code, conv, lanes = self._code, self._conv, self._lanes
        step = conv.width.stride * conv.channels
        sums = [[code.stack("sum", lanes) for _ in range(pixels)] for _ in range(conv.outputs)]
        zero = broadcast(tirx.const(0.0, "float32"), lanes)
        for vector in (vector for some in sums for vector in some):
            vector.store(code, 0, zero)
        full, rest = divmod(self._run, lanes)
        padded = -(-self._run // lanes) * lanes

        def add(ry: Expr, k: Expr, mask: Expr | None) -> None:
            rows = [(index(f * conv.height.kernel) + ry) * padded + k for f in range(conv.outputs)]
            weights = [code.bind("weight", self._weight.load(row, lanes)) for row in rows]
            line = code.bind("line", start + ry * conv.height.dilation * pitch + k)
            for p in range(pixels):
                value = data.load(line + p * step, lanes, mask=mask)
                value = code.bind("value", value if mask is None else tirx.Select(mask, value, zero))
                for f, weight in enumerate(weights):
                    sums[f][p].store(code, 0, sums[f][p].load(0, lanes) + value * weight)

        with code.loop(conv.height.kernel, "ry") as ry:
            with code.loop(full, "v") as v:
                add(ry, v * lanes, None)
            if rest:
                add(ry, index(full * lanes), first_lanes(index(rest), lanes))
        return sums

    def _store(self, image: Expr, y: Expr, x: Expr, f: Expr, value: Expr) -> tirx.Stmt:
        row, at = (x, y) if self._turned else (y, x)
        return self._fused.store([image, row, at, f], value)
