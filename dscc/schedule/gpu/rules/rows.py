"""Softmax, normalisations and reductions: the threads of a block share rows, and combine what they found.

    block of 256 threads, a row:                          # softmax over the last axis, layer norm
        thread t, for j = t, t + 256, ...:  s += x[j]
        s = the sum over the threads, by halves in shared memory
        thread t, for j = t, t + 256, ...:  y[j] = x[j] / s

Where the contiguous axis is a kept one, as in a mean over H and W of an NHWC tensor, a block has 32 neighbouring rows,
and some threads for each: what neighbouring threads read are always neighbours in memory. Short rows have a thread
each. Costly values are computed anew in every sweep, which is cheaper than to write them down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from tvm import tirx
from tvm.ir import Expr, Var

from dscc.schedule.base import Scheduled
from dscc.schedule.code import Flat, Index, ceildiv, constant, index, product, quotient, remainder
from dscc.schedule.decisions import Decisions
from dscc.schedule.gpu.device import Device, DeviceRule, with_threads
from dscc.schedule.gpu.kernel import Kernel
from dscc.schedule.rowwise.program import COMBINE, Access, Axis, Fold, Rows, Sweep
from dscc.schedule.rowwise.resolve import rows_of
from dscc.schedule.rules.rows import lane_axis
from dscc.schedule.stages import substitute, unravel

_SHORT = 16  # elements of a row that one thread has all of
_SIDE_BY_SIDE = 32  # rows of a block whose neighbours are neighbours in memory


class Rowwise(DeviceRule):
    """Functions whose reductions all keep the same axes; see the module."""

    name: ClassVar[str] = "rows"

    def schedule(
        self, func: tirx.PrimFunc, constants: frozenset[int], device: Device, decisions: Decisions
    ) -> Scheduled | None:
        rows = rows_of(func, keep=False)
        if rows is None:
            return None
        device = with_threads(device, decisions)
        code = Kernel()
        views = {p: code.view(p) for p in func.params if tirx.is_buffer_var(p)}
        lane = lane_axis(rows)
        kept = [axis for axis in rows.kept if axis is not lane] + ([lane] if lane is not None else [])
        longest = max((_length(sweep) for sweep in rows.sweeps), key=lambda n: constant(n) or 1 << 30)
        share = _share(longest, lane is not None, device)
        count = product([axis.extent for axis in kept])
        side_by_side = device.threads // share if lane is None else max(_SIDE_BY_SIDE, device.threads // share)
        total = constant(count)
        if total is not None and lane is None:
            side_by_side = max(1, min(side_by_side, total))
        with code.launch(ceildiv(count, side_by_side), share * side_by_side) as ((block,), (thread,)):
            if lane is None:
                which, part = quotient(thread, share), remainder(thread, share)
            else:
                which, part = remainder(thread, side_by_side), quotient(thread, side_by_side)
            row = code.bind("row", block * side_by_side + which)
            inside = total is not None and total % side_by_side == 0
            # Every thread takes part in the barriers: those without a row follow the last one, and write nothing.
            safe = row if inside else code.bind("safe", tirx.min(row, index(count) - 1))
            parts = unravel(safe, [index(axis.extent) for axis in kept]) if kept else []
            values = {axis.var: code.bind(axis.var.name, at) for axis, at in zip(kept, parts, strict=True)}
            valid: Expr | bool = True if inside else row < index(count)
            _Writer(code, views, share, which, part, valid, share * side_by_side).write(rows, values)
        return Scheduled(func.with_body(code.stmt()))


def _length(sweep: Sweep) -> Index:
    return product([axis.extent for axis in sweep.axes])


def _share(longest: Index, side_by_side: bool, device: Device) -> int:
    """How many threads a row gets: a power of two."""
    known = constant(longest)
    if known is not None and known <= _SHORT:
        return 1
    most = device.threads // _SIDE_BY_SIDE if side_by_side else device.threads
    share = 1
    while share * 2 <= most and (known is None or share * 2 <= known):
        share *= 2
    return share


class _Writer:
    """The sweeps of one thread over its part of one row."""

    def __init__(
        self,
        code: Kernel,
        views: Mapping[Var, Flat],
        share: int,
        which: Expr,
        part: Expr,
        valid: Expr | bool,
        threads: int,
    ):
        self.code, self.views, self.share, self.valid, self.part = code, views, share, valid, part
        self.slot = code.bind("slot", which * share + part)
        self.first = code.bind("first", which * share)
        self._threads = threads
        self._rooms: dict[str, Flat] = {}

    def write(self, rows: Rows, values: dict[Var, Expr]) -> None:
        for sweep in rows.sweeps:
            self._sweep(sweep, values)

    def _sweep(self, sweep: Sweep, values: dict[Var, Expr]) -> None:
        code = self.code
        self._evaluate([step for step in sweep.steps if step[0] not in sweep.varying], values)
        sums = [code.local(f"acc_{fold.result.name}", 1, str(fold.result.ty.dtype)) for fold in sweep.folds]
        for fold, acc in zip(sweep.folds, sums, strict=True):
            acc.store(code, 0, fold.identity)
        length = _length(sweep)
        known = constant(length)
        with code.loop(ceildiv(length, self.share), "j") as step:
            j = code.bind("at", step * self.share + self.part)
            with code.when(True if known is not None and known % self.share == 0 else j < index(length)):
                self._element(sweep, j, values, sums)
        for fold, acc in zip(sweep.folds, sums, strict=True):
            values[fold.result] = self._combined(fold, acc)

    def _element(self, sweep: Sweep, j: Expr, values: Mapping[Var, Expr], sums: Sequence[Flat]) -> None:
        code = self.code
        here = {**values, **self._coordinates(sweep.axes, j)}
        self._evaluate([step for step in sweep.steps if step[0] in sweep.varying], here)
        for fold, acc in zip(sweep.folds, sums, strict=True):
            acc.store(code, 0, COMBINE[fold.combine](acc.load(0), substitute(fold.value, here)))
        with code.when(self.valid):
            for access, value in sweep.stores:
                flat, offset = self._place(access, here)
                flat.store(code, offset, substitute(value, here))

    def _coordinates(self, axes: Sequence[Axis], j: Expr) -> dict[Var, Expr]:
        if not axes:
            return {}
        parts = unravel(j, [index(axis.extent) for axis in axes])
        return {axis.var: self.code.bind(axis.var.name, at) for axis, at in zip(axes, parts, strict=True)}

    def _evaluate(self, steps: Sequence[tuple[Var, Access | Expr]], values: dict[Var, Expr]) -> None:
        for var, what in steps:
            if isinstance(what, Access):
                flat, offset = self._place(what, values)
                values[var] = self.code.bind(var.name, flat.load(offset))
            else:
                values[var] = self.code.bind(var.name, substitute(what, values))

    def _place(self, access: Access, values: Mapping[Var, Expr]) -> tuple[Flat, Expr]:
        offset = access.rest
        for var, factors in access.strides.items():
            offset = offset + values[var] * index(product(factors))
        return self.views[access.buffer], offset

    def _combined(self, fold: Fold, acc: Flat) -> Expr:
        """The result of all threads of the row."""
        code, dtype = self.code, str(fold.result.ty.dtype)
        if self.share == 1:
            return code.bind(fold.result.name, acc.load(0))
        if dtype not in self._rooms:
            self._rooms[dtype] = code.shared(f"parts_{dtype}", self._threads, dtype)
        room = self._rooms[dtype]
        code.barrier()  # what was there before has been read
        room.store(code, self.slot, acc.load(0))
        half = self.share // 2
        while half:
            code.barrier()
            with code.when(self.part < half):
                both = COMBINE[fold.combine](room.load(self.slot), room.load(self.slot + half))
                room.store(code, self.slot, both)
            half //= 2
        code.barrier()
        return code.bind(fold.result.name, room.load(self.first))
