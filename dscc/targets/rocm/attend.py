"""Attention by AMD's matrix instructions, without the matrix of scores.

    block of four wavefronts, each with 16 queries or 32 of one head; a lane has one query of every 16:
        for every block of keys:
            all threads: keys and turned values to shared memory, the next block's from memory to registers
            S' = K Q'               a lane has some keys' scores of its query
            m' = max(m, S')         over the lanes that have the same query
            P = exp(S' - m'); l = l * exp(m - m') + this lane's part of the sum
            O' = O' * exp(m - m') + V' P'
        out = O / (l of the lanes that have the same query)

The transposed products are why everything but keys and values stays in registers: a lane holds the sums of one product
where the next one wants its right factor (on RDNA3 but for every other key), and what belongs to a query is one number
of a lane. Sequence lengths and the batch may be symbolic; sizes of heads are constants.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from tvm import tirx
from tvm.ir import Expr

from dscc.schedule.code import Flat, broadcast, ceildiv, index, product, quotient, remainder
from dscc.schedule.gpu.kernel import Kernel
from dscc.schedule.heads import Head, Lines
from dscc.targets.rocm.attention import Shape
from dscc.targets.rocm.matrix import SIDE

_LOG2E = math.log2(math.e)


class Attend:
    """The queries of one block against all keys."""

    def __init__(self, code: Kernel, shape: Shape):
        self.code, self.shape, self.held, self.tile, self.heads = code, shape, shape.held, shape.tile, shape.heads
        self.views = [code.view(param) for param in self.heads.params]

    def launch(self) -> None:
        code, shape, heads = self.code, self.shape, self.heads
        blocks = ceildiv(heads.queries, shape.rows)
        count = product([heads.batch, heads.heads, blocks])
        with code.launch(count, shape.threads) as ((block,), (thread,)):
            self.thread = thread
            lane = code.bind("lane", remainder(thread, self.held.lanes))
            self.line, self.group = code.bind("line", remainder(lane, SIDE)), code.bind("group", quotient(lane, SIDE))
            pair = code.bind("pair", quotient(block, blocks))
            self.first = code.bind("first", remainder(block, blocks) * shape.rows)
            item, head = quotient(pair, heads.heads), remainder(pair, heads.heads)
            self.head: Head = heads.head(code, code.bind("item", item), code.bind("head", head))
            wave = quotient(thread, self.held.lanes) * (SIDE * self.tile.tall)
            top = self.first + wave + self.line
            self.rows = [code.bind("row", top + t * SIDE) for t in range(self.tile.tall)]
            self.safe_rows = [code.bind("safe", tirx.min(row, index(heads.queries) - 1)) for row in self.rows]
            self._write()

    def _write(self) -> None:
        code, shape, tall = self.code, self.shape, self.tile.tall
        dtype, sums = self.heads.dtype, self.held.sums
        self.key_tile = code.shared("key_tile", self.tile.keys * shape.key_pitch, dtype)
        self.value_tile = code.shared("value_tile", shape.wide * SIDE * shape.value_pitch, dtype)
        self.queries = code.local("queries", tall * shape.chunks * shape.run, dtype)
        self.keys_next = code.local("keys_next", -(-shape.key_units // shape.threads) * shape.key_lanes, dtype)
        self.values_next = code.local("values_next", -(-shape.value_units // shape.threads) * shape.value_lanes, dtype)
        self.scores = code.local("scores", tall * shape.groups * sums)
        self.mixed = code.local("mixed", tall * shape.wide * sums)
        self.most, self.total = code.local("most", tall), code.local("total", tall)
        for t in range(tall):
            self.most.store(code, t, _lowest())
            self.total.store(code, t, tirx.const(0.0, "float32"))
            for i in range(shape.wide):
                self.mixed.store(code, (t * shape.wide + i) * sums, _zeros(sums))
            self._load_query(t)
        last = index(self.heads.keys)
        if self.heads.offset is not None:
            last = code.bind("last", tirx.min(last, self.first + shape.rows + self.heads.offset))
        self._clear()
        self._fetch(index(0))
        with code.loop(ceildiv(last, self.tile.keys), "step") as step:
            begin = code.bind("begin", step * self.tile.keys)
            code.barrier()  # the block before is done with
            self._put()
            code.barrier()
            with code.when(begin + self.tile.keys < last):
                self._fetch(code.bind("after", begin + self.tile.keys))
            self._score()
            for t in range(tall):
                self._weigh(t, begin)
            self._mix()
        for t in range(tall):
            self._finish(t)

    def _load_query(self, t: int) -> None:
        """The lane's elements of its query; behind the last one, where keys have zeros, others of the same query."""
        code, shape, size = self.code, self.shape, self.heads.size
        lanes = math.gcd(size, shape.run)
        at = _at(self.head.query, self.safe_rows[t])
        for c in range(shape.chunks):
            for j in range(0, shape.run, lanes):
                d = self._first() + (c * SIDE + j)
                d = d if (c + 1) * SIDE <= size else tirx.min(d, index(size - lanes))
                place = (t * shape.chunks + c) * shape.run + j
                self.queries.store(code, place, self.views[0].load(at + d, lanes))

    def _clear(self) -> None:
        """Zeros behind the last elements of keys."""
        code, shape, size = self.code, self.shape, self.heads.size
        if spare := shape.chunks * SIDE - size:
            for _, (row, d) in self._parts(self.tile.keys * spare, spare, False):
                self.key_tile.store(code, row * shape.key_pitch + size + d, tirx.const(0.0, self.heads.dtype))

    def _first(self) -> Expr:
        """The lane's first place of 16 along the depth."""
        return index(0) if self.shape.run == SIDE else self.group * self.shape.run

    def _fetch(self, begin: Expr) -> None:
        """A block of keys and values to registers; behind the last key the last one again, with weights of zero."""
        code, shape = self.code, self.shape
        for i, (row, d) in self._parts(shape.key_units, self.heads.size // shape.key_lanes, False):
            at = _at(self.head.key, self._key(begin, row))
            value = self.views[1].load(at + d * shape.key_lanes, shape.key_lanes)
            self.keys_next.store(code, i * shape.key_lanes, value)
        for i, (row, e) in self._parts(shape.value_units, self.tile.keys, True):
            at = _at(self.head.value, self._key(begin, row))
            value = self.views[2].load(at + e * shape.value_lanes, shape.value_lanes)
            self.values_next.store(code, i * shape.value_lanes, value)

    def _key(self, begin: Expr, row: Expr) -> Expr:
        return self.code.bind("key", tirx.min(begin + row, index(self.heads.keys) - 1))

    def _put(self) -> None:
        """Write what was read to shared memory: a line for every key, and one for every element of the values."""
        code, shape = self.code, self.shape
        for i, (row, d) in self._parts(shape.key_units, self.heads.size // shape.key_lanes, False):
            value = self.keys_next.load(i * shape.key_lanes, shape.key_lanes)
            self.key_tile.store(code, row * shape.key_pitch + d * shape.key_lanes, value)
        for i, (row, e) in self._parts(shape.value_units, self.tile.keys, True):
            for j in range(shape.value_lanes):
                at = (e * shape.value_lanes + j) * shape.value_pitch + row
                self.value_tile.store(code, at, self.values_next.load(i * shape.value_lanes + j))

    def _parts(self, count: int, across: int, turned: bool) -> Iterator[tuple[int, tuple[Expr, Expr]]]:
        """This thread's share of `count` units: its number, and the (row, unit of the row).

        Args:
            across: units in a row; or rows, where neighbouring threads have neighbouring rows (`turned`).
        """
        code, threads = self.code, self.shape.threads
        for i in range(-(-count // threads)):
            number = code.bind("part", self.thread + i * threads)
            with code.when(True if count >= (i + 1) * threads else number < count):
                outer = code.bind("outer", quotient(number, across))
                inner = code.bind("inner", remainder(number, across))
                yield i, (inner, outer) if turned else (outer, inner)

    def _multiply(self, left: Expr, tile: Flat, right: Flat | list[Expr], at: int, sums: Flat, place: int) -> None:
        """sums += 16 lines of `tile` times what the lane holds of the right factor."""
        code, held = self.code, self.held
        for p in range(self.shape.parts):
            a = code.bind("taken", tile.load(left + p * held.run, held.run))
            b = right.load(at + p * held.run, held.run) if isinstance(right, Flat) else right[p]
            before = sums.load(place, held.sums)
            after = tirx.call_pure_extern(f"float32x{held.sums}", "dscc_multiply", a, b, before)
            sums.store(code, place, after)

    def _score(self) -> None:
        """scores[t, group] of this lane's queries, and its keys of every 16."""
        code, shape, sums = self.code, self.shape, self.held.sums
        at = code.bind("at", self.line * shape.key_pitch + self._first())
        for n in range(shape.groups):
            for t in range(self.tile.tall):
                self.scores.store(code, (t * shape.groups + n) * sums, _zeros(sums))
            for c in range(shape.chunks):
                for t in range(self.tile.tall):
                    left = at + (n * SIDE * shape.key_pitch + c * SIDE)
                    place = (t * shape.chunks + c) * shape.run
                    self._multiply(left, self.key_tile, self.queries, place, self.scores, (t * shape.groups + n) * sums)

    def _weigh(self, t: int, begin: Expr) -> None:
        """Scores become weights, and what was mixed so far is multiplied by what it is worth now."""
        code, shape, sums = self.code, self.shape, self.held.sums
        scale, row = tirx.const(self.heads.scale * _LOG2E, "float32"), self.safe_rows[t]
        first = code.bind("key", begin + self.held.row_of(self.group))
        seen = code.bind("seen", tirx.Cast("int32", tirx.min(self.heads.seen(row) - first, index(self.tile.keys))))
        best = code.bind("best", self.most.load(t))
        for n in range(shape.groups):
            for r in range(sums):
                place = (t * shape.groups + n) * sums + r
                further = n * SIDE + r * self.held.apart
                score = self.scores.load(place) * scale
                if self.heads.biased:
                    at = self.heads.bias_at(self.head, row, tirx.min(first + further, index(self.heads.keys) - 1))
                    bias = self.views[3].load(at)
                    score = score + tirx.Cast("float32", bias) * tirx.const(_LOG2E, "float32")
                score = code.bind("score", tirx.Select(tirx.IntImm("int32", further) < seen, score, _lowest()))
                self.scores.store(code, place, score)
                best = code.bind("best", tirx.max(best, score))
        best = code.bind("best", self._joined(best, tirx.max))
        nothing = code.bind("nothing", tirx.EQ(best, _lowest()))
        one, none = tirx.const(1.0, "float32"), tirx.const(0.0, "float32")
        decay = code.bind("decay", tirx.Select(nothing, one, tirx.exp2(self.most.load(t) - best)))
        base = code.bind("base", tirx.Select(nothing, none, best))
        self.most.store(code, t, best)
        total = code.bind("sum", self.total.load(t) * decay)
        for i in range(shape.groups * sums):
            place = t * shape.groups * sums + i
            weight = code.bind("weight", tirx.exp2(self.scores.load(place) - base))
            self.scores.store(code, place, weight)
            total = code.bind("sum", total + weight)
        self.total.store(code, t, total)
        for i in range(shape.wide):
            place = (t * shape.wide + i) * sums
            self.mixed.store(code, place, self.mixed.load(place, sums) * broadcast(decay, sums))

    def _joined(self, value: Expr, combine: Callable[[Expr, Expr], Expr]) -> Expr:
        """A number of this lane combined with those of all lanes that have the same query."""
        for mask in (16, 32)[: 1 if self.held.lanes == 32 else 2]:
            value = self.code.bind("value", value)
            # Not pure: TVM would compute it where it is used, which may be where some lanes are not.
            across = tirx.call_extern("float32", "dscc_across", value, tirx.IntImm("int32", mask))
            value = combine(value, self.code.bind("across", across))
        return value

    def _mix(self) -> None:
        """mixed += weights * values."""
        code, shape, sums = self.code, self.shape, self.held.sums
        at = code.bind("at", self.line * shape.value_pitch + self._first())
        for n in range(shape.groups):
            weights = [self._weights((t * shape.groups + n) * sums) for t in range(self.tile.tall)]
            for i in range(shape.wide):
                for t in range(self.tile.tall):
                    left = at + (i * SIDE * shape.value_pitch + n * SIDE)
                    self._multiply(left, self.value_tile, weights[t], 0, self.mixed, (t * shape.wide + i) * sums)

    def _weights(self, place: int) -> list[Expr]:
        """The weights of 16 keys as the right factor's parts."""
        code, shape, sums, dtype = self.code, self.shape, self.held.sums, self.heads.dtype
        if shape.parts > 1:
            return [code.bind("weight", self.scores.load(place + p)) for p in range(shape.parts)]
        own = code.bind("own", tirx.Cast(f"{dtype}x{sums}", self.scores.load(place, sums)))
        if shape.run == sums:
            return [own]
        return [code.bind("whole", tirx.call_extern(f"{dtype}x{shape.run}", "dscc_whole", own))]

    def _finish(self, t: int) -> None:
        """out[query, e] = mixed / the sum of the weights, which the lanes of the query have parts of."""
        code, shape, sums, heads = self.code, self.shape, self.held.sums, self.heads
        total = code.bind("total", self._joined(self.total.load(t), lambda a, b: a + b))
        share = code.bind("share", tirx.const(1.0, "float32") / total)
        out, dtype = self.views[-1], heads.dtype
        with code.when(self.rows[t] < index(heads.queries)):
            at = _at(self.head.out, self.rows[t])
            for i in range(shape.wide):
                place = (t * shape.wide + i) * sums
                lanes = sums if self.held.apart == 1 and heads.value_size % sums == 0 else 1
                for r in range(0, sums, lanes):
                    e = code.bind("e", self.held.row_of(self.group) + (i * SIDE + r * self.held.apart))
                    with code.when(True if (i + 1) * SIDE <= heads.value_size else e < heads.value_size):
                        value = self.mixed.load(place + r, lanes) * broadcast(share, lanes)
                        kind = dtype if lanes == 1 else f"{dtype}x{lanes}"
                        out.store(code, at + e, value if dtype == "float32" else tirx.Cast(kind, value))


def _at(lines: Lines, row: Expr) -> Expr:
    return lines.at(row, 0)


def _lowest() -> Expr:
    return tirx.const(float("-inf"), "float32")


def _zeros(lanes: int, dtype: str = "float32") -> Expr:
    return broadcast(tirx.const(0.0, dtype), lanes)
