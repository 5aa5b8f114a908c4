"""The loops of a recurrent operator.

    for direction, rows of the batch:            parallel; the states of these rows stay in cache
        for step:
            for panel of hidden units:           the recurrent weights are read once, in order
                for tile of rows:
                    sums[row, gate, unit] = sum_k state[row, k] * R[gate, unit, k]          in registers
                    next state, output = formulas of the sums, the gates' other part, the state

A hidden state has two places, one that a step reads and one that it writes; other states are used by their own unit
only. A sequence that has ended keeps its state, and its output is zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr, Var

from dscc.schedule.code import Code, Flat, Index, broadcast, ceildiv, constant, first_lanes, index, product
from dscc.schedule.code import quotient, remainder
from dscc.schedule.lanes import lift
from dscc.schedule.recurrent.cell import Cell, Phase
from dscc.schedule.recurrent.panels import Panels
from dscc.schedule.recurrent.quantize import quantize_rows


@dataclass(frozen=True)
class Plan:
    """The free numbers.

    Attributes:
        panels: of every phase.
        packed: R is in panels, else as in ONNX.
        tile: rows whose sums are in registers at once, for each phase.
        chunk: rows of one task; None: the whole batch.
    """

    panels: tuple[Panels, ...]
    packed: bool
    tile: tuple[int, ...]
    chunk: int | None

    @property
    def lanes(self) -> int:
        return self.panels[0].lanes

    @property
    def pitch(self) -> int:
        """Elements from one row of a state to the next."""
        return max(p.count * p.units for p in self.panels)


class Writer:
    """Writes one operator.

    Attributes:
        code: where to.
        cell: what it computes.
        at: its operands and outputs by name. x is (length, batch, directions * gates * hidden).
        length, batch: extents.
        dtype: element type of the states.
    """

    def __init__(self, code: Code, cell: Cell, at: Mapping[str, Flat], length: Index, batch: Index, plan: Plan):
        self.code, self.cell, self.at, self.plan = code, cell, at, plan
        self.length, self.batch = index(length), index(batch)
        self.dtype = str(at["x"].buffer.dtype)

    def write(self) -> None:
        code, cell, plan = self.code, self.cell, self.plan
        chunk = self.batch if plan.chunk is None else index(plan.chunk)
        chunks = 1 if plan.chunk is None else ceildiv(self.batch, chunk)
        with code.loop(product([cell.directions, chunks]), "task", "parallel") as task:
            direction = code.bind("direction", task if chunks == 1 else quotient(task, chunks))
            first = index(0) if chunks == 1 else code.bind("first", remainder(task, chunks) * chunk)
            rows = self.batch if chunks == 1 else tirx.min(chunk, self.batch - first)
            if len(set(cell.activations)) == 1:
                _Task(self, direction, first, rows, cell.phases(0, self.dtype)).write()
                return
            for number in range(cell.directions):
                with code.when(tirx.EQ(direction, index(number))):
                    _Task(self, index(number), first, rows, cell.phases(number, self.dtype)).write()


class _Task:
    """Some rows of one direction, all steps."""

    def __init__(self, writer: Writer, direction: Expr, first: Expr, rows: Index, phases: Sequence[Phase]):
        self.code, self.cell, self.at, self.plan = writer.code, writer.cell, writer.at, writer.plan
        self.length, self.batch, self.dtype = writer.length, writer.batch, writer.dtype
        self.direction, self.first, self.phases = direction, first, phases
        self.rows: Index = constant(rows) or self.code.bind("rows", rows)
        self.lanes, self.hidden, self.pitch = self.plan.lanes, self.cell.hidden, self.plan.pitch
        self.size = product([self.batch if self.plan.chunk is None else self.plan.chunk, self.pitch])
        names = dict.fromkeys(name for phase in phases for name in phase.results)
        self.states = {n: self.code.heap(n, product([self.size, 2 if n == "h" else 1]), self.dtype) for n in names}
        self.steps = self.code.heap("steps", self.size, self.dtype) if "scale" in self.cell.operands else None

    def write(self) -> None:
        code = self.code
        self._begin()
        with code.loop(self.length, "step") as step:
            parity = remainder(step, 2)
            now = code.bind("now", parity * self.size)
            then = code.bind("then", (1 - parity) * self.size)
            start = index(0)
            for phase, panels, tile in zip(self.phases, self.plan.panels, self.plan.tile, strict=True):
                _Step(self, phase, panels, tile, start, step, now, then).write()
                start = start + panels.size
        self._end()

    def _begin(self) -> None:
        """The first states: given, or zero."""
        code = self.code
        for name in ("h", "c"):
            if name in self.states:
                with self._each("row", self.rows) as row, self._vectors() as at:
                    value: Expr = tirx.const(0.0, self.dtype)
                    if name in self.cell.operands:
                        value = self.load(name, self._place(row) + at, at)
                    self.states[name].store(code, row * self.pitch + at, broadcast(value, self.lanes))

    def _end(self) -> None:
        """The last states."""
        last = self.code.bind("last", remainder(self.length, 2) * self.size)
        for name, output in (("h", "y_h"), ("c", "y_c")):
            if output in self.at:
                with self._each("row", self.rows) as row, self._vectors() as at:
                    here = row * self.pitch + at + (last if name == "h" else index(0))
                    value = self.states[name].load(here, self.lanes)
                    if "lengths" in self.cell.operands:  # of a sequence without steps onnxruntime says zero as well
                        empty = tirx.LE(self.at["lengths"].load(self.first + row), tirx.const(0, "int32"))
                        zero = broadcast(tirx.const(0.0, self.dtype), self.lanes)
                        value = tirx.Select(broadcast(empty, self.lanes), zero, value)
                    self.store(output, self._place(row) + at, at, value)

    def _place(self, row: Expr) -> Expr:
        """Where the row's states begin in an operand (directions, batch, hidden)."""
        return self.code.bind("place", (self.direction * self.batch + self.first + row) * self.hidden)

    def _each(self, name: str, extent: Index):  # type: ignore[no-untyped-def]
        return self.code.loop(extent, name)

    def _vectors(self):  # type: ignore[no-untyped-def]
        return _Scaled(self.code.loop(ceildiv(self.hidden, self.lanes), "v"), self.lanes)

    def mask(self, at: Expr) -> Expr | None:
        """Which lanes from unit `at` on are units; None: all of them, always."""
        if self.hidden % self.lanes == 0:
            return None
        return first_lanes(index(self.hidden) - at, self.lanes)

    def load(self, name: str, offset: Expr, at: Expr) -> Expr:
        """A vector of an operand, which holds values of the units from `at` on."""
        return self.at[name].load(offset, self.lanes, mask=self.mask(at))

    def store(self, name: str, offset: Expr, at: Expr, value: Expr) -> None:
        self.at[name].store(self.code, offset, broadcast(value, self.lanes), mask=self.mask(at))


class _Scaled:
    """A loop whose variable is multiplied."""

    def __init__(self, loop, by: int):  # type: ignore[no-untyped-def]
        self._loop, self._by = loop, by

    def __enter__(self) -> Expr:
        return self._loop.__enter__() * self._by

    def __exit__(self, *error: object) -> None:
        self._loop.__exit__(None, None, None)


class _Step:
    """One phase of one step."""

    def __init__(
        self, task: _Task, phase: Phase, panels: Panels, tile: int, start: Expr, step: Expr, now: Expr, then: Expr
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
        with code.loop(self.panels.count, "panel") as panel:
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

    def _weights(self, panel: Expr):  # type: ignore[no-untyped-def]
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

    def __init__(self, step: _Step, row: Expr):
        self.step, self.task, self.code, self.cell = step, step.task, step.code, step.cell
        task, code = self.task, self.code
        self.row = row
        sequence = code.bind("sequence", task.first + row)
        limit = task.length
        if "lengths" in self.cell.operands:
            given = index(task.at["lengths"].load(sequence))
            limit = code.bind("limit", tirx.min(tirx.max(given, index(0)), task.length))
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


def write_panels(code: Code, cell: Cell, panels: Sequence[Panels], source: Flat, target: Flat) -> None:
    """Copy R (directions, gates * hidden, hidden) to panels when the model runs; padding repeats the last unit."""
    size = sum(p.size for p in panels)
    hidden = cell.hidden
    with code.loop(cell.directions, "direction") as direction:
        start = direction * size
        for p in panels:
            with code.loop(p.count, "panel") as panel, code.loop(hidden, "k") as k:
                for n, gate in enumerate(p.gates):
                    with code.loop(p.units, "u") as u:
                        unit = tirx.min(panel * p.units + u, index(hidden - 1))
                        value = source.load(((direction * cell.gates + gate) * hidden + unit) * hidden + k)
                        target.store(code, start + (panel * hidden + k) * p.width + n * p.units + u, value)
            start = start + p.size
