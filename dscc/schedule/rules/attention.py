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
fewer loads are not what limits it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tvm import tirx
from tvm.ir import Expr

from dscc.schedule.base import Rule, Scheduled
from dscc.schedule.code import Code, Flat, Index, broadcast, ceildiv, constant, first_lanes, index, product
from dscc.schedule.decisions import Decisions
from dscc.schedule.machine import Machine
from dscc.schedule.math import exp_below_one

_KEYS = 64  # keys in a block: their scores stay in the first-level cache
_LOWEST = -3.4028234663852886e38


class Attention(Rule):
    """Functions that carry the attribute `dscc.attention`; see dscc/passes/lower/legalize/attention.py."""

    name: ClassVar[str] = "attention"

    def apply(
        self, func: tirx.PrimFunc, constants: frozenset[int], machine: Machine, decisions: Decisions
    ) -> Scheduled | None:
        if not func.attrs or "dscc.attention" not in func.attrs:
            return None
        params = [p for p in func.params if tirx.is_buffer_var(p)]
        sizes = [constant(n) for p in (*params[:3], params[-1]) for n in p.shape[2:]]
        if any(n is None for n in sizes) or any(str(p.dtype) != "float32" for p in params):
            return None
        code = Code()
        shape = _Shape.of(func, params, machine)
        views = [code.view(p) for p in params]
        blocks = ceildiv(shape.queries, shape.lanes)
        with code.loop(product([shape.batch, shape.heads, blocks]), "task", "parallel") as task:
            pair = code.bind("pair", task // index(blocks))
            start = code.bind("start", task % index(blocks) * shape.lanes)
            place = _Place(code.bind("batch", pair // shape.heads), code.bind("head", pair % shape.heads), start)
            bias = views[3] if len(views) == 5 else None
            _Block(code, shape, place, views[0], views[1], views[2], bias, views[-1]).write()
        return Scheduled(func.with_body(code.stmt()))


@dataclass(frozen=True)
class _Shape:
    """Extents, as in the legalization, and what else is known of an attention."""

    batch: Index
    queries: Index
    keys: Index
    heads: int
    groups: int
    size: int
    value_size: int
    bias: tuple[Index, ...]
    scale: float
    offset: Expr | None  # query i sees the keys up to i plus this; None: all of them
    lanes: int
    tile: int  # keys, or elements of a value, whose sums are in registers at once

    @staticmethod
    def of(func: tirx.PrimFunc, params: list[tirx.Var], machine: Machine) -> _Shape:
        q, k, v = params[:3]
        queries, keys = q.shape[1], k.shape[1]
        causal = str(func.attrs["dscc.attention.causal"])
        offset = index(0) if causal == "TopLeft" else tirx.abs(index(keys) - index(queries))
        heads, groups, size, value_size = (int(n) for n in (q.shape[2], k.shape[2], q.shape[3], v.shape[3]))
        bias = tuple(params[3].shape) if len(params) == 5 else ()
        scale = float(func.attrs["dscc.attention.scale"].value)
        # without 32 registers eight sums leave too few for the scalars, which only AVX-512 takes from memory
        tile = 8 if machine.vector_registers >= 32 else 6
        sizes = (heads, groups, size, value_size)
        see = offset if causal else None
        return _Shape(q.shape[0], queries, keys, *sizes, bias, scale, see, machine.lanes(), tile)


@dataclass(frozen=True)
class _Place:
    """Which queries one task works on."""

    batch: Expr
    head: Expr
    start: Expr


class _Block:
    """One vector of queries against all keys."""

    def __init__(
        self, code: Code, shape: _Shape, place: _Place, q: Flat, k: Flat, v: Flat, bias: Flat | None, out: Flat
    ):
        self.code, self.shape, self.place, self.lanes = code, shape, place, shape.lanes
        self.q, self.k, self.v, self.bias, self.out = q, k, v, bias, out
        self.left = code.bind("left", index(shape.queries) - place.start)  # queries, perhaps more than lanes
        self.turned = self._rows("turned", shape.size)
        self.mixed = self._rows("mixed", shape.value_size)
        self.scores = self._rows("scores", _KEYS)
        self.most, self.best, self.total = (code.stack(name, self.lanes) for name in ("most", "best", "total"))
        group = place.head // (shape.heads // shape.groups) if shape.heads != shape.groups else place.head
        self.query_at, self.query_step = self._start(shape.queries, shape.heads, shape.size, place.head)
        self.out_at, self.out_step = self._start(shape.queries, shape.heads, shape.value_size, place.head)
        self.key_at, self.key_step = self._start(shape.keys, shape.groups, shape.size, group)
        self.value_at, self.value_step = self._start(shape.keys, shape.groups, shape.value_size, group)

    def _rows(self, name: str, count: int) -> Flat:
        """Room for `count` vectors, and for the rest of a square of them."""
        return self.code.stack(name, -(-count // self.lanes) * self.lanes * self.lanes)

    def _start(self, length: Index, heads: int, size: int, head: Expr) -> tuple[Expr, int]:
        """Offset of position 0 in this batch and head, and the step from one position to the next."""
        base = self.place.batch * index(product([length, heads * size])) + head * size
        return self.code.bind("base", base), heads * size

    def write(self) -> None:
        code, shape, lanes = self.code, self.shape, self.lanes
        self._turn_queries()
        self.most.store(code, 0, self._all(_LOWEST))
        self.total.store(code, 0, self._all(0.0))
        with code.loop(shape.value_size, "e") as e:
            self.mixed.store(code, e * lanes, self._all(0.0))
        last = index(shape.keys)
        if shape.offset is not None:
            last = code.bind("last", tirx.min(last, self.place.start + lanes + shape.offset))
        with code.loop(ceildiv(last, _KEYS), "block") as block:
            first = code.bind("first", block * _KEYS)
            count = code.bind("count", tirx.min(index(_KEYS), last - first))
            self._score(first, count)
            decay = self._weigh(count)
            self._mix(first, count, decay)
        self._finish()

    def _turn_queries(self) -> None:
        """turned[d, lane] = scale * q[lane, d]; lanes without a query repeat the last one."""
        code, shape, lanes = self.code, self.shape, self.lanes
        last = code.bind("last", index(shape.queries) - 1)
        rows = [tirx.min(self.place.start + i, last) * self.query_step + self.query_at for i in range(lanes)]
        rows = [code.bind("row", row) for row in rows]
        for d, mask in self._squares(shape.size):
            square = [self.q.load(row + d, lanes, mask=mask) * self._all(shape.scale) for row in rows]
            for i, vector in enumerate(self._transposed(square)):
                self.turned.store(code, (d + i) * lanes, vector)

    def _score(self, first: Expr, count: Expr) -> None:
        """Scores of `count` keys, and the largest of each lane in `best`."""
        code, size = self.code, self.shape.tile
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
        here = code.bind("here", self.key_at + (first + key) * self.key_step)
        with code.loop(self.shape.size, "d") as d:
            for i in range(tile):
                scalar = broadcast(self.k.load(here + i * self.key_step + d), lanes)
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
        batches, heads, rows, _ = self.shape.bias
        keys = index(self.shape.keys)
        at = key
        if constant(batches) != 1:
            at = at + self.place.batch * index(product([heads, rows, keys]))
        if constant(heads) != 1:
            at = at + self.place.head * index(product([rows, keys]))
        if constant(rows) == 1:
            return score + broadcast(self.bias.load(at), self.lanes)
        last = index(self.shape.queries) - 1
        lanes = [self.bias.load(at + tirx.min(self.place.start + i, last) * keys) for i in range(self.lanes)]
        return score + tirx.Shuffle(lanes, list(range(self.lanes)))

    def _masked(self, score: Expr, key: Expr) -> Expr:
        """The score where the query of the lane may see the key."""
        if self.shape.offset is None:
            return score
        ahead = tirx.Cast("int32", key - self.shape.offset - self.place.start)
        seen = tirx.GE(tirx.Ramp(0, 1, self.lanes), tirx.Broadcast(ahead, self.lanes))
        return tirx.Select(seen, score, self._all(_LOWEST))

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
        full, rest = divmod(self.shape.value_size, self.shape.tile)
        with self.code.loop(full, "tile") as tile:
            self._mix_tile(first, count, decay, tile * self.shape.tile, self.shape.tile)
        if rest:
            self._mix_tile(first, count, decay, index(full * self.shape.tile), rest)

    def _mix_tile(self, first: Expr, count: Expr, decay: Expr, e: Expr, tile: int) -> None:
        code, lanes = self.code, self.lanes
        sums = self._sums(tile)
        for i in range(tile):
            sums[i].store(code, 0, self.mixed.load((e + i) * lanes, lanes) * decay)
        here = code.bind("here", self.value_at + first * self.value_step + e)
        with code.loop(count, "key") as key:
            for i in range(tile):
                scalar = broadcast(self.v.load(here + key * self.value_step + i), lanes)
                self._add(sums[i], scalar * self.scores.load(key * lanes, lanes))
        for i in range(tile):
            self.mixed.store(code, (e + i) * lanes, sums[i].load(0, lanes))

    def _finish(self) -> None:
        """out[lane, e] = mixed[e, lane] / total[lane]."""
        code, lanes = self.code, self.lanes
        share = code.bind("share", self._all(1.0) / self.total.load(0, lanes))
        row = code.bind("row", self.out_at + self.place.start * self.out_step)
        for e, mask in self._squares(self.shape.value_size):
            square = [self.mixed.load((e + i) * lanes, lanes) * share for i in range(lanes)]
            for lane, values in enumerate(self._transposed(square)):
                with code.when(self.left > lane):
                    self.out.store(code, row + lane * self.out_step + e, values, mask=mask)

    def _squares(self, size: int):  # type: ignore[no-untyped-def]
        """Inside a loop over full vectors, and once more for what is left: the first element and its mask."""
        full, rest = divmod(size, self.lanes)
        if full:
            with self.code.loop(full, "square") as i:
                yield self.code.bind("at", i * self.lanes), None
        if rest:
            yield index(full * self.lanes), first_lanes(index(rest), self.lanes)

    def _transposed(self, rows: list[Expr]) -> list[Expr]:
        """The columns of a square matrix given as vectors: log2(n) rounds in which pairs of vectors swap blocks.

        The vectors are passed on in arrays, which LLVM keeps in registers: TVM's analysis would substitute variables
        into each other, at a cost exponential in the number of rounds.
        """
        n, distance = len(rows), 1
        while distance < n:
            held = self.code.stack("square", n * n)
            for i, row in enumerate(rows):
                held.store(self.code, i * n, row)
            low = [(i // distance % 2) * n + i // distance // 2 * 2 * distance + i % distance for i in range(n)]
            for i in range(n):
                if i // distance % 2 == 0:
                    pair = [held.load(i * n, n), held.load((i + distance) * n, n)]
                    rows[i] = tirx.Shuffle(pair, low)
                    rows[i + distance] = tirx.Shuffle(pair, [j + distance for j in low])
            distance *= 2
        return rows

    def _sums(self, tile: int) -> list[Flat]:
        """Vectors of their own: TVM 0.27 gives arrays of equal size the same memory, which then is no register."""
        return [self.code.stack("sum", self.lanes) for _ in range(tile)]

    def _add(self, sum_: Flat, value: Expr) -> None:
        sum_.store(self.code, 0, sum_.load(0, self.lanes) + value)

    def _all(self, value: float) -> Expr:
        return broadcast(tirx.const(value, "float32"), self.lanes)
