"""Loops for any formula: vectors inside, full ones first, never a condition per lane; parallel outside.

    y[r * C + c] = f(x[r * C + c], b[c])      r: parallel;  c: C // 16 vectors, the last one moved back

An extent that is no multiple of the vector's length ends with a vector that overlaps its neighbour and writes the same
values once more; below one vector, elements are written one by one. Reductions accumulate in registers, several vectors
wide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tvm_ffi
from tvm import ir, tirx
from tvm.ir import Expr, Var
from tvm.ir import TensorLoad as Load
from tvm.sym import Analyzer

from dscc.schedule.code import Code, Index, constant, divisor, index, product
from dscc.schedule.collapse import Flattened, View, collapse
from dscc.schedule.domain import Interval, bounded, is_if_then_else, pieces
from dscc.schedule.machine import Machine
from dscc.schedule.math import is_chain
from dscc.schedule.stages import Stage, loads
from dscc.schedule.strides import has_condition_on, stride
from dscc.schedule.transpose import Turned

_PARALLEL_ELEMENTS = 16 * 1024  # below this a second thread costs more than it saves
_CHUNK_ELEMENTS = 8 * 1024  # 32 KB of float32 per task where one loop is cut up

_WIDE = 4  # vectors of accumulators of a reduction

Body = Callable[[Expr, int], None]


def write_formula(code: Code, stage: Stage, view: View, machine: Machine, once: bool = False) -> None:
    """Write a formula without reduction; `once`: no element is computed twice, as vectors that overlap would."""
    analyzer = bounded(stage.extents)
    for piece in pieces(stage.value, stage.extents):
        flat = collapse(stage.buffer, stage.indices, piece.value, piece.where, view, analyzer)
        _write_flat(code, flat, machine, analyzer, once)


def _write_flat(code: Code, flat: Flattened, machine: Machine, analyzer: Analyzer, once: bool) -> None:
    def store(at: Sequence[Expr], value: Expr | None = None) -> None:
        code.add(tirx.BufferStore(flat.target.buffer, flat.value(at) if value is None else value, [flat.place(at)]))

    def vectors(at: Sequence[Expr]) -> Body:
        def write(base: Expr, width: int) -> None:
            same = None
            if same_along:  # VectorizeLoop of TVM 0.27 fails on a function of a scalar
                same = code.remembered(flat.value((*at, base)))
            with code.loop(width, "l", "vectorized") as lane:
                store((*at, base if width == 1 else base + lane), same)

        return write

    if not flat.axes:
        store(())
        return
    *outer, inner = flat.axes
    lanes = machine.lanes(32)
    parallel = worth_threads([axis.extent for axis in flat.axes])
    vector = is_vector(flat, analyzer)
    same_along = vector and _is_same_along(flat)
    if not outer:
        if vector:
            chunked_lanes(code, inner.extent, lanes, parallel, vectors(()), once)
        else:
            with code.loop(inner.extent, "i", "parallel" if parallel else "serial") as i:
                store((i,))
        return
    turned = None if vector else Turned.of(flat, analyzer)
    fits = turned is not None and turned.fits(lanes)
    if turned is not None:
        others, _, _ = turned.extents()
        with code.when(fits), nest(code, [*others, turned.strips(lanes)], parallel) as at:
            turned.write(code, at[:-1], at[-1], lanes)
    with code.when(tirx.Not(fits) if isinstance(fits, Expr) else not fits):
        with nest(code, [axis.extent for axis in outer], parallel) as at:
            if vector:
                each_lanes(code, inner.extent, lanes, vectors(at), once)
            else:
                with code.loop(inner.extent, "i") as i:
                    store((*at, i), _with_loads_in_memory(code, flat.value((*at, i))))


def _with_loads_in_memory(code: Code, value: Expr) -> Expr:
    """`value`, what it reads put into memory before, where it is a function of that.

    TVM 0.27's simplifier goes through the argument of a power some hundred times; where it is read at a place of three
    open sizes, that took a minute.
    """
    calls: list[ir.Call] = []
    tvm_ffi.structural_walk(value, (ir.Call, calls.append))
    if not any(map(is_chain, calls)) or any(map(is_if_then_else, calls)):
        return value

    return tvm_ffi.structural_map(value, (Load, code.remembered))


def _is_same_along(flat: Flattened) -> bool:
    """Whether all that the innermost loop stores is the same function of what does not depend on it."""
    names = [Var(f"i{n}", "int64") for n in range(len(flat.axes))]
    value = flat.value(names)
    used = tirx.analysis.undefined_vars(value)
    plain = isinstance(value, Load | tirx.FloatImm | tirx.IntImm)
    return not plain and not any(var.same_as(names[-1]) for var in used)


def worth_threads(extents: Sequence[Index]) -> bool:
    """Whether loops with these extents should run on several threads; sizes that are not known count as large."""
    size = constant(product(extents))
    return size is None or size >= _PARALLEL_ELEMENTS


class nest:
    """Nested loops, the outermost one parallel; yields their indices.

    An outermost loop that may be short (a batch) is fused with the next one, so that there is work for every thread.
    """

    def __init__(self, code: Code, extents: Sequence[Index], parallel: bool):
        self._code, self._extents = code, list(extents)
        first = constant(self._extents[0]) if self._extents else None
        self._fuse = parallel and len(self._extents) > 1 and (first is None or first < 16)
        if self._fuse:
            self._extents[:2] = [product(self._extents[:2])]
        self._second = divisor(extents[1]) if self._fuse else None
        kinds = ["parallel" if parallel else "serial", *["serial"] * len(self._extents)]
        self._loops = [
            code.loop(extent, f"i{n}", kind) for n, (extent, kind) in enumerate(zip(self._extents, kinds, strict=False))
        ]

    def __enter__(self) -> tuple[Expr, ...]:
        at = [loop.__enter__() for loop in self._loops]
        if self._second is not None:
            at[:1] = [self._code.bind("i", at[0] // self._second), self._code.bind("i", at[0] % self._second)]
        return tuple(at)

    def __exit__(self, *error: object) -> None:
        for loop in reversed(self._loops):
            loop.__exit__(None, None, None)


def each_lanes(code: Code, extent: Index, lanes: int, body: Body, once: bool = False) -> None:
    """Write `body(first, width)` so that all of `extent` is covered by vectors of `lanes`; see the module."""
    known = constant(extent)
    if known is not None:
        for first, width, times in static_cover(known, lanes, once):
            with code.loop(times, "j") as j:
                body(index(first) + j * width, width)
        return
    size = index(extent)
    with code.when(size >= lanes):
        with code.loop(size // lanes, "j") as j:
            body(j * lanes, lanes)
        _rest(code, size, lanes, body, once)
    with code.when(size < lanes), code.loop(size, "j") as j:
        body(j, 1)


def _rest(code: Code, size: Expr, lanes: int, body: Body, once: bool) -> None:
    """What is left behind the whole vectors: a vector that overlaps the last one, or element by element."""
    if once:
        with code.loop(size % lanes, "j") as j:
            body(size // lanes * lanes + j, 1)
        return
    with code.when(size % lanes > 0):
        body(size - lanes, lanes)


def static_cover(extent: int, lanes: int, once: bool = False) -> list[tuple[int, int, int]]:
    """(first, width, times): vectors that cover `extent`; the last one may overlap its neighbour unless `once`."""
    while lanes > extent:
        lanes //= 2
    if lanes <= 1:
        return [(0, 1, extent)] if extent else []
    cover = [(0, lanes, extent // lanes)]
    rest = extent % lanes
    if rest:
        cover.append((extent - rest, 1, rest) if once else (extent - lanes, lanes, 1))
    return cover


def chunked_lanes(code: Code, extent: Index, lanes: int, parallel: bool, body: Body, once: bool = False) -> None:
    """The same for the only loop there is, which is cut into tasks of some 32 KB."""
    if not parallel:
        each_lanes(code, extent, lanes, body, once)
        return
    size = index(extent)
    vectors = size // lanes
    per_task = _CHUNK_ELEMENTS // lanes
    with code.when(size >= lanes):
        with code.loop((vectors + (per_task - 1)) // per_task, "task", "parallel") as task:
            first = code.bind("first", task * per_task)
            with code.loop(tirx.min(vectors - first, index(per_task)), "j") as j:
                body((first + j) * lanes, lanes)
        _rest(code, size, lanes, body, once)
    with code.when(size < lanes), code.loop(size, "j") as j:
        body(j, 1)


def is_vector(flat: Flattened, analyzer: Analyzer) -> bool:
    """Whether the innermost loop stores side by side, reads so or one element only, and has no condition of its own."""
    names = [Var(f"i{n}", "int64") for n in range(len(flat.axes))]
    inner = names[-1]
    if stride(flat.place(names), inner, analyzer) != 1:
        return False
    value = flat.value(names)
    if any(stride(node.indices[0], inner, analyzer) not in (0, 1) for node in loads(value)):
        return False
    return not has_condition_on(value, inner)


def write_reduction(code: Code, stage: Stage, view: View, machine: Machine) -> None:
    """Write a formula with a reduction: accumulators in registers, over neighbouring results if these are vectors."""
    analyzer = bounded(stage.extents)
    where = {var: Interval(tirx.const(0, var.ty.dtype), extent) for var, extent in stage.extents.items()}
    inner = next((var for var in reversed(stage.spatial) if constant(stage.extents[var]) != 1), None)
    keep = frozenset([*stage.reduce, *([inner] if inner is not None else [])])
    flat = collapse(stage.buffer, stage.indices, stage.value, where, view, analyzer, keep)
    parallel = worth_threads([axis.extent for axis in flat.axes])
    writer = Reduction(code, stage, flat)
    if writer.along and writer.is_vector_along_result(analyzer):
        with nest(code, writer.along[:-1], parallel and len(writer.along) > 1) as at:
            writer.tiles(at, machine.lanes(32))
        return
    with nest(code, writer.along, parallel and bool(writer.along)) as at:
        writer.scalar(at)


class Reduction:
    """The inner part of a reduction."""

    def __init__(self, code: Code, stage: Stage, flat: Flattened):
        self._code, self._stage, self._flat = code, stage, flat
        axes = range(len(flat.axes))
        self.reduce = [i for i in axes if flat.axes[i].vars[0] in stage.reduce]
        self.spatial = [i for i in axes if flat.axes[i].vars[0] not in stage.reduce]

    def is_vector_along_result(self, analyzer: Analyzer) -> bool:
        names = [Var(f"i{n}", "int64") for n in range(len(self._flat.axes))]
        inner = names[self.spatial[-1]]
        if stride(self._flat.place(names), inner, analyzer) != 1:
            return False
        value = self._flat.value(names)
        strides = [stride(node.indices[0], inner, analyzer) for node in loads(value)]
        return all(stride in (0, 1) for stride in strides) and not has_condition_on(value, inner)

    @property
    def along(self) -> list[Index]:
        """Extents of the loops over results."""
        return [self._flat.axes[i].extent for i in self.spatial]

    def tiles(self, at: Sequence[Expr], lanes: int) -> None:
        """All results along the innermost loop: four vectors at a time where there are as many."""
        extent = self.along[-1]
        known = constant(extent)
        wide, size = _WIDE * lanes, index(extent)

        def body(base: Expr, width: int) -> None:
            self.tile(at, base, min(width, lanes), max(width // lanes, 1))

        with self._code.when(size >= wide if known is None else known >= wide):
            each_lanes(self._code, extent, wide, body)
        with self._code.when(size < wide if known is None else known < wide):
            each_lanes(self._code, extent, lanes, body)

    def tile(self, at: Sequence[Expr], base: Expr, lanes: int, vectors: int) -> None:
        """`vectors` neighbouring vectors of results, from `base` on."""
        code, stage = self._code, self._stage
        acc = code.stack("acc", lanes * vectors, str(stage.buffer.dtype))

        def each(write: Callable[[Expr, Expr], None]) -> None:
            with code.loop(vectors, "u", "unrolled") as u, code.loop(lanes, "l", "vectorized") as lane:
                slot = u * lanes + lane
                write(slot, base + slot)

        def start(slot: Expr, i: Expr) -> None:
            code.add(tirx.BufferStore(acc.buffer, stage.init, [slot]))

        def finish(slot: Expr, i: Expr) -> None:
            place = self._flat.place(self._at([*at, i], [index(0)] * len(self.reduce)))
            code.add(tirx.BufferStore(self._flat.target.buffer, acc.load(slot), [place]))

        def update(steps: Sequence[Expr]) -> Callable[[Expr, Expr], None]:
            def write(slot: Expr, i: Expr) -> None:
                code.add(tirx.BufferStore(acc.buffer, self._value(self._at([*at, i], steps), acc.load(slot)), [slot]))

            return write

        each(start)
        with nest(code, [self._flat.axes[r].extent for r in self.reduce], False) as steps:
            each(update(steps))
        each(finish)

    def scalar(self, at: Sequence[Expr]) -> None:
        """One result."""
        code, stage = self._code, self._stage
        acc = code.stack("acc", 1, str(stage.buffer.dtype))
        acc.store(code, 0, stage.init)
        with nest(code, [self._flat.axes[r].extent for r in self.reduce], False) as steps:
            acc.store(code, 0, self._value(self._at(at, steps), acc.load(0)))
        place = self._flat.place(self._at(at, [index(0)] * len(self.reduce)))
        code.add(tirx.BufferStore(self._flat.target.buffer, acc.load(0), [place]))

    def _at(self, spatial: Sequence[Expr], steps: Sequence[Expr]) -> list[Expr]:
        at: list[Expr] = [index(0)] * len(self._flat.axes)
        for i, value in zip(self.spatial, spatial, strict=True):
            at[i] = value
        for i, value in zip(self.reduce, steps, strict=True):
            at[i] = value
        return at

    def _value(self, at: Sequence[Expr], acc: Expr) -> Expr:
        target = self._flat.target.buffer

        def swap(node: Load) -> Expr:
            return acc if node.source.same_as(target) else node

        return tvm_ffi.structural_map(self._flat.value(at), (Load, swap))
