"""Transposed convolutions whose stride is the size of the kernel: every output element has one tap.

    out[n, y * I + i, x * J + j, f] = epilogue(sum over c of data[n, y, x, c] * weight[i, j, c, f])

Many filters: for each (i, j) a matrix product, a tile of pixels by vectors of filters in registers. Few filters (the
last layer of a segmentation network has one): all I * J * F results of a pixel are the lanes of one vector; they are
put in order in a buffer of I output rows, and the epilogue runs along those rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import ir, tirx
from tvm.ir import Expr
from tvm.ir import TensorLoad as Load
from tvm.sym import Analyzer

from dscc.schedule.base import Packing, Rule, Scheduled
from dscc.schedule.code import Code, Flat, Index, broadcast, ceildiv, constant, index, product
from dscc.schedule.decisions import Decisions
from dscc.schedule.epilogue import Fused
from dscc.schedule.loops import each_lanes, worth_threads
from dscc.schedule.machine import Machine
from dscc.schedule.microkernel import has_long_functions
from dscc.schedule.stages import product_of

_PIXELS = 8


@dataclass(frozen=True)
class LanePacking(Packing):
    """(i, j, c, f) to [c][i * j * f], padded with zeros to `lanes`."""

    lanes: int

    def pack(self, weight: np.ndarray) -> np.ndarray:
        channels = weight.shape[2]
        flat = weight.transpose(2, 0, 1, 3).reshape(channels, -1)
        return np.pad(flat, ((0, 0), (0, self.lanes - flat.shape[1])))


@dataclass(frozen=True)
class _Tiling:
    """The operator: loads of data and weight, and the extents; `height` and `width` are those of the data."""

    data: Load
    weight: Load
    batch: Expr
    height: Expr
    width: Expr
    rows: int
    columns: int
    channels: int
    filters: int


class ConvTranspose(Rule):
    """See the module; other strides and paddings are left to the last rule."""

    name = "conv_transpose"

    def apply(
        self, func: tirx.PrimFunc, constants: frozenset[int], machine: Machine, decisions: Decisions
    ) -> Scheduled | None:
        fused = Fused.of(func)
        found = None if fused is None else _tiling(fused)
        if fused is None or found is None:
            return None
        params = list(func.params)
        sources = (found.data.source, found.weight.source)
        if any(source not in params for source in sources):
            return None
        which = params.index(found.weight.source)
        lanes = machine.lanes(32)
        code = Code()
        if found.filters >= lanes:
            _Wide(code, fused, found, code.view(sources[1]), lanes, machine).write()
            return Scheduled(func.with_body(code.stmt()))
        results = found.rows * found.columns * found.filters
        narrow = 1 << (results - 1).bit_length()
        if which not in constants or narrow > lanes:
            return None
        packed = tirx.decl_buffer((found.channels, narrow), "float32", sources[1].name)
        params[which] = packed
        _Narrow(code, fused, found, code.view(packed), narrow, machine).write()
        return Scheduled(tirx.PrimFunc(params, code.stmt(), func.ret_type, func.attrs), {which: LanePacking(narrow)})


def _tiling(fused: Fused) -> _Tiling | None:
    anchor = fused.anchor
    factors = product_of(anchor)
    if factors is None or len(anchor.spatial) != 4:
        return None
    reduced = [var for var in anchor.reduce if constant(anchor.extents[var]) != 1]
    if len(reduced) != 1 or not all(isinstance(f, Load) and len(f.indices) == 4 for f in factors):
        return None
    data, weight = factors
    kernel = [constant(extent) for extent in weight.source.shape]
    height, width = data.source.shape[1:3]
    if any(extent is None for extent in kernel):
        return None
    rows, columns, channels, filters = (int(extent) for extent in kernel if extent is not None)
    n, y, x, f = anchor.spatial
    analyzer = Analyzer()
    for var, extent in anchor.extents.items():
        analyzer.bind(var, ir.Range.from_min_extent(tirx.const(0, "int64"), extent))
    expected = (
        *((a, b) for a, b in zip(data.indices, (n, y // rows, x // columns, reduced[0]), strict=True)),
        *((a, b) for a, b in zip(weight.indices, (y % rows, x % columns, reduced[0], f), strict=True)),
        (anchor.extents[y], height * rows),
        (anchor.extents[x], width * columns),
        (anchor.extents[reduced[0]], index(channels)),
        (data.source.shape[3], index(channels)),
    )
    if not all(analyzer.can_prove_equal(a, b) for a, b in expected):
        return None
    return _Tiling(data, weight, anchor.extents[n], height, width, rows, columns, channels, filters)


class _Writer:
    """What both forms share: a task is one row of the data."""

    def __init__(self, code: Code, fused: Fused, found: _Tiling, weight: Flat, lanes: int, machine: Machine):
        self._code, self._fused, self._found, self._weight, self._lanes = code, fused, found, weight, lanes
        self._machine = machine
        self._data = code.view(found.data.source)
        self._long = has_long_functions(fused)

    def write(self) -> None:
        code, found = self._code, self._found
        rows = product([found.batch, found.height])
        work = [rows, found.width, found.rows * found.columns * found.filters, found.channels]
        with code.loop(rows, "task", "parallel" if worth_threads(work) else "serial") as task:
            image, y = index(0), task
            if constant(found.batch) != 1:
                image, y = task // index(found.height), task % index(found.height)
            self._row(code.bind("image", image), code.bind("y", y), code.bind("line", task * index(found.width)))

    def _row(self, image: Expr, y: Expr, line: Expr) -> None:
        raise NotImplementedError

    def _tiles(self, width: Index) -> list[tuple[Index, int, Expr | bool]]:
        """(number of tiles, pixels of a tile, condition): the last tile is moved back over its neighbour."""
        known = constant(width)
        if known is not None:
            size = min(_PIXELS, known)
            return [(-(-known // size), size, True)]
        size = index(width)
        return [(ceildiv(size, _PIXELS), _PIXELS, size >= _PIXELS), (size, 1, size < _PIXELS)]

    def _multiply(self, pixel: Expr, size: int, weights: list[Expr], step: int) -> Flat:
        """[size][weights] vectors of sums over the channels; weight vector v for channel c: weights[v] + c * step."""
        code, lanes, channels = self._code, self._lanes, self._found.channels
        acc = code.stack("acc", size * len(weights) * lanes)
        for slot in range(size * len(weights)):
            acc.store(code, slot * lanes, broadcast(tirx.const(0.0, "float32"), lanes))
        start = code.bind("start", pixel * channels)
        with code.loop(channels, "c") as c:
            columns = [code.bind("w", self._weight.load(first + c * step, lanes)) for first in weights]
            for t in range(size):
                value = broadcast(code.bind("v", self._data.load(start + t * channels + c)), lanes)
                for v, column in enumerate(columns):
                    at = (t * len(weights) + v) * lanes
                    acc.store(code, at, acc.load(at, lanes) + value * column)
        return acc


class _Wide(_Writer):
    """At least one vector of filters."""

    def _row(self, image: Expr, y: Expr, line: Expr) -> None:
        code, found, lanes = self._code, self._found, self._lanes
        vectors = min(3 if self._machine.vector_registers >= 32 else 1, -(-found.filters // lanes))
        panel = vectors * lanes
        with code.loop(found.rows, "i") as i, code.loop(found.columns, "j") as j:
            with code.loop(-(-found.filters // panel), "p") as p:
                slab = code.bind("slab", (i * found.columns + j) * (found.channels * found.filters))
                firsts = [tirx.min(p * panel + v * lanes, index(found.filters - lanes)) for v in range(vectors)]
                firsts = [code.bind("f", first) for first in firsts]
                for count, size, condition in self._tiles(found.width):
                    with code.when(condition), code.loop(count, "t") as step:
                        x = code.bind("x", tirx.min(step * size, index(found.width) - size))
                        acc = self._multiply(line + x, size, [slab + first for first in firsts], found.filters)
                        self._finish(acc, size, firsts, (image, y * found.rows + i, x, j))

    def _finish(self, acc: Flat, size: int, firsts: list[Expr], at: tuple[Expr, Expr, Expr, Expr]) -> None:
        code, lanes, vectors = self._code, self._lanes, len(firsts)
        image, row, x, j = at
        source = acc
        if self._long:
            source = code.stack("sums", size * vectors * lanes)
            for slot in range(size * vectors):
                source.store(code, slot * lanes, acc.load(slot * lanes, lanes))
        for v, first in enumerate(firsts):
            with code.loop(size, "t", "serial" if self._long else "unrolled") as t:
                with code.loop(lanes, "l", "vectorized") as lane:
                    column = (x + t) * self._found.columns + j
                    value = source.load((t * vectors + v) * lanes + lane)
                    code.add(self._fused.store([image, row, column, first + lane], value))


class _Narrow(_Writer):
    """All results of a pixel in one vector."""

    def _row(self, image: Expr, y: Expr, line: Expr) -> None:
        code, found, lanes = self._code, self._found, self._lanes
        group = found.columns * found.filters  # of neighbouring elements of an output row
        pitch = product([found.width, group])
        rows = code.heap("rows", product([found.rows, pitch]))
        for count, size, condition in self._tiles(found.width):
            with code.when(condition), code.loop(count, "t") as step:
                x = code.bind("x", tirx.min(step * size, index(found.width) - size))
                acc = self._multiply(line + x, size, [index(0)], lanes)
                for t in range(size):
                    for i in range(found.rows):
                        for m in range(group):
                            value = acc.load(t * lanes + i * group + m)
                            rows.store(code, i * index(pitch) + (x + t) * group + m, value)
        with code.loop(found.rows, "i") as i:
            self._epilogue(image, y * found.rows + i, rows, i * index(pitch))

    def _epilogue(self, image: Expr, row: Expr, rows: Flat, start: Expr) -> None:
        code, found = self._code, self._found
        width = product([found.width, found.columns])
        if found.filters == 1:

            def along(base: Expr, count: int) -> None:
                with code.loop(count, "l", "vectorized") as lane:
                    at = base if count == 1 else base + lane
                    code.add(self._fused.store([image, row, at, index(0)], rows.load(start + at)))

            each_lanes(code, width, self._machine.lanes(32), along)
            return
        with code.loop(width, "x") as x, code.loop(found.filters, "f") as f:
            code.add(self._fused.store([image, row, x, f], rows.load(start + x * found.filters + f)))
