"""LSTM, GRU and RNN: vectors of hidden units, sums in registers, the recurrent weights packed; see recurrent/writer.py.

Weights that are no constants are brought into panels when the kernel begins.
"""

from __future__ import annotations

from typing import ClassVar

from tvm import tirx

from dscc.schedule.base import Packing, Rule, Scheduled
from dscc.schedule.code import Code, constant, index
from dscc.schedule.decisions import Decisions
from dscc.schedule.machine import Machine
from dscc.schedule.recurrent.cell import ATTRIBUTE, Cell
from dscc.schedule.recurrent.define import views
from dscc.schedule.recurrent.panels import Panels, RecurrentPacking, choose, write_panels
from dscc.schedule.recurrent.writer import Plan, Writer

_TILES = 4  # of rows in one task: R is read once for all of them
_SPLIT = 2**17  # elements of R from which on threads share a step: 10 us for one, and 2 us to start another


class Recurrent(Rule):
    """Functions that carry the attribute `dscc.recurrent`; see dscc/schedule/recurrent/cell.py."""

    name: ClassVar[str] = "recurrent"

    def apply(
        self, func: tirx.PrimFunc, constants: frozenset[int], machine: Machine, decisions: Decisions
    ) -> Scheduled | None:
        if not func.attrs or ATTRIBUTE not in func.attrs:
            return None
        cell = Cell.of(str(func.attrs[ATTRIBUTE]))
        params = list(func.params)
        x, weight = params[0], params[1]
        if str(x.dtype) != "float32":
            return None
        length, batch = x.shape[:2]
        gates = [phase.gates for phase in cell.phases(0, "float32")]
        panels = tuple(choose(some, cell.hidden, machine.lanes()) for some in gates)
        packing = RecurrentPacking(panels)
        size = cell.directions * sum(p.size for p in panels)
        packed = tirx.decl_buffer([index(size)], weight.dtype, weight.name)
        packings: dict[int, Packing] = {}
        code = Code()
        if 1 in constants:
            params[1], packings[1] = packed, packing
        at = views(code, cell, params)
        if 1 not in constants:
            source, at["R"] = at["R"], code.heap("panels", size, str(weight.dtype))
            write_panels(code, cell.directions, cell.gates, panels, source, at["R"])
        plan = _plan(panels, constant(batch), machine, "scale" in cell.operands)
        Writer(code, cell, at, length, batch, plan).write()
        scheduled = tirx.PrimFunc(params, code.stmt(), func.ret_type, func.attrs)
        return Scheduled(scheduled, packings)


def _plan(panels: tuple[Panels, ...], batch: int | None, machine: Machine, whole: bool) -> Plan:
    """As many rows as there are registers for their sums, a scalar each, and a vector of weights; `whole`: one task has
    the whole batch.
    """
    tile = tuple(max(1, (machine.vector_registers - 2) // (p.width // p.lanes + 1)) for p in panels)
    chunk = _TILES * max(tile)
    whole = whole or (batch is not None and batch <= chunk)
    split = sum(p.size for p in panels) >= _SPLIT
    return Plan(panels, True, tile, None if whole else chunk, split)
