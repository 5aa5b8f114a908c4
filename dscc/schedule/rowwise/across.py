"""Elements of one row in the lanes of vectors, combined with each other at the end."""

from __future__ import annotations

from contextlib import ExitStack

from tvm.ir import Expr, Var

from dscc.schedule.code import Flat, constant, first_lanes, index
from dscc.schedule.rowwise.program import COMBINE, Axis, Sweep
from dscc.schedule.rowwise.writer import COSTLY_STEPS, Lanes, Writer, derived


class Across(Writer):
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
        scalar = Lanes(None, index(0), 1)
        self._evaluate([step for step in sweep.steps if step[0] not in sweep.varying], values, scalar)
        axis = self._axis_in_lanes(sweep)
        lanes = self.lanes if axis is not None else 1
        groups = 1
        if sweep.folds and axis is not None:
            groups = 2 if len(sweep.steps) > COSTLY_STEPS or len(sweep.folds) > 2 else 4
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
                self._body(sweep, values, Lanes(axis.var, start, lanes), group)
        if groups > 1:
            with self.code.loop(derived(extent, lambda n: n % step // lanes), axis.var.name) as i:
                start = self.code.bind(axis.var.name, index(derived(extent, lambda n: n // step * step)) + i * lanes)
                self._body(sweep, values, Lanes(axis.var, start, lanes), accumulators[0])
        rest = derived(extent, lambda n: n % lanes)
        with self.code.when(rest > 0):
            start = self.code.bind(axis.var.name, index(derived(extent, lambda n: n // lanes * lanes)))
            mask = first_lanes(index(rest), lanes)
            self._body(sweep, values, Lanes(axis.var, start, lanes, mask), accumulators[0])

    def _axis_in_lanes(self, sweep: Sweep) -> Axis | None:
        """The axis of the row along which most accesses are contiguous, if no access jumps along it."""
        if not sweep.axes:
            return None

        def score(axis: Axis) -> int:
            return sum(access.strides.get(axis.var) == () for access in sweep.accesses())

        best = max(reversed(sweep.axes), key=score)
        return best if all(access.strides.get(best.var, ()) == () for access in sweep.accesses()) else None
