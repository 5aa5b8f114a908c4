"""Neighbouring rows in the lanes of vectors."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

from tvm import tirx
from tvm.ir import Expr, Var

from dscc.schedule.code import Code, Flat, ceildiv, constant, first_lanes, index, product
from dscc.schedule.machine import Machine
from dscc.schedule.rowwise.program import COMBINE, Access, Axis, Rows, Sweep
from dscc.schedule.rowwise.writer import COSTLY_STEPS, Lanes, Writer, derived

_LINE = 32  # elements that are added to one register before it is added to another


class Along(Writer):
    """Neighbouring rows in the lanes."""

    lanes_fold = False

    def __init__(self, rows: Rows, code: Code, views: Mapping[Var, Flat], machine: Machine, lane: Axis):
        super().__init__(rows, code, views, machine)
        self.lane = lane
        accesses = [access for sweep in rows.sweeps for access in sweep.accesses()]
        self.strided = any(access.strides.get(lane.var, ()) != () for access in accesses)

    def write(self) -> None:
        steps = max(len(sweep.steps) + len(sweep.folds) for sweep in self.rows.sweeps)
        widest = 8 if steps <= 2 else 4 if steps <= COSTLY_STEPS else 2
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
                self._side_by_side([Lanes(self.lane.var, start, 1)], values)
            return
        groups: list[Lanes] = []
        for g in range(vectors):
            mask = None
            if left is not None:
                known = constant(left)
                if known is not None and known <= g * self.lanes:
                    break
                if known is None or known < (g + 1) * self.lanes:
                    mask = first_lanes(index(left) - g * self.lanes, self.lanes)
            start = self.code.bind(self.lane.var.name, tile * (vectors * self.lanes) + g * self.lanes)
            groups.append(Lanes(self.lane.var, start, self.lanes, mask, g * self.lanes))
        self._side_by_side(groups, values)

    def _side_by_side(self, groups: list[Lanes], values: dict[Var, Expr]) -> None:
        """All sweeps for the rows of these groups."""
        known_values = [dict(values) for _ in groups]
        self._width = sum(lanes.count for lanes in groups)
        self._rooms: dict[Var, Flat] = {}
        for buffer in self.rows.scratch:
            size = product([buffer.shape[0], self._width])
            self._rooms[buffer] = self.code.heap(buffer.name, size, str(buffer.dtype))
        for sweep in self.rows.sweeps:
            self._sweep(sweep, groups, known_values)

    def _sweep(self, sweep: Sweep, groups: list[Lanes], values: list[dict[Var, Expr]]) -> None:
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
        groups: list[Lanes],
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
        groups: list[Lanes],
        values: list[dict[Var, Expr]],
        coordinates: dict[Var, Expr],
        accumulators: list[list[Flat]],
    ) -> None:
        """One element of every row of the tile."""
        for lanes, known, group in zip(groups, values, accumulators, strict=True):
            self._body(sweep, {**known, **coordinates}, lanes, group)

    def _place(self, access: Access, values: dict[Var, Expr], lanes: Lanes) -> tuple[Flat, Expr, Expr | None]:
        if access.buffer not in self._rooms:
            return super()._place(access, values, lanes)
        offset = index(lanes.place)
        for var, factors in access.strides.items():
            offset = offset + values[var] * index(product((*factors, index(self._width))))
        return self._rooms[access.buffer], offset, index(1)
