"""One phase of one time step: the product with the recurrent weights, tile by tile, and what is made of its sums."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from tvm import tirx
from tvm.ir import Expr

from dscc.schedule.code import Index, broadcast, ceildiv, constant, index
from dscc.schedule.lanes import lift
from dscc.schedule.recurrent.cell import Phase
from dscc.schedule.recurrent.panels import Panels
from dscc.schedule.recurrent.quantize import quantize_rows

if TYPE_CHECKING:
    from dscc.schedule.recurrent.writer import Task


class Step:
    """One phase of one step."""

    def __init__(
        self, task: Task, phase: Phase, panels: Panels, tile: int, start: Expr, step: Expr, now: Expr, then: Expr
    ):
        self.task, self.code, self.cell = task, task.code, task.cell
        self.phase, self.panels, self.most = phase, panels, tile
        self.start, self.step, self.now, self.then = start, step, now, then
        self.operand, self.operand_at = task.states[phase.operand], now if phase.operand == "h" else index(0)
        self.scale: Expr | None = None

    def write(self) -> None:
        code, task = self.code, self.task
        if task.steps is not None:
            rows = [self.operand_at, task.rows, task.pitch, task.hidden, task.lanes]
            self.scale = quantize_rows(code, self.operand, task.steps, *rows)
            self.operand, self.operand_at = task.steps, index(0)
        with code.loop(self.panels.count, "panel", task.panels) as panel:
            most = self.most if constant(task.rows) is None else min(self.most, int(task.rows))
            tiles = ceildiv(index(task.rows) - (most - 1), most) if constant(task.rows) is None else task.rows // most
            with code.loop(tiles, "tile") as tile:
                self._tile(panel, tile * most, most)
            with code.loop(task.rows - tiles * most, "rest") as rest:
                self._tile(panel, tiles * most + rest, 1)

    def _tile(self, panel: Expr, row: Expr, rows: int) -> None:
        """The sums of some rows for the gates of a panel, then what is made of them, from a copy."""
        code, task, panels, lanes = self.code, self.task, self.panels, self.task.lanes
        across = [(gate, v) for gate in range(len(panels.gates)) for v in range(panels.vectors)]
        sums = [[code.stack("sum", lanes, task.dtype) for _ in across] for _ in range(rows)]
        for sum_ in (s for some in sums for s in some):
            sum_.store(code, 0, broadcast(tirx.const(0.0, task.dtype), lanes))
        states = [code.bind("state", self.operand_at + (row + i) * task.pitch) for i in range(rows)]
        weight = self._weights(panel)
        with code.loop(task.hidden, "k") as k:
            scalars = [code.bind("scalar", broadcast(self.operand.load(at + k), lanes)) for at in states]
            for n, (gate, v) in enumerate(across):
                vector = code.bind("weight", weight(k, gate, v))
                for i in range(rows):
                    sums[i][n].store(code, 0, sums[i][n].load(0, lanes) + scalars[i] * vector)
        copy = code.stack("sums", rows * panels.width, task.dtype)
        for i in range(rows):
            for n in range(len(across)):
                copy.store(code, (i * len(across) + n) * lanes, sums[i][n].load(0, lanes))
        with code.loop(rows, "i") as i:
            place = _Row(self, code.bind("row", row + i))
            vectors = panels.vectors
            here: Index = vectors
            if task.hidden % panels.units:
                here = tirx.min(index(vectors), index(-(-task.hidden // lanes)) - panel * vectors)
            with code.loop(here, "v") as v:
                at = code.bind("at", panel * panels.units + v * lanes)
                products = {
                    f"r{gate}": copy.load(i * panels.width + (n * vectors + v) * lanes, lanes)
                    for n, gate in enumerate(panels.gates)
                }
                place.write(at, products)

    def _weights(self, panel: Expr) -> Callable[[Expr, int, int], Expr]:
        """(k, number of the gate in the phase, vector) to a vector of R."""
        task, panels, lanes = self.task, self.panels, self.task.lanes
        flat = self.task.at["R"]
        if not task.plan.packed:
            hidden, unit = task.hidden, panel * panels.units
            block = [task.direction * self.cell.gates + gate for gate in panels.gates]
            starts = [self.code.bind("start", (b * hidden + unit) * hidden) for b in block]
            return lambda k, gate, v: flat.load(starts[gate] + v * lanes * hidden + k, lanes, hidden)
        size = sum(p.size for p in task.plan.panels)
        start = task.direction * size + self.start + panel * (task.hidden * panels.width)
        start = self.code.bind("start", start)

        def load(k: Expr, gate: int, v: int) -> Expr:
            vector = flat.load(start + k * panels.width + (gate * panels.vectors + v) * lanes, lanes)
            wanted = f"{task.dtype}x{lanes}" if lanes > 1 else task.dtype
            return vector if str(vector.ty.dtype) == wanted else tirx.Cast(wanted, vector)

        return load


class _Row:
    """What a step makes of the sums of one row."""

    def __init__(self, step: Step, row: Expr):
        self.step, self.task, self.code, self.cell = step, step.task, step.code, step.cell
        task, code = self.task, self.code
        self.row = row
        sequence = code.bind("sequence", task.first + row)
        limit = task.length
        if "lengths" in self.cell.operands:
            limit = code.bind("limit", task.length_of(sequence))
        self.active = tirx.LT(step.step, limit) if "lengths" in self.cell.operands else True
        time = code.bind("time", self._time(limit))
        self.x_at = code.bind("x_at", (time * task.batch + sequence) * self._columns() + self._column(0))
        self.y_at = self._output(time, sequence)
        self.ended_at = self._output(step.step, sequence) if "lengths" in self.cell.operands else None

    def _columns(self) -> int:
        return self.cell.directions * self.cell.gates * self.task.hidden

    def _column(self, gate: int) -> Expr:
        """Where a gate's values begin among those of all directions and gates."""
        return (self.task.direction * self.cell.gates + gate) * self.task.hidden

    def _time(self, limit: Expr) -> Expr:
        back = limit - 1 - self.step.step
        reverse = self.cell.reverse
        if len(set(reverse)) == 1:
            return back if reverse[0] else self.step.step
        return tirx.Select(tirx.EQ(self.task.direction, index(reverse.index(True))), back, self.step.step)

    def _output(self, time: Expr, sequence: Expr) -> Expr:
        task = self.task
        place = (time * self.cell.directions + task.direction) * task.batch + sequence
        return self.code.bind("y_at", place * task.hidden)

    def write(self, at: Expr, products: Mapping[str, Expr]) -> None:
        """The units from `at` on."""
        code, task, step = self.code, self.task, self.step
        here = code.bind("here", self.row * task.pitch + at)
        with code.when(self.active):
            values = {var: self._input(name, at, here, products) for name, var in step.phase.inputs.items()}
            for var, formula in step.phase.steps:
                values[var] = code.bind(var.name, lift(code, formula, values))
            for name, result in step.phase.results.items():
                value = broadcast(lift(code, result, values), task.lanes)
                task.states[name].store(code, here + step.then if name == "h" else here, value)
                if name == "h":
                    task.store("y", self.y_at + at, at, value)
        if self.active is not True and "h" in step.phase.results:
            with code.when(tirx.Not(self.active)):
                h = task.states["h"]
                h.store(code, here + step.then, h.load(here + step.now, task.lanes))
                assert self.ended_at is not None  # where there are lengths
                task.store("y", self.ended_at + at, at, tirx.const(0.0, task.dtype))

    def _input(self, name: str, at: Expr, here: Expr, products: Mapping[str, Expr]) -> Expr:
        task, step = self.task, self.step
        kind, number = (name[0], int(name[1:])) if name[1:].isdigit() else (name, 0)
        if kind == "x":
            value = task.load("x", self.x_at + number * task.hidden + at, at)
        elif kind == "r":
            value = products[name]
            if step.scale is not None:
                scale = task.load("scale", self._column(number) + at, at)
                value = value * (scale * broadcast(step.scale, task.lanes))
        elif kind == "p":
            value = task.load("p", (task.direction * 3 + number) * task.hidden + at, at)
        elif kind == "b":
            value = task.load("b", task.direction * task.hidden + at, at)
        else:
            value = task.states[name].load(here + step.now if name == "h" else here, task.lanes)
        return self.code.bind(name, value)
