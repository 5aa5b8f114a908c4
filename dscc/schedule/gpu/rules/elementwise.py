"""The last rule of a device: a thread for every element, for any sequence of formulas.

    y[i, j] = f(x[j, i])   ->   thread t: y[t] = f(x[t % J, t / J])

Each formula becomes a kernel of its own; a reduction is a loop of one thread. What is no formula (scans, sorts, calls)
is left to the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tvm import tirx
from tvm.ir import Expr, Var

from dscc.schedule.base import Scheduled
from dscc.schedule.code import Flat, Index, index, product
from dscc.schedule.collapse import View, collapse
from dscc.schedule.decisions import Decisions
from dscc.schedule.domain import Interval, bounded
from dscc.schedule.gpu.device import Device, DeviceRule, with_threads
from dscc.schedule.gpu.kernel import Kernel
from dscc.schedule.loops import Reduction
from dscc.schedule.program import Program, inline, read
from dscc.schedule.stages import Stage, loads, unravel


class Elementwise(DeviceRule):
    """A thread for every element."""

    name: ClassVar[str] = "elementwise"

    def schedule(
        self, func: tirx.PrimFunc, constants: frozenset[int], device: Device, decisions: Decisions
    ) -> Scheduled | None:
        program = read(func)
        if program is None or not program.stages or len(program.stages) != len(program.items):
            return None
        device = with_threads(device, decisions)
        program = inline(program)
        code = Kernel()
        views = _views(code, func, program)
        for stage in program.stages:
            write_stage(code, stage, views.__getitem__, device)
        return Scheduled(func.with_body(code.stmt()))


def _views(code: Kernel, func: tirx.PrimFunc, program: Program) -> dict[Var, Flat]:
    """Every buffer as one-dimensional; those that are no parameters are scratch memory of the device."""
    found: dict[Var, Flat] = {}
    for stage in program.stages:
        for buffer in [stage.buffer, *(load.source for load in loads(stage.value))]:
            if buffer not in found:
                scratch = any(buffer.same_as(temporary) for temporary in program.temporaries)
                found[buffer] = (
                    code.heap(buffer.name, product(buffer.shape), str(buffer.dtype)) if scratch else code.view(buffer)
                )
    return found


def write_stage(code: Kernel, stage: Stage, view: View, device: Device) -> None:
    """A kernel with a thread for every element that the formula writes."""
    analyzer = bounded(stage.extents)
    spatial = {var: Interval(tirx.const(0, var.ty.dtype), stage.extents[var]) for var in stage.spatial}
    if not stage.is_reduction:
        flat = collapse(stage.buffer, stage.indices, stage.value, spatial, view, analyzer)
        extents = [axis.extent for axis in flat.axes]
        with code.each(product(extents), device.threads) as i:
            at = _unravelled(code, i, extents)
            code.add(tirx.BufferStore(flat.target.buffer, flat.value(at), [flat.place(at)]))
        return
    everything = {var: Interval(tirx.const(0, var.ty.dtype), extent) for var, extent in stage.extents.items()}
    flat = collapse(stage.buffer, stage.indices, stage.value, everything, view, analyzer, frozenset(stage.reduce))
    reduction = Reduction(code, stage, flat)
    with code.each(product(reduction.along), device.threads) as i:
        reduction.scalar(_unravelled(code, i, reduction.along))


def _unravelled(code: Kernel, i: Expr, extents: Sequence[Index]) -> list[Expr]:
    if not extents:
        return []
    return [code.bind("at", part) for part in unravel(i, [index(extent) for extent in extents])]
