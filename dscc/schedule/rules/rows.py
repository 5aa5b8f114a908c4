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

from tvm import tirx

from dscc.schedule.base import Rule, Scheduled
from dscc.schedule.code import Code, constant, product
from dscc.schedule.decisions import Decisions
from dscc.schedule.machine import Machine
from dscc.schedule.rowwise.across import Across
from dscc.schedule.rowwise.along import Along
from dscc.schedule.rowwise.program import Axis, Rows
from dscc.schedule.rowwise.resolve import rows_of

_SHORT = 4  # elements of a row that would leave most lanes empty


class Rowwise(Rule):
    """Functions whose reductions all keep the same axes."""

    name = "rows"

    def apply(
        self, func: tirx.PrimFunc, constants: frozenset[int], machine: Machine, decisions: Decisions
    ) -> Scheduled | None:
        rows = rows_of(func)
        if rows is None:
            return None
        code = Code()
        views = {p: code.view(p) for p in func.params if tirx.is_buffer_var(p)}
        lane = lane_axis(rows)
        writer = Across(rows, code, views, machine) if lane is None else Along(rows, code, views, machine, lane)
        writer.write()
        return Scheduled(func.with_body(code.stmt()))


def lane_axis(rows: Rows) -> Axis | None:
    """The kept axis along which memory is contiguous, or None if that is one of the row, and not a short one."""
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
