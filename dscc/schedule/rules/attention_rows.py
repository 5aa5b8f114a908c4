"""Attention of a few queries, as when a model decodes a token over a cache: elements are in the lanes of the vectors.

A task has one query and some of the heads that read the same keys; keys and values are read once for all of them.

    s[j] = sum_d q[d] * k[j, d]         as many keys as lanes at once: their partial sums are turned around and added up
    m' = max(m, s);  p = exp(s - m');  l = l * exp(m - m') + sum_j p[j];  m = m'
    o[e] = o[e] * exp(m - m') + sum_j p[j] * v[j, e]
    out[e] = o[e] / l

With queries in the lanes (attention.py) one query would take as long as a vector of them.
"""

from __future__ import annotations

from tvm import tirx
from tvm.ir import Expr

from dscc.schedule.code import Code, Flat, broadcast, ceildiv, first_lanes, index, product, quotient, remainder
from dscc.schedule.heads import LOWEST, Head, Heads
from dscc.schedule.math import exp_below_one
from dscc.schedule.squares import sums

_KEYS = 64  # keys in a block: their scores stay in the first-level cache
_HEADS = 4  # of a task


def fits(heads: Heads, lanes: int) -> bool:
    """Whether rows of queries and values are whole vectors."""
    return heads.size % lanes == 0 and heads.value_size % lanes == 0


def write(code: Code, heads: Heads, lanes: int) -> None:
    """Attention for every query by itself."""
    views = [code.view(param) for param in heads.params]
    share = heads.heads // heads.groups
    sizes = [min(_HEADS, share - first) for first in range(0, share, _HEADS)]  # of the parts of a group
    parts = len(sizes)
    extent = product([heads.batch, heads.queries, heads.groups * parts])
    with code.loop(extent, "task", "parallel") as task:
        row = code.opaque("row", quotient(task, heads.groups * parts))
        item = code.opaque("item", quotient(row, heads.queries))
        query = code.opaque("query", remainder(row, heads.queries))
        place = code.opaque("place", remainder(task, heads.groups * parts))
        part = code.opaque("part", remainder(place, parts))
        first = code.opaque("first", quotient(place, parts) * share + part * _HEADS)
        for size in sorted({*sizes}):
            here = tirx.EQ(part, index(parts - 1)) if size == sizes[-1] else part < parts - 1
            with code.when(here if len({*sizes}) > 1 else True):
                _Task(code, heads, lanes, views, item, query, first, size).write()


class _Task:
    """One query of `count` heads from `first` on, which read the same keys."""

    def __init__(
        self,
        code: Code,
        heads: Heads,
        lanes: int,
        views: list[Flat],
        item: Expr,
        query: Expr,
        first: Expr,
        count: int,
    ):
        self.code, self.heads, self.lanes, self.query = code, heads, lanes, query
        self.q, self.k, self.v, self.out = *views[:3], views[-1]
        self.bias = views[3] if heads.biased else None
        self.rows: list[Head] = [heads.head(code, item, first + i) for i in range(count)]
        self.last = code.opaque("last", heads.seen(query))
        self.queries = [code.stack("query", heads.size) for _ in self.rows]
        self.scores = [code.stack("scores", _KEYS) for _ in self.rows]
        self.mixed = [code.stack("mixed", heads.value_size) for _ in self.rows]
        self.most = [code.stack("most", 1) for _ in self.rows]
        self.total, self.best = ([code.stack(name, lanes) for _ in self.rows] for name in ("total", "best"))

    def write(self) -> None:
        code, heads, lanes = self.code, self.heads, self.lanes
        for i, row in enumerate(self.rows):
            for d in range(0, heads.size, lanes):
                x = self.q.load(row.query.at(self.query, d), lanes) * self._all(heads.scale)
                self.queries[i].store(code, d, x)
            for e in range(0, heads.value_size, lanes):
                self.mixed[i].store(code, e, self._all(0.0))
            self.total[i].store(code, 0, self._all(0.0))
            self.most[i].store(code, 0, tirx.const(LOWEST, "float32"))
        with code.loop(ceildiv(self.last, _KEYS), "block") as block:
            first = code.opaque("start", block * _KEYS)
            count = code.opaque("count", tirx.min(index(_KEYS), self.last - first))
            self._score(first, count)
            self._weigh(count)
            self._mix(first, count)
        for i, row in enumerate(self.rows):
            total = code.fold(self.total[i].load(0, lanes), lambda a, b: a + b)
            share = broadcast(code.bind("share", tirx.const(1.0, "float32") / total), lanes)
            for e in range(0, heads.value_size, lanes):
                self.out.store(code, row.out.at(self.query, e), self.mixed[i].load(e, lanes) * share)

    def _score(self, first: Expr, count: Expr) -> None:
        """Scores of `count` keys from `first` on, and the largest of every lane; keys after the last one count
        nothing.
        """
        code, lanes = self.code, self.lanes
        for best in self.best:
            best.store(code, 0, self._all(LOWEST))
        with code.loop(ceildiv(count, lanes), "vector") as vector:
            key = code.opaque("key", first + vector * lanes)
            keys = [code.bind("k", tirx.min(key + j, self.last - 1)) for j in range(lanes)]
            within = first_lanes(self.last - key, lanes)
            for i, row in enumerate(self.rows):
                score = self._products(i, [row.key.at(at, 0) for at in keys])
                if self.bias is not None:
                    score = score + self.bias.load(self.heads.bias_at(row, self.query, key), lanes, mask=within)
                score = code.bind("score", tirx.Select(within, score, self._all(LOWEST)))
                self.scores[i].store(code, vector * lanes, score)
                self.best[i].store(code, 0, tirx.max(self.best[i].load(0, lanes), score))

    def _products(self, i: int, places: list[Expr]) -> Expr:
        """The products of a query with as many keys as there are lanes, one in each."""
        code, lanes = self.code, self.lanes
        partial = []
        for place in places:
            held = code.stack("sum", lanes)
            for d in range(0, self.heads.size, lanes):
                term = self.queries[i].load(d, lanes) * self.k.load(place + d, lanes)
                held.store(code, 0, term if d == 0 else held.load(0, lanes) + term)
            partial.append(held.load(0, lanes))
        return sums(code, partial)

    def _weigh(self, count: Expr) -> None:
        """Scores become weights, and earlier sums are made less by as much as the largest score has grown."""
        code, lanes = self.code, self.lanes
        for i, scores in enumerate(self.scores):
            before = code.bind("before", self.most[i].load(0))
            best = code.fold(self.best[i].load(0, lanes), tirx.max)
            most = broadcast(code.bind("most", tirx.max(before, best)), lanes)
            decay = code.bind("decay", code.steps(exp_below_one(broadcast(before, lanes) - most)))
            self.most[i].store(code, 0, tirx.max(before, best))
            self.total[i].store(code, 0, self.total[i].load(0, lanes) * decay)
            for e in range(0, self.heads.value_size, lanes):
                self.mixed[i].store(code, e, self.mixed[i].load(e, lanes) * decay)
            with code.loop(ceildiv(count, lanes), "vector") as vector:
                weight = code.steps(exp_below_one(scores.load(vector * lanes, lanes) - most))
                weight = code.bind("weight", weight)
                scores.store(code, vector * lanes, weight)
                self.total[i].store(code, 0, self.total[i].load(0, lanes) + weight)

    def _mix(self, first: Expr, count: Expr) -> None:
        code, lanes = self.code, self.lanes
        value = self.rows[0].value  # the same for all
        with code.loop(count, "key") as key:
            here = code.bind("here", value.at(first + key, 0))
            for e in range(0, self.heads.value_size, lanes):
                values = code.bind("v", self.v.load(here + e, lanes))
                for mixed, scores in zip(self.mixed, self.scores, strict=True):
                    term = broadcast(scores.load(key), lanes) * values
                    mixed.store(code, e, mixed.load(e, lanes) + term)

    def _all(self, value: float) -> Expr:
        return broadcast(tirx.const(value, "float32"), self.lanes)
