"""What the two loop nests of row-wise functions share: rows in parallel, steps evaluated for several lanes at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import ClassVar

from tvm import tirx
from tvm.ir import Expr, Var

from dscc.schedule.code import Code, Flat, Index, broadcast, constant, divisor, index, product
from dscc.schedule.lanes import lift
from dscc.schedule.machine import Machine
from dscc.schedule.rowwise.program import COMBINE, Access, Axis, Fold, Rows, Sweep

COSTLY_STEPS = 8  # of a sweep with more, fewer are worth interleaving
_SERIAL_BELOW = 16 * 1024  # elements; less is not worth waking a thread for


@dataclass(frozen=True)
class Lanes:
    """Which elements one evaluation handles: those at `start` and after along `axis`, all of them or the masked. In
    memory of the tile they begin at `place`.
    """

    axis: Var | None
    start: Expr
    count: int
    mask: Expr | None = None
    place: int = 0


class Writer:
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
                values[axis.var] = self.code.bind(axis.var.name, left % divisor(axis.extent))
                left = self.code.bind("row", left // divisor(axis.extent))
        return values, inner

    def _evaluate(self, steps: Sequence[tuple[Var, Access | Expr]], values: dict[Var, Expr], lanes: Lanes) -> None:
        """Compute steps, adding them to `values`."""
        for var, what in steps:
            if isinstance(what, Access):
                value = self._load(what, values, lanes)
            else:
                value = lift(self.code, what, self._with_lane(values, lanes))
            values[var] = self.code.bind(var.name, value)

    def _with_lane(self, values: dict[Var, Expr], lanes: Lanes) -> dict[Var, Expr]:
        """`values`, with the coordinate along the lanes as a vector."""
        if lanes.axis is None:
            return values
        wide = lanes.start if lanes.count == 1 else tirx.Ramp(lanes.start, index(1), lanes.count)
        return {**values, lanes.axis: wide}

    def _place(self, access: Access, values: dict[Var, Expr], lanes: Lanes) -> tuple[Flat, Expr, Expr | None]:
        """Buffer, offset of the first lane, and stride between lanes (None: the same element for all lanes)."""
        offset = access.rest
        for var, factors in access.strides.items():
            at = lanes.start if lanes.axis is not None and var.same_as(lanes.axis) else values[var]
            offset = offset + at * index(product(factors))
        factors_along = None if lanes.axis is None else access.strides.get(lanes.axis)
        stride = None if factors_along is None else index(product(factors_along))
        return self.views[access.buffer], offset, stride

    def _load(self, access: Access, values: dict[Var, Expr], lanes: Lanes) -> Expr:
        flat, offset, stride = self._place(access, values, lanes)
        if stride is None or lanes.count == 1:
            return flat.load(offset)
        return flat.load(offset, lanes.count, stride, lanes.mask)

    def _store(self, access: Access, value: Expr, values: dict[Var, Expr], lanes: Lanes) -> None:
        flat, offset, stride = self._place(access, values, lanes)
        if stride is None or lanes.count == 1:
            flat.store(self.code, offset, value)
        else:
            flat.store(self.code, offset, broadcast(value, lanes.count), stride, lanes.mask)

    def _body(self, sweep: Sweep, values: dict[Var, Expr], lanes: Lanes, accumulators: Sequence[Flat]) -> None:
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


def derived(extent: Expr, formula: Callable[[Index], Index]) -> Index:
    """`formula(extent)`, as an int where the extent is one."""
    known = constant(extent)
    return formula(known if known is not None else index(extent))
