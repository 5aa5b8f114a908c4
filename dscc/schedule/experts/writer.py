"""The kernel of a mixture of experts.

    sort the slots by expert                                   a counting sort
    rows[place] = enter(x[token of the slot])                  the one permutation
    for panels of the first weight:                            parallel
        for expert that was chosen, for tile of its rows:      the weights are read once
            hidden[place, unit] = middle(sums)                 both parts of a unit are in registers
    for panels of the second weight:                           parallel: a task owns columns of the result
        y[.., columns] = 0
        for expert that was chosen, for tile of its rows:
            y[token, column] += leave(sums)

An expert that nobody chose costs a comparison; with one token only the weights of its experts are read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr, Var

from dscc.schedule.code import Code, Flat, broadcast, ceildiv, first_lanes, index, quotient
from dscc.schedule.codes.digits import DigitRows
from dscc.schedule.experts import formula
from dscc.schedule.experts.mixture import Mixture
from dscc.schedule.experts.routing import write_routes
from dscc.schedule.experts.tiles import Sums, Weight, needs_totals, write_rows, write_totals
from dscc.schedule.lanes import lift

_APART = 16  # floats between rows, so that rows of a power of two do not compete for the same lines of the L1 cache
_TASKS = 16  # enough to keep many threads busy


@dataclass(frozen=True)
class Plan:
    """The free numbers.

    Attributes:
        task_flops: less than this is not worth handing to another thread.
    """

    task_flops: int


class Writer:
    """Writes one mixture.

    Attributes:
        at: operands and output by name, flat; weights, scales and zeros are in `first` and `second`.
    """

    def __init__(
        self,
        code: Code,
        mixture: Mixture,
        at: Mapping[str, Flat],
        first: Weight,
        second: Weight,
        tokens: Expr,
        plan: Plan,
    ):
        self.code, self.mixture, self.at = code, mixture, at
        self.first, self.second, self.plan = first, second, plan
        self.tokens = tokens
        self.lanes = first.panels.lanes

    def write(self) -> None:
        code, m = self.code, self.mixture
        slots = self.tokens * m.top  # no variable: TVM moves allocations to where none is bound
        self.routes = write_routes(code, m, self.at["ids"], slots)
        self.row_pitch = _pitch(self.first.reach)
        self.hidden_pitch = _pitch(max(self.second.reach, self.first.panels.pitch))
        self.rows = code.heap("rows", slots * self.row_pitch + 1)
        self.hidden = code.heap("hidden", slots * self.hidden_pitch + 1)
        self._permute()
        self._first(self._prepared(self.first, self.rows, self.row_pitch))
        if self.second.reach > m.inner:
            with code.loop(self.routes.kept, "row") as row, code.loop(self.second.reach - m.inner, "i") as i:
                self.hidden.store(code, row * self.hidden_pitch + m.inner + i, tirx.const(0.0, "float32"))
        self._second(self._prepared(self.second, self.hidden, self.hidden_pitch))

    def _prepared(self, weight: Weight, rows: Flat, pitch: int) -> DigitRows | Flat | None:
        """The rows as digits, where the weight's codes are multiplied with these; or their sums over its blocks, where
        tiles of few rows take them.
        """
        if weight.dot is not None:
            return DigitRows(
                self.code,
                self.routes.kept,
                weight.digits,
                lambda row, k: rows.load(row * pitch + k),
                weight.panels.lanes,
                parallel=True,
                room=self.tokens * self.mixture.top,
            )
        if not needs_totals(weight):
            return None
        totals = self.code.heap("totals", self.tokens * self.mixture.top * weight.blocks + 1)
        with self._each_row(weight.reach) as row:
            write_totals(self.code, weight, rows, pitch, row, totals)
        return totals

    @contextmanager
    def _each_row(self, elements: int) -> Iterator[Expr]:
        """Every row that is kept, of so many elements: some of them are a task."""
        code, kept = self.code, self.routes.kept
        block = max(1, self.plan.task_flops // elements // 4)
        with code.loop(ceildiv(kept, block), "task", "parallel") as task:
            first = code.opaque("first", task * block)
            with code.loop(tirx.min(index(block), kept - first), "r") as r:
                yield code.opaque("row", first + r)

    def _permute(self) -> None:
        code, m, routes = self.code, self.mixture, self.routes
        lanes, vectors = self.lanes, m.hidden // self.lanes
        with self._each_row(m.hidden) as row:
            slot = code.opaque("slot", routes.order.load(row))
            token = code.opaque("from", quotient(slot, m.top) * m.hidden)
            to = code.opaque("to", row * self.row_pitch)
            share = code.bind("share", self.at["shares"].load(slot))

            def copy(at: Expr, lanes: int, token: Expr = token, to: Expr = to, share: Expr = share) -> None:
                x = code.bind("x", self.at["x"].load(token + at, lanes))
                names = {name: Var(name, "float32") for name in ("x", "share")}
                values = {names["x"]: x, names["share"]: broadcast(share, lanes)}
                made = lift(code, formula.build(m.enter, names), values)
                self.rows.store(code, to + at, broadcast(made, lanes))

            with code.loop(vectors, "v") as v:
                copy(v * lanes, lanes)
            with code.loop(m.hidden - vectors * lanes, "v") as v:
                copy(vectors * lanes + v, 1)
            with code.loop(self.first.reach - m.hidden, "v") as v:
                self.rows.store(code, to + m.hidden + v, tirx.const(0.0, "float32"))

    def _tasks(self, weight: Weight) -> tuple[Expr, Expr]:
        """How many tasks there are, and the panels of one."""
        count = weight.panels.count
        one = 2 * weight.depth * weight.panels.width  # operations of a row with a panel
        worth = tirx.max(index(1), quotient(index(self.plan.task_flops), self.routes.kept * one + 1))
        # Panels of one expert lie side by side: a task reads as many in a row as leave enough tasks.
        group = self.code.opaque("group", tirx.min(index(count), tirx.max(worth, index(count // _TASKS))))
        return self.code.opaque("tasks", quotient(index(count) + group - 1, group)), group

    def _first(self, prepared: DigitRows | Flat | None) -> None:
        code, panels = self.code, self.first.panels
        tasks, group = self._tasks(self.first)
        with code.loop(tasks, "task", "parallel") as task:
            begin = code.opaque("panels", task * group)
            here = tirx.min(group, index(panels.count) - begin)
            self._products(self.first, self.rows, self.row_pitch, prepared, begin, here, self._activate)

    def _products(
        self,
        weight: Weight,
        rows: Flat,
        pitch: int,
        prepared: DigitRows | Flat | None,
        begin: Expr,
        here: Expr,
        use: Callable[[Sums, Expr, Expr], None],
    ) -> None:
        """Every expert's rows, `pitch` apart, times `here` panels of its weight from `begin` on; `use` takes the sums,
        the expert and the panel.
        """
        code, start = self.code, self.routes.start
        with code.loop(self.mixture.experts, "expert") as expert:
            first = code.opaque("first", start.load(expert))
            count = code.opaque("count", start.load(expert + 1) - first)
            with code.when(count > 0), code.loop(here, "p") as p:
                panel = code.opaque("panel", begin + p)

                def used(sums: Sums, expert: Expr = expert, panel: Expr = panel) -> None:
                    use(sums, expert, panel)

                read = _numbers(code, weight.panels.count, expert, panel, begin, p + 1 < here)
                write_rows(code, weight, rows, pitch, first, count, *read, prepared, used)

    def _activate(self, sums: Sums, expert: Expr, panel: Expr) -> None:
        """hidden = middle(sums)"""
        code, m, panels = self.code, self.mixture, self.first.panels
        with code.loop(sums.rows, "i") as i, code.loop(panels.vectors, "v") as v:
            unit = code.bind("unit", panel * panels.step + v * panels.lanes)
            mask = first_lanes(index(m.inner) - unit, panels.lanes) if panels.padded else None
            names: dict[str, Expr] = {}
            values: dict[Var, Expr] = {}
            for part in range(panels.parts):
                product, bias = Var("p", "float32"), Var("b", "float32")
                names |= {f"p{part}": product, f"b{part}": bias}
                values[product] = code.bind("p", sums.load(i, part, v))
                values[bias] = self._bias("b1", expert * m.columns + part * m.inner + unit, mask)
            made = lift(code, formula.build(m.middle, names), values)
            self.hidden.store(code, (sums.row + i) * self.hidden_pitch + unit, broadcast(made, panels.lanes))

    def _bias(self, name: str, place: Expr, mask: Expr | None) -> Expr:
        lanes = self.lanes if name == "b1" else self.second.panels.lanes
        if name not in self.at:
            return broadcast(tirx.const(0.0, "float32"), lanes)
        return self.code.bind("b", self.at[name].load(place, lanes, mask=mask))

    def _second(self, prepared: DigitRows | Flat | None) -> None:
        code, panels, m = self.code, self.second.panels, self.mixture
        tasks, group = self._tasks(self.second)
        y = self.at["y"]
        with code.loop(tasks, "task", "parallel") as task:
            begin = code.opaque("panels", task * group)
            here = code.opaque("here", tirx.min(group, index(panels.count) - begin))
            with code.loop(self.tokens, "t") as t, code.loop(here, "p") as p, code.loop(panels.vectors, "v") as v:
                column = code.bind("column", (begin + p) * panels.step + v * panels.lanes)
                zero = broadcast(tirx.const(0.0, "float32"), panels.lanes)
                y.store(code, t * m.out + column, zero, mask=self._columns(column))
            self._products(self.second, self.hidden, self.hidden_pitch, prepared, begin, here, self._gather)

    def _columns(self, column: Expr) -> Expr | None:
        panels = self.second.panels
        return first_lanes(index(self.mixture.out) - column, panels.lanes) if panels.padded else None

    def _gather(self, sums: Sums, expert: Expr, panel: Expr) -> None:
        """y[token] += leave(sums)"""
        code, m, panels, y = self.code, self.mixture, self.second.panels, self.at["y"]
        with code.loop(sums.rows, "i") as i:
            slot = code.opaque("slot", self.routes.order.load(sums.row + i))
            line = code.opaque("line", quotient(slot, m.top) * m.out)
            share = code.bind("share", self.at["shares"].load(slot))
            with code.loop(panels.vectors, "v") as v:
                column = code.bind("column", panel * panels.step + v * panels.lanes)
                mask = self._columns(column)
                names = {name: Var(name, "float32") for name in ("p", "b", "share")}
                values = {
                    names["p"]: code.bind("p", sums.load(i, 0, v)),
                    names["b"]: self._bias("b2", expert * m.out + column, mask),
                    names["share"]: broadcast(share, panels.lanes),
                }
                made = broadcast(lift(code, formula.build(m.leave, names), values), panels.lanes)
                before = y.load(line + column, panels.lanes, mask=mask)
                y.store(code, line + column, before + made, mask=mask)


def _numbers(code: Code, count: int, expert: Expr, panel: Expr, begin: Expr, more: Expr) -> tuple[Expr, Expr]:
    """Among all experts' panels, the number of this one, and of the one that the task reads after it: its next of this
    expert, or its first of the next.
    """
    number = code.opaque("number", expert * count + panel)
    return number, tirx.Select(more, number + 1, (expert + 1) * count + begin)


def _pitch(reach: int) -> int:
    """Elements from one row to the next: whole lines of the cache, and no power of two."""
    return -(-reach // _APART) * _APART + _APART
