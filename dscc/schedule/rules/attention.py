"""Attention without the matrix of scores: a block of queries against blocks of keys, softmax in passing.

Queries are in the lanes of the vectors. They are transposed once; keys and values are then read as they are in memory,
one scalar for all lanes, so that neither is packed; and maximum, exponential and sum of the softmax work lane by lane,
without a reduction across lanes. For the queries of one vector and all keys, in blocks:

    S[j, lane] = sum_d k[j, d] * Q[d, lane]                           register tiles of some keys
    m' = max(m, S);  P = exp(S - m');  l = l * exp(m - m') + sum_j P[j];  m = m'
    O[e, lane] = O[e, lane] * exp(m - m') + sum_j v[j, e] * P[j, lane]  register tiles of some elements
    out[lane, e] = O[e, lane] / l

as in FlashAttention (Dao et al., 2022; the online softmax is Milakov and Gimelshein's, 2018). Sequence lengths and the
batch may be symbolic; sizes of heads are constants. Tiles of several vectors of queries are no faster on Zen 4: their
fewer loads are not what limits it. A few queries go another way: attention_rows.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tvm import tirx
from tvm.ir import Expr

from dscc.schedule.base import Rule, Scheduled
from dscc.schedule.code import Code, Flat, broadcast, ceildiv, constant, decided, first_lanes, index, product
from dscc.schedule.decisions import Decisions
from dscc.schedule.heads import LOWEST, Head, Heads
from dscc.schedule.machine import Machine
from dscc.schedule.math import exp_below_one
from dscc.schedule.rules import attention_rows
from dscc.schedule.squares import transposed

_KEYS = 64  # keys in a block: their scores stay in the first-level cache
_PER_FEW = 4  # of the lanes of a vector: so many queries and fewer are taken one by one


class Attention(Rule):
    """Functions that carry the attribute `dscc.attention`; see dscc/passes/lower/legalize/attention.py."""

    name: ClassVar[str] = "attention"

    def apply(
        self, func: tirx.PrimFunc, constants: frozenset[int], machine: Machine, decisions: Decisions
    ) -> Scheduled | None:
        heads = Heads.of(func)
        if heads is None or heads.dtype != "float32":
            return None
        code, lanes = Code(), machine.lanes()
        few = index(heads.queries) <= max(1, lanes // _PER_FEW)
        by_rows = attention_rows.fits(heads, lanes)
        with code.when(decided(few) if by_rows else False):
            attention_rows.write(code, heads, lanes)
        with code.when(decided(tirx.Not(few)) if by_rows else True):
            _write(code, heads, machine)
        return Scheduled(func.with_body(code.stmt()))


def _write(code: Code, heads: Heads, machine: Machine) -> None:
    """Attention for vectors of queries."""
    lanes = machine.lanes()
    blocks = ceildiv(heads.queries, lanes)
    views = [code.view(param) for param in heads.params]
    with code.loop(product([heads.batch, heads.heads, blocks]), "task", "parallel") as task:
        pair = code.bind("pair", task // index(blocks))
        start = code.bind("start", task % index(blocks) * lanes)
        item, number = code.bind("batch", pair // heads.heads), code.bind("head", pair % heads.heads)
        # without 32 registers eight sums leave too few for the scalars, which only AVX-512 takes from memory
        tile = 8 if machine.vector_registers >= 32 else 6
        _Block(code, heads, heads.head(code, item, number), start, lanes, tile, views).write()


class _Block:
    """One vector of queries against all keys."""

    def __init__(self, code: Code, heads: Heads, head: Head, start: Expr, lanes: int, tile: int, views: Sequence[Flat]):
        """`tile` is how many keys, or elements of a value, have their sums in registers at once."""
        self.code, self.heads, self.head, self.start, self.lanes, self.tile = code, heads, head, start, lanes, tile
        self.q, self.k, self.v, self.out = *views[:3], views[-1]
        self.bias = views[3] if heads.biased else None
        self.left = code.bind("left", index(heads.queries) - start)  # queries, perhaps more than lanes
        self.turned = self._rows("turned", heads.size)
        self.mixed = self._rows("mixed", heads.value_size)
        self.scores = self._rows("scores", _KEYS)
        self.most, self.best, self.total = (code.stack(name, self.lanes) for name in ("most", "best", "total"))

    def _rows(self, name: str, count: int) -> Flat:
        """Room for `count` vectors, and for the rest of a square of them."""
        return self.code.stack(name, -(-count // self.lanes) * self.lanes * self.lanes)

    def write(self) -> None:
        code, heads, lanes = self.code, self.heads, self.lanes
        self._turn_queries()
        self.most.store(code, 0, self._all(LOWEST))
        self.total.store(code, 0, self._all(0.0))
        with code.loop(heads.value_size, "e") as e:
            self.mixed.store(code, e * lanes, self._all(0.0))
        last = heads.seen(self.start + (lanes - 1))
        last = last if heads.offset is None else code.bind("last", last)
        with code.loop(ceildiv(last, _KEYS), "block") as block:
            first = code.bind("first", block * _KEYS)
            count = code.bind("count", tirx.min(index(_KEYS), last - first))
            self._score(first, count)
            decay = self._weigh(count)
            self._mix(first, count, decay)
        self._finish()

    def _turn_queries(self) -> None:
        """turned[d, lane] = scale * q[lane, d]; lanes without a query repeat the last one."""
        code, heads, lanes = self.code, self.heads, self.lanes
        last = code.bind("last", index(heads.queries) - 1)
        rows = [self.head.query.at(tirx.min(self.start + i, last), 0) for i in range(lanes)]
        rows = [code.bind("row", row) for row in rows]
        for d, mask in self._squares(heads.size):
            square = [self.q.load(row + d, lanes, mask=mask) * self._all(heads.scale) for row in rows]
            for i, vector in enumerate(transposed(code, square)):
                self.turned.store(code, (d + i) * lanes, vector)

    def _score(self, first: Expr, count: Expr) -> None:
        """Scores of `count` keys, and the largest of each lane in `best`."""
        code, size = self.code, self.tile
        self.best.store(code, 0, self.most.load(0, self.lanes))
        with code.when(count >= size):
            with code.loop(ceildiv(count, size), "tile") as tile:  # the last one overlaps its neighbour
                self._score_tile(first, code.bind("key", tirx.min(tile * size, count - size)), size)
        with code.when(count < size):
            with code.loop(count, "key") as key:
                self._score_tile(first, key, 1)

    def _score_tile(self, first: Expr, key: Expr, tile: int) -> None:
        code, lanes = self.code, self.lanes
        sums = self._sums(tile)
        for i in range(tile):
            sums[i].store(code, 0, self._all(0.0))
        here = code.bind("here", self.head.key.at(first + key, 0))
        with code.loop(self.heads.size, "d") as d:
            for i in range(tile):
                scalar = broadcast(self.k.load(here + i * self.head.key.step + d), lanes)
                self._add(sums[i], scalar * self.turned.load(d * lanes, lanes))
        for i in range(tile):
            score = self._masked(self._biased(sums[i].load(0, lanes), first + key + i), first + key + i)
            self.scores.store(code, (key + i) * lanes, score)
            score = self.scores.load((key + i) * lanes, lanes)
            self.best.store(code, 0, tirx.max(self.best.load(0, lanes), score))

    def _biased(self, score: Expr, key: Expr) -> Expr:
        """The score with the bias of this key for all lanes, or of each lane's query."""
        if self.bias is None:
            return score
        if constant(self.heads.params[3].shape[2]) == 1:
            return score + broadcast(self.bias.load(self.heads.bias_at(self.head, index(0), key)), self.lanes)
        last = index(self.heads.queries) - 1
        rows = [tirx.min(self.start + i, last) for i in range(self.lanes)]
        lanes = [self.bias.load(self.heads.bias_at(self.head, row, key)) for row in rows]
        return score + tirx.Shuffle(lanes, list(range(self.lanes)))

    def _masked(self, score: Expr, key: Expr) -> Expr:
        """The score where the query of the lane may see the key."""
        if self.heads.offset is None:
            return score
        ahead = tirx.Cast("int32", key - self.heads.offset - self.start)
        seen = tirx.GE(tirx.Ramp(0, 1, self.lanes), tirx.Broadcast(ahead, self.lanes))
        return tirx.Select(seen, score, self._all(LOWEST))

    def _weigh(self, count: Expr) -> Expr:
        """Scores become weights; the result is what earlier sums have to be multiplied by."""
        code, lanes = self.code, self.lanes
        best = code.bind("best", self.best.load(0, lanes))
        decay = code.bind("decay", code.steps(exp_below_one(self.most.load(0, lanes) - best)))
        self.total.store(code, 0, self.total.load(0, lanes) * decay)
        self.most.store(code, 0, best)
        with code.loop(count, "key") as key:
            weight = code.bind("weight", code.steps(exp_below_one(self.scores.load(key * lanes, lanes) - best)))
            self.scores.store(code, key * lanes, weight)
            self._add(self.total, weight)
        return decay

    def _mix(self, first: Expr, count: Expr, decay: Expr) -> None:
        """mixed = mixed * decay + values * weights."""
        full, rest = divmod(self.heads.value_size, self.tile)
        with self.code.loop(full, "tile") as tile:
            self._mix_tile(first, count, decay, tile * self.tile, self.tile)
        if rest:
            self._mix_tile(first, count, decay, index(full * self.tile), rest)

    def _mix_tile(self, first: Expr, count: Expr, decay: Expr, e: Expr, tile: int) -> None:
        code, lanes = self.code, self.lanes
        sums = self._sums(tile)
        for i in range(tile):
            sums[i].store(code, 0, self.mixed.load((e + i) * lanes, lanes) * decay)
        here = code.bind("here", self.head.value.at(first, e))
        with code.loop(count, "key") as key:
            for i in range(tile):
                scalar = broadcast(self.v.load(here + key * self.head.value.step + i), lanes)
                self._add(sums[i], scalar * self.scores.load(key * lanes, lanes))
        for i in range(tile):
            self.mixed.store(code, (e + i) * lanes, sums[i].load(0, lanes))

    def _finish(self) -> None:
        """out[lane, e] = mixed[e, lane] / total[lane]."""
        code, lanes = self.code, self.lanes
        share = code.bind("share", self._all(1.0) / self.total.load(0, lanes))
        row = code.bind("row", self.head.out.at(self.start, 0))
        for e, mask in self._squares(self.heads.value_size):
            square = [self.mixed.load((e + i) * lanes, lanes) * share for i in range(lanes)]
            for lane, values in enumerate(transposed(code, square)):
                with code.when(self.left > lane):
                    self.out.store(code, row + lane * self.head.out.step + e, values, mask=mask)

    def _squares(self, size: int):  # type: ignore[no-untyped-def]
        """Inside a loop over full vectors, and once more for what is left: the first element and its mask."""
        full, rest = divmod(size, self.lanes)
        if full:
            with self.code.loop(full, "square") as i:
                yield self.code.bind("at", i * self.lanes), None
        if rest:
            yield index(full * self.lanes), first_lanes(index(rest), self.lanes)

    def _sums(self, tile: int) -> list[Flat]:
        """Vectors of their own: TVM 0.27 gives arrays of equal size the same memory, which then is no register."""
        return [self.code.stack("sum", self.lanes) for _ in range(tile)]

    def _add(self, sum_: Flat, value: Expr) -> None:
        sum_.store(self.code, 0, sum_.load(0, self.lanes) + value)

    def _all(self, value: float) -> Expr:
        return broadcast(tirx.const(value, "float32"), self.lanes)
