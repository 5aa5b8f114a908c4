"""The loops of a recurrent operator.

    for direction, rows of the batch:            parallel; the states of these rows stay in cache
        for step:
            for panel of hidden units:           the recurrent weights are read once, in order; parallel if the loop
                                                 outside is of one task, and the weights are large
                for tile of rows:
                    sums[row, gate, unit] = sum_k state[row, k] * R[gate, unit, k]          in registers
                    next state, output = formulas of the sums, the gates' other part, the state

A hidden state has two places, one that a step reads and one that it writes; other states are used by their own unit
only. A sequence that has ended keeps its state, and its output is zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr

from dscc.schedule.code import (
    Code,
    Flat,
    Index,
    broadcast,
    ceildiv,
    constant,
    first_lanes,
    index,
    product,
    quotient,
    remainder,
)
from dscc.schedule.recurrent.cell import Cell, Phase
from dscc.schedule.recurrent.panels import Panels
from dscc.schedule.recurrent.step import Step


@dataclass(frozen=True)
class Plan:
    """The free numbers.

    Attributes:
        panels: of every phase.
        packed: R is in panels, else as in ONNX.
        tile: rows whose sums are in registers at once, for each phase.
        chunk: rows of one task; None: the whole batch.
        split: where there is one task, threads share the panels of every step.
    """

    panels: tuple[Panels, ...]
    packed: bool
    tile: tuple[int, ...]
    chunk: int | None
    split: bool = False

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
        chunks = index(1) if plan.chunk is None else ceildiv(self.batch, index(plan.chunk))
        tasks = product([cell.directions, chunks])
        if not plan.split or cell.directions > 1:
            self._tasks(tasks, chunks)
            return
        one = constant(tasks) == 1 or tirx.EQ(index(tasks), index(1))
        with code.when(one):
            self._task(index(0), index(0), self.batch, "parallel")
        if one is not True:
            with code.when(tirx.Not(one)):
                self._tasks(tasks, chunks)

    def _tasks(self, tasks: Index, chunks: Index) -> None:
        """Parallel over directions and rows of the batch."""
        code = self.code
        with code.loop(tasks, "task", "parallel") as task:
            if constant(chunks) == 1:
                self._task(task, index(0), self.batch, "serial")
                return
            assert self.plan.chunk is not None  # of several chunks
            direction = code.bind("direction", quotient(task, chunks))
            first = code.bind("first", remainder(task, chunks) * self.plan.chunk)
            self._task(direction, first, tirx.min(index(self.plan.chunk), self.batch - first), "serial")

    def _task(self, direction: Expr, first: Expr, rows: Expr, panels: str) -> None:
        """All steps of some rows; `panels`: the kind of the loop over them."""
        code, cell = self.code, self.cell
        if len(set(cell.activations)) == 1:
            Task(self, direction, first, rows, cell.phases(0, self.dtype), panels).write()
            return
        for number in range(cell.directions):
            with code.when(tirx.EQ(direction, index(number))):
                Task(self, index(number), first, rows, cell.phases(number, self.dtype), panels).write()


class Task:
    """Some rows of one direction, all steps."""

    def __init__(self, writer: Writer, direction: Expr, first: Expr, rows: Index, phases: Sequence[Phase], panels: str):
        self.code, self.cell, self.at, self.plan = writer.code, writer.cell, writer.at, writer.plan
        self.length, self.batch, self.dtype = writer.length, writer.batch, writer.dtype
        self.direction, self.first, self.phases, self.panels = direction, first, phases, panels
        self.rows: Index = constant(rows) or self.code.bind("rows", rows)
        self.lanes, self.hidden, self.pitch = self.plan.lanes, self.cell.hidden, self.plan.pitch
        self.size = product([self.batch if self.plan.chunk is None else self.plan.chunk, self.pitch])
        names = dict.fromkeys(name for phase in phases for name in phase.results)
        self.states = {n: self.code.heap(n, product([self.size, 2 if n == "h" else 1]), self.dtype) for n in names}
        self.steps = self.code.heap("steps", self.size, self.dtype) if "scale" in self.cell.operands else None

    def write(self) -> None:
        code = self.code
        self._begin()
        steps = self._longest() if "lengths" in self.cell.operands else self.length
        with code.loop(steps, "step") as step:
            parity = remainder(step, 2)
            now = code.bind("now", parity * self.size)
            then = code.bind("then", (1 - parity) * self.size)
            start = index(0)
            for phase, panels, tile in zip(self.phases, self.plan.panels, self.plan.tile, strict=True):
                Step(self, phase, panels, tile, start, step, now, then).write()
                start = start + panels.size
        if "lengths" in self.cell.operands:
            self._fill(steps)
        self._end(steps)

    def length_of(self, sequence: Expr) -> Expr:
        """The steps of a sequence that has a length of its own."""
        return tirx.min(tirx.max(index(self.at["lengths"].load(sequence)), index(0)), self.length)

    def _longest(self) -> Expr:
        """The steps of the longest of the rows."""
        code = self.code
        most = code.stack("most", 1, "int64")
        most.store(code, 0, index(0))
        with code.loop(self.rows, "row") as row:
            most.store(code, 0, tirx.max(most.load(0), self.length_of(self.first + row)))
        return code.bind("longest", most.load(0))

    def _fill(self, steps: Expr) -> None:
        """Zeros behind the longest of the rows; behind the others, every step writes them."""
        with self.code.loop(self.length - steps, "rest") as rest, self._units() as (row, at):
            place = ((steps + rest) * self.cell.directions + self.direction) * self.batch + self.first + row
            self.store("y", place * self.hidden + at, at, tirx.const(0.0, self.dtype))

    def _begin(self) -> None:
        """The first states: given, or zero."""
        code = self.code
        for name in ("h", "c"):
            if name in self.states:
                with self._units() as (row, at):
                    value: Expr = tirx.const(0.0, self.dtype)
                    if name in self.cell.operands:
                        value = self.load(name, self._place(row) + at, at)
                    self.states[name].store(code, row * self.pitch + at, broadcast(value, self.lanes))

    def _end(self, steps: Expr) -> None:
        """The last states."""
        last = self.code.bind("last", remainder(steps, 2) * self.size)
        for name, output in (("h", "y_h"), ("c", "y_c")):
            if output in self.at:
                with self._units() as (row, at):
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

    @contextmanager
    def _units(self) -> Iterator[tuple[Expr, Expr]]:
        """A loop over rows and vectors of units: the row, and its first unit."""
        with self.code.loop(self.rows, "row") as row, self.code.loop(ceildiv(self.hidden, self.lanes), "v") as v:
            yield row, v * self.lanes

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
