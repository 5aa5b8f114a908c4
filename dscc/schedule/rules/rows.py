"""Softmax, normalisations and reductions: one row at a time, kept in cache between its sweeps.

Two shapes of loop nest. Where the contiguous axis is one of the row, its elements go into the lanes of vectors, several
accumulators per reduction break the chain of dependent additions, and the lanes are combined at the end:

    for row in parallel(rows):                             # softmax over the last axis, layer norm
        for j in range(n / 64): acc0 += x[j], acc1 += x[j + 16], ...
        acc0 += x[last n % 16, masked]
        s = sum of the lanes of acc0 + acc1 + acc2 + acc3

Where it is one of the kept axes, as in a mean over H and W of an NHWC tensor, neighbouring rows go into the lanes:

    for tile in parallel(C / 128):
        for j in range(H * W): acc0 += x[j, tile + 0..15], acc1 += x[j, tile + 16..31], ...
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import ClassVar

from tvm import tirx
from tvm.ir import Expr, Var

from dscc.schedule.base import Rule, Scheduled
from dscc.schedule.code import Code, Flat, Index, broadcast, ceildiv, constant, first_lanes, index, product
from dscc.schedule.lanes import lift
from dscc.schedule.machine import Machine
from dscc.schedule.rowwise import COMBINE, Access, Axis, Fold, Rows, Sweep, rows_of

_SERIAL_BELOW = 16 * 1024  # elements; less is not worth waking a thread for
_COSTLY_STEPS = 8
_SHORT = 4  # elements of a row that would leave most lanes empty
_LINE = 32  # elements that are added to one register before it is added to another


class Rowwise(Rule):
    """Functions whose reductions all keep the same axes."""

    name = "rows"

    def apply(self, func: tirx.PrimFunc, constants: frozenset[int], machine: Machine) -> Scheduled | None:
        rows = rows_of(func)
        if rows is None:
            return None
        code = Code()
        views = {p: code.view(p) for p in func.params if tirx.is_buffer_var(p)}
        lane = _lane_axis(rows)
        writer = _Across(rows, code, views, machine) if lane is None else _Along(rows, code, views, machine, lane)
        writer.write()
        return Scheduled(func.with_body(code.stmt()))


def _lane_axis(rows: Rows) -> Axis | None:
    """The kept axis along which memory is contiguous, or None if that is an axis of the row and not a very short one."""
    votes = dict.fromkeys((axis.var for axis in rows.kept), 0)
    along = 0
    for sweep in rows.sweeps:
        for access in sweep.accesses():
            for axis in (*rows.kept, *sweep.axes):
                if access.strides.get(axis.var) == ():
                    if axis.var in votes:
                        votes[axis.var] += len(access.strides)
                    else:
                        along += len(access.strides)
    best = max(rows.kept, key=lambda axis: votes[axis.var], default=None)
    if best is not None and votes[best.var] <= along:
        lengths = [constant(product([axis.extent for axis in sweep.axes])) for sweep in rows.sweeps]
        few = all(length is not None and length <= _SHORT for length in lengths)
        return rows.kept[-1] if few else None
    return best


@dataclass(frozen=True)
class _Lanes:
    """Which elements one evaluation handles: those at `start` and after along `axis`, all of them or the masked."""

    axis: Var | None
    start: Expr
    count: int
    mask: Expr | None = None


class _Writer:
    """What both loop nests share."""

    lanes_fold: ClassVar[bool]  # lanes are combined with each other, so that masked ones must not count

    def __init__(self, rows: Rows, code: Code, views: Mapping[Var, Flat], machine: Machine):
        self.rows, self.code, self.views = rows, code, dict(views)
        self.lanes = machine.lanes()
        self.registers = machine.vector_registers

    def _kept_loops(self, stack: ExitStack, axes: Sequence[Axis], more: int | Expr = 1) -> tuple[dict[Var, Expr], Expr]:
        """One parallel loop over `axes` and `more`: the coordinates, and the index below `more`."""
        extents = [axis.extent for axis in axes]
        per_row = product([a.extent for a in max(self.rows.sweeps, key=lambda s: len(s.axes)).axes])
        work = constant(product([product(extents), more, per_row]))
        kind = "serial" if work is not None and work < _SERIAL_BELOW else "parallel"
        left = stack.enter_context(self.code.loop(product([product(extents), more]), "row", kind))
        inner = index(0)
        if constant(more) != 1:
            inner, left = self.code.bind("tile", left % index(more)), self.code.bind("row", left // index(more))
        values: dict[Var, Expr] = {}
        for axis in reversed(axes):
            if axis is axes[0]:
                values[axis.var] = self.code.bind(axis.var.name, left)
            else:
                values[axis.var] = self.code.bind(axis.var.name, left % index(axis.extent))
                left = self.code.bind("row", left // index(axis.extent))
        return values, inner

    def _evaluate(self, steps: Sequence[tuple[Var, Access | Expr]], values: dict[Var, Expr], lanes: _Lanes) -> None:
        """Compute steps, adding them to `values`."""
        for var, what in steps:
            if isinstance(what, Access):
                value = self._load(what, values, lanes)
            else:
                value = lift(self.code, what, self._with_lane(values, lanes))
            values[var] = self.code.bind(var.name, value)

    def _with_lane(self, values: dict[Var, Expr], lanes: _Lanes) -> dict[Var, Expr]:
        """`values`, with the coordinate along the lanes as a vector."""
        if lanes.axis is None:
            return values
        wide = lanes.start if lanes.count == 1 else tirx.Ramp(lanes.start, index(1), lanes.count)
        return {**values, lanes.axis: wide}

    def _place(self, access: Access, values: dict[Var, Expr], lanes: _Lanes) -> tuple[Flat, Expr, Expr | None]:
        """Buffer, offset of the first lane, and stride between lanes (None: the same element for all lanes)."""
        offset = access.rest
        for var, factors in access.strides.items():
            at = lanes.start if lanes.axis is not None and var.same_as(lanes.axis) else values[var]
            offset = offset + at * index(product(factors))
        factors_along = None if lanes.axis is None else access.strides.get(lanes.axis)
        stride = None if factors_along is None else index(product(factors_along))
        return self.views[access.buffer], offset, stride

    def _load(self, access: Access, values: dict[Var, Expr], lanes: _Lanes) -> Expr:
        flat, offset, stride = self._place(access, values, lanes)
        if stride is None or lanes.count == 1:
            return flat.load(offset)
        return flat.load(offset, lanes.count, stride, lanes.mask)

    def _store(self, access: Access, value: Expr, values: dict[Var, Expr], lanes: _Lanes) -> None:
        flat, offset, stride = self._place(access, values, lanes)
        if stride is None or lanes.count == 1:
            flat.store(self.code, offset, value)
        else:
            flat.store(self.code, offset, broadcast(value, lanes.count), stride, lanes.mask)

    def _body(self, sweep: Sweep, values: dict[Var, Expr], lanes: _Lanes, accumulators: Sequence[Flat]) -> None:
        """One evaluation of everything in `sweep` that varies over the row."""
        values = dict(values)
        self._evaluate([step for step in sweep.steps if step[0] in sweep.varying], values, lanes)
        here = self._with_lane(values, lanes)
        for fold, accumulator in zip(sweep.folds, accumulators, strict=True):
            value = broadcast(lift(self.code, fold.value, here), lanes.count)
            if lanes.mask is not None and self.lanes_fold:
                value = tirx.Select(lanes.mask, value, broadcast(fold.identity, lanes.count))
            old = accumulator.load(0, lanes.count)
            accumulator.store(self.code, 0, COMBINE[fold.combine](old, value))
        for access, value in sweep.stores:
            self._store(access, lift(self.code, value, here), values, lanes)

    def _accumulator(self, fold: Fold, lanes: int) -> Flat:
        flat = self.code.stack(f"acc_{fold.result.name}", lanes, str(fold.result.ty.dtype))
        flat.store(self.code, 0, broadcast(fold.identity, lanes))
        return flat


class _Across(_Writer):
    """Elements of one row in the lanes."""

    lanes_fold = True

    def write(self) -> None:
        with ExitStack() as stack:
            values, _ = self._kept_loops(stack, self.rows.kept)
            for buffer in self.rows.scratch:
                self.views[buffer] = self.code.heap(buffer.name, buffer.shape[0], str(buffer.dtype))
            for sweep in self.rows.sweeps:
                self._sweep(sweep, values)

    def _sweep(self, sweep: Sweep, values: dict[Var, Expr]) -> None:
        scalar = _Lanes(None, index(0), 1)
        self._evaluate([step for step in sweep.steps if step[0] not in sweep.varying], values, scalar)
        axis = self._axis_in_lanes(sweep)
        lanes = self.lanes if axis is not None else 1
        groups = 1
        if sweep.folds and axis is not None:
            groups = 2 if len(sweep.steps) > _COSTLY_STEPS or len(sweep.folds) > 2 else 4
            groups = min(groups, max(1, (constant(axis.extent) or 1 << 30) // lanes))
        accumulators = [[self._accumulator(fold, lanes) for fold in sweep.folds] for _ in range(groups)]
        with ExitStack() as stack:
            inner = dict(values)
            for other in sweep.axes:
                if axis is None or other is not axis:
                    inner[other.var] = stack.enter_context(self.code.loop(other.extent, other.var.name))
            if axis is None:
                self._body(sweep, inner, scalar, accumulators[0])
            else:
                self._along(sweep, axis, inner, accumulators)
        for i, fold in enumerate(sweep.folds):
            combine = COMBINE[fold.combine]
            total = accumulators[0][i].load(0, lanes)
            for group in accumulators[1:]:
                total = combine(total, group[i].load(0, lanes))
            values[fold.result] = self.code.fold(total, combine)

    def _along(self, sweep: Sweep, axis: Axis, values: dict[Var, Expr], accumulators: list[list[Flat]]) -> None:
        """The loop over full vectors, then what is left."""
        extent, lanes, groups = axis.extent, self.lanes, len(accumulators)
        step = groups * lanes
        with self.code.loop(derived(extent, lambda n: n // step), axis.var.name) as i:
            for g, group in enumerate(accumulators):
                start = self.code.bind(axis.var.name, i * step + g * lanes)
                self._body(sweep, values, _Lanes(axis.var, start, lanes), group)
        if groups > 1:
            with self.code.loop(derived(extent, lambda n: n % step // lanes), axis.var.name) as i:
                start = self.code.bind(axis.var.name, index(derived(extent, lambda n: n // step * step)) + i * lanes)
                self._body(sweep, values, _Lanes(axis.var, start, lanes), accumulators[0])
        rest = derived(extent, lambda n: n % lanes)
        with self.code.when(rest > 0):
            start = self.code.bind(axis.var.name, index(derived(extent, lambda n: n // lanes * lanes)))
            mask = first_lanes(index(rest), lanes)
            self._body(sweep, values, _Lanes(axis.var, start, lanes, mask), accumulators[0])

    def _axis_in_lanes(self, sweep: Sweep) -> Axis | None:
        """The axis of the row along which most accesses are contiguous, if no access jumps along it."""
        if not sweep.axes:
            return None

        def score(axis: Axis) -> int:
            return sum(access.strides.get(axis.var) == () for access in sweep.accesses())

        best = max(reversed(sweep.axes), key=score)
        return best if all(access.strides.get(best.var, ()) == () for access in sweep.accesses()) else None


class _Along(_Writer):
    """Neighbouring rows in the lanes."""

    lanes_fold = False

    def __init__(self, rows: Rows, code: Code, views: Mapping[Var, Flat], machine: Machine, lane: Axis):
        super().__init__(rows, code, views, machine)
        self.lane = lane
        accesses = [access for sweep in rows.sweeps for access in sweep.accesses()]
        self.strided = any(access.strides.get(lane.var, ()) != () for access in accesses)

    def write(self) -> None:
        steps = max(len(sweep.steps) + len(sweep.folds) for sweep in self.rows.sweeps)
        widest = 8 if steps <= 2 else 4 if steps <= _COSTLY_STEPS else 2
        extent = constant(self.lane.extent)
        vectors = widest if extent is None else min(widest, int(ceildiv(extent, self.lanes)))
        if extent is not None:  # tiles of equal width
            tiles = ceildiv(ceildiv(extent, self.lanes), vectors)
            vectors = int(ceildiv(ceildiv(extent, self.lanes), int(tiles)))
        width = vectors * self.lanes
        outer = [axis for axis in self.rows.kept if axis is not self.lane]
        full = derived(self.lane.extent, lambda n: n // width)
        with ExitStack() as stack:
            values, tile = self._kept_loops(stack, outer, ceildiv(self.lane.extent, width))
            rest = derived(self.lane.extent, lambda n: n % width)
            with self.code.when(full != 0 if constant(rest) == 0 or constant(full) == 0 else tile < index(full)):
                self._tile(values, tile, vectors, None)
            with self.code.when(rest != 0 if constant(rest) == 0 or constant(full) == 0 else tile >= index(full)):
                self._tile(values, tile, vectors, rest)

    def _tile(self, values: dict[Var, Expr], tile: Expr, vectors: int, left: int | Expr | None) -> None:
        """`vectors` vectors of rows side by side, or the `left` rows at the end."""
        if left is not None and self.strided:  # a mask is for contiguous lanes only
            with self.code.loop(left, self.lane.var.name) as i:
                start = self.code.bind(self.lane.var.name, tile * (vectors * self.lanes) + i)
                self._side_by_side([_Lanes(self.lane.var, start, 1)], values)
            return
        groups: list[_Lanes] = []
        for g in range(vectors):
            mask = None
            if left is not None:
                known = constant(left)
                if known is not None and known <= g * self.lanes:
                    break
                if known is None or known < (g + 1) * self.lanes:
                    mask = first_lanes(index(left) - g * self.lanes, self.lanes)
            start = self.code.bind(self.lane.var.name, tile * (vectors * self.lanes) + g * self.lanes)
            groups.append(_Lanes(self.lane.var, start, self.lanes, mask))
        self._side_by_side(groups, values)

    def _side_by_side(self, groups: list[_Lanes], values: dict[Var, Expr]) -> None:
        """All sweeps for the rows of these groups."""
        known_values = [dict(values) for _ in groups]
        self._width = sum(lanes.count for lanes in groups)
        self._rooms: dict[Var, Flat] = {}
        for buffer in self.rows.scratch:
            size = product([buffer.shape[0], self._width])
            self._rooms[buffer] = self.code.heap(buffer.name, size, str(buffer.dtype))
        for sweep in self.rows.sweeps:
            self._sweep(sweep, groups, known_values)

    def _sweep(self, sweep: Sweep, groups: list[_Lanes], values: list[dict[Var, Expr]]) -> None:
        accumulators = []
        for lanes, known in zip(groups, values, strict=True):
            self._evaluate([step for step in sweep.steps if step[0] not in sweep.varying], known, lanes)
            accumulators.append([self._accumulator(fold, lanes.count) for fold in sweep.folds])
        with ExitStack() as stack:
            coordinates = {a.var: stack.enter_context(self.code.loop(a.extent, a.var.name)) for a in sweep.axes[:-1]}
            if not sweep.axes:
                self._groups(sweep, groups, values, coordinates, accumulators)
            else:
                self._lines(sweep, groups, values, coordinates, accumulators)
        for lanes, known, group in zip(groups, values, accumulators, strict=True):
            for fold, accumulator in zip(sweep.folds, group, strict=True):
                known[fold.result] = self.code.bind(fold.result.name, accumulator.load(0, lanes.count))

    def _lines(
        self,
        sweep: Sweep,
        groups: list[_Lanes],
        values: list[dict[Var, Expr]],
        coordinates: dict[Var, Expr],
        accumulators: list[list[Flat]],
    ) -> None:
        """The innermost loop. A sum of thousands of pixels in one register loses digits: every line is summed apart."""
        axis = sweep.axes[-1]
        known = constant(axis.extent)
        if not sweep.folds or (known is not None and known <= _LINE and not coordinates):
            with self.code.loop(axis.extent, axis.var.name) as i:
                self._groups(sweep, groups, values, {**coordinates, axis.var: i}, accumulators)
            return
        with self.code.loop(ceildiv(axis.extent, _LINE), "line") as line:
            lines = [[self._accumulator(fold, lanes.count) for fold in sweep.folds] for lanes in groups]
            left = index(axis.extent) - line * _LINE
            with self.code.loop(tirx.min(index(_LINE), left), axis.var.name) as i:
                at = self.code.bind(axis.var.name, line * _LINE + i)
                self._groups(sweep, groups, values, {**coordinates, axis.var: at}, lines)
            for lanes, totals, parts in zip(groups, accumulators, lines, strict=True):
                for fold, total, part in zip(sweep.folds, totals, parts, strict=True):
                    both = COMBINE[fold.combine](total.load(0, lanes.count), part.load(0, lanes.count))
                    total.store(self.code, 0, both)

    def _groups(
        self,
        sweep: Sweep,
        groups: list[_Lanes],
        values: list[dict[Var, Expr]],
        coordinates: dict[Var, Expr],
        accumulators: list[list[Flat]],
    ) -> None:
        """One element of every row of the tile."""
        for g, (lanes, known) in enumerate(zip(groups, values, strict=True)):
            self._group = g
            self._body(sweep, {**known, **coordinates}, lanes, accumulators[g])

    def _place(self, access: Access, values: dict[Var, Expr], lanes: _Lanes) -> tuple[Flat, Expr, Expr | None]:
        if access.buffer not in self._rooms:
            return super()._place(access, values, lanes)
        offset = index(self._group * self.lanes)
        for var, factors in access.strides.items():
            offset = offset + values[var] * index(product((*factors, index(self._width))))
        return self._rooms[access.buffer], offset, index(1)


def derived(extent: Expr, formula: Callable[[Index], Index]) -> Index:
    """`formula(extent)`, as an int where the extent is one."""
    known = constant(extent)
    return formula(known if known is not None else index(extent))
