"""Attention without the matrix of scores: a block of queries against blocks of keys, softmax in passing.

    block of 16 x 16 threads: some queries of one head                  (64 queries and 64 keys at a time, if they fit)
        for every block of keys:
            S = scale * Q K^T + bias        register tiles of each thread, K by slices through shared memory
            m' = max(m, rows of S)          over the 16 threads of a row, through shared memory
            P = exp(S - m')                 to shared memory; l = l * exp(m - m') + this thread's part of the sum
            O = O * exp(m - m') + P V       register tiles, V by slices through shared memory
        out = O / (l of all threads of the row)

as in FlashAttention (Dao et al., 2022). Sequence lengths and the batch may be symbolic; sizes of heads are constants.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from tvm import tirx
from tvm.ir import Expr

from dscc.schedule.base import Scheduled
from dscc.schedule.code import ceildiv, index, product, quotient, remainder
from dscc.schedule.decisions import Decisions
from dscc.schedule.gpu.device import Device, DeviceRule
from dscc.schedule.gpu.kernel import Kernel
from dscc.schedule.heads import LOWEST, Heads

_SIDE = 16  # threads of a block along queries, and along keys or elements of values
_SLICE = 16  # elements of keys, or values, that are in shared memory at once
_TILES = ((4, 4), (2, 4), (2, 2), (1, 2), (1, 1))  # queries and keys of one thread


class Attention(DeviceRule):
    """Functions that carry the attribute `dscc.attention`; see dscc/passes/lower/legalize/attention.py."""

    name: ClassVar[str] = "attention"

    def schedule(
        self, func: tirx.PrimFunc, constants: frozenset[int], device: Device, decisions: Decisions
    ) -> Scheduled | None:
        heads = Heads.of(func)
        if heads is None or heads.dtype != "float32" or device.threads < _SIDE * _SIDE:
            return None
        fitting = [tile for tile in _TILES if _shared_bytes(heads, *tile) <= device.shared_bytes]
        wide = -(-heads.value_size // _SIDE)
        fitting = [tile for tile in fitting if tile[0] * (tile[1] + wide) * 2 <= device.registers]
        if not fitting:
            return None
        names = {f"{high}x{across}": (high, across) for high, across in fitting}
        high, across = names[decisions.pick("tile", list(names))]
        code = Kernel()
        _Block(code, heads, high, across).launch()
        return Scheduled(func.with_body(code.stmt()))


def _shared_bytes(heads: Heads, high: int, across: int) -> int:
    queries, keys = high * _SIDE, across * _SIDE
    slices = _SLICE * max(keys + 1, heads.value_size)
    return 4 * (heads.size * (queries + 1) + slices + keys * (queries + 1) + queries * (_SIDE + 1))


class _Block:
    """The queries of one block against all keys."""

    def __init__(self, code: Kernel, heads: Heads, high: int, across: int):
        self.code, self.heads = code, heads
        self.views = [code.view(param) for param in heads.params]
        self.high, self.across = high, across
        self.queries_here, self.keys_here = high * _SIDE, across * _SIDE
        self.queries, self.keys = heads.queries, heads.keys
        self.size, self.value_size = heads.size, heads.value_size
        self.wide = -(-self.value_size // _SIDE)

    def launch(self) -> None:
        code = self.code
        blocks = ceildiv(self.queries, self.queries_here)
        count = product([self.heads.batch, self.heads.heads, blocks])
        with code.launch(count, [_SIDE, _SIDE]) as ((block,), (tx, ty)):
            self.tx, self.ty = tx, ty
            self.number = code.bind("t", ty * _SIDE + tx)
            pair = code.bind("pair", quotient(block, blocks))
            self.first = code.bind("first", remainder(block, blocks) * self.queries_here)
            item = code.bind("item", quotient(pair, self.heads.heads))
            self.head = self.heads.head(code, item, code.bind("head", remainder(pair, self.heads.heads)))
            self._write()

    def _write(self) -> None:
        code, high = self.code, self.high
        self.turned = code.shared("turned", self.size * (self.queries_here + 1))
        self.slice = code.shared("slice", _SLICE * max(self.keys_here + 1, self.value_size))
        self.weights = code.shared("weights", self.keys_here * (self.queries_here + 1))
        self.parts = code.shared("parts", self.queries_here * (_SIDE + 1))
        self.scores = code.local("scores", high * self.across)
        self.mixed = code.local("mixed", high * self.wide)
        self.most, self.total, self.decay = (code.local(name, high) for name in ("most", "total", "decay"))
        for i in range(high):
            self.most.store(code, i, tirx.const(LOWEST, "float32"))
            self.total.store(code, i, tirx.const(0.0, "float32"))
        for i in range(high * self.wide):
            self.mixed.store(code, i, tirx.const(0.0, "float32"))
        self._load_queries()
        last = index(self.keys)
        if self.heads.offset is not None:
            last = code.bind("last", tirx.min(last, self.first + self.queries_here + self.heads.offset))
        with code.loop(ceildiv(last, self.keys_here), "step") as step:
            begin = code.bind("begin", step * self.keys_here)
            self._score(begin)
            self._weigh(begin)
            self._mix(begin)
        self._finish()

    def _each(self, count: int, body: Callable[[Expr], None]) -> None:
        """`body` for every number below `count`, shared among the threads of the block."""
        code, threads = self.code, _SIDE * _SIDE
        with code.loop(-(-count // threads), "i") as i:
            at = code.bind("at", i * threads + self.number)
            with code.when(True if count % threads == 0 else at < count):
                body(at)

    def _load_queries(self) -> None:
        """turned[d, query] = scale * q[query, d]; queries behind the last one repeat it."""
        q, pitch = self.views[0], self.queries_here + 1

        def load(at: Expr) -> None:
            row, d = quotient(at, self.size), remainder(at, self.size)
            safe = tirx.min(self.first + row, index(self.queries) - 1)
            scale = tirx.const(self.heads.scale, "float32")
            self.turned.store(self.code, d * pitch + row, q.load(self.head.query.at(safe, d)) * scale)

        self._each(self.size * self.queries_here, load)

    def _score(self, begin: Expr) -> None:
        """scores[i, j] of this thread's queries and keys."""
        code, k, pitch = self.code, self.views[1], self.keys_here + 1
        for i in range(self.high * self.across):
            self.scores.store(code, i, tirx.const(0.0, "float32"))
        with code.loop(-(-self.size // _SLICE), "slice") as number:
            start = code.bind("start", number * _SLICE)

            def load(at: Expr) -> None:
                row, d = quotient(at, _SLICE), remainder(at, _SLICE)
                safe = tirx.min(begin + row, index(self.keys) - 1)
                value = k.load(self.head.key.at(safe, start + d))
                if self.size % _SLICE:
                    value = tirx.if_then_else(start + d < self.size, value, tirx.const(0.0, "float32"))
                self.slice.store(code, d * pitch + row, value)

            code.barrier()  # the slice before, and the queries, are done with
            self._each(_SLICE * self.keys_here, load)
            code.barrier()
            with code.loop(tirx.min(index(_SLICE), self.size - start) if self.size % _SLICE else _SLICE, "d") as d:
                row = (start + d) * (self.queries_here + 1) + self.ty * self.high
                left = [code.bind("q", self.turned.load(row + i)) for i in range(self.high)]
                right = [code.bind("k", self.slice.load(d * pitch + self.tx + j * _SIDE)) for j in range(self.across)]
                for i, a in enumerate(left):
                    for j, b in enumerate(right):
                        at = i * self.across + j
                        self.scores.store(code, at, self.scores.load(at) + a * b)

    def _weigh(self, begin: Expr) -> None:
        """Scores become weights in shared memory; `decay` is what earlier sums have to be multiplied by."""
        code, lowest = self.code, tirx.const(LOWEST, "float32")
        for i in range(self.high):
            row = self.ty * self.high + i
            query = code.bind("query", tirx.min(self.first + row, index(self.queries) - 1))
            seen = code.bind("seen", self.heads.seen(query))
            best = lowest
            for j in range(self.across):
                key = code.bind("key", begin + self.tx + j * _SIDE)
                safe = code.bind("safe", tirx.min(key, index(self.keys) - 1))
                score = self.scores.load(i * self.across + j)
                if self.heads.biased:
                    score = score + self.views[3].load(self.heads.bias_at(self.head, query, safe))
                score = code.bind("score", tirx.Select(key < seen, score, lowest))
                self.scores.store(code, i * self.across + j, score)
                best = tirx.max(best, score)
            self.parts.store(code, row * (_SIDE + 1) + self.tx, best)
        code.barrier()
        for i in range(self.high):
            row = self.ty * self.high + i
            best = code.local("best", 1)
            best.store(code, 0, self.most.load(i))
            with code.loop(_SIDE, "part") as part:
                best.store(code, 0, tirx.max(best.load(0), self.parts.load(row * (_SIDE + 1) + part)))
            now = code.bind("now", best.load(0))
            self.decay.store(code, i, tirx.exp(self.most.load(i) - now))
            self.most.store(code, i, now)
            self.total.store(code, i, self.total.load(i) * self.decay.load(i))
            for j in range(self.across):
                weight = code.bind("weight", tirx.exp(self.scores.load(i * self.across + j) - now))
                self.total.store(code, i, self.total.load(i) + weight)
                self.weights.store(code, (self.tx + j * _SIDE) * (self.queries_here + 1) + row, weight)

    def _mix(self, begin: Expr) -> None:
        """mixed = mixed * decay + weights * values."""
        code, v = self.code, self.views[2]
        for i in range(self.high):
            for j in range(self.wide):
                at = i * self.wide + j
                self.mixed.store(code, at, self.mixed.load(at) * self.decay.load(i))
        with code.loop(self.keys_here // _SLICE, "slice") as number:
            start = code.bind("start", begin + number * _SLICE)

            def load(at: Expr) -> None:
                row, e = quotient(at, self.value_size), remainder(at, self.value_size)
                # Behind the last key the weights are zero, and whatever is read must be a number.
                safe = tirx.min(start + row, index(self.keys) - 1)
                self.slice.store(code, at, v.load(self.head.value.at(safe, e)))

            code.barrier()  # the keys, or the slice before, are done with, and the weights are there
            self._each(_SLICE * self.value_size, load)
            code.barrier()
            with code.loop(_SLICE, "k") as k:
                weights_row = (number * _SLICE + k) * (self.queries_here + 1) + self.ty * self.high
                left = [code.bind("p", self.weights.load(weights_row + i)) for i in range(self.high)]
                for j in range(self.wide):
                    e = code.bind("e", self.tx + j * _SIDE)
                    inside = self.value_size % _SIDE == 0 or j < self.value_size // _SIDE
                    e = e if inside else tirx.min(e, index(self.value_size - 1))
                    value = code.bind("v", self.slice.load(k * self.value_size + e))
                    for i, p in enumerate(left):
                        at = i * self.wide + j
                        self.mixed.store(code, at, self.mixed.load(at) + p * value)

    def _finish(self) -> None:
        """out[query, e] = mixed / the sum of the weights, which all threads of the row have parts of."""
        code, out = self.code, self.views[-1]
        code.barrier()
        for i in range(self.high):
            row = self.ty * self.high + i
            self.parts.store(code, row * (_SIDE + 1) + self.tx, self.total.load(i))
        code.barrier()
        for i in range(self.high):
            row = self.ty * self.high + i
            total = code.local("sum", 1)
            total.store(code, 0, tirx.const(0.0, "float32"))
            with code.loop(_SIDE, "part") as part:
                total.store(code, 0, total.load(0) + self.parts.load(row * (_SIDE + 1) + part))
            share = code.bind("share", tirx.const(1.0, "float32") / total.load(0))
            query = code.bind("query", self.first + row)
            with code.when(query < index(self.queries)):
                for j in range(self.wide):
                    e = code.bind("e", self.tx + j * _SIDE)
                    inside = self.value_size % _SIDE == 0 or j < self.value_size // _SIDE
                    with code.when(True if inside else e < self.value_size):
                        out.store(code, self.head.out.at(query, e), self.mixed.load(i * self.wide + j) * share)
