"""Real numbers times codes of few bits, by an instruction for bytes, without loss of precision.

    sum_k x[k] * (code[k] - zero) * scale = scale * unit * sum_k q[k] * (code[k] - zero)

Within a block of k, x is `unit` times whole numbers q of 23 bits, unit a power of 2 that fits the largest of them: what
is lost is half of a unit, as much as float32 loses of that element. A whole number is three digits in base 256, each a
signed byte, so that one instruction multiplies four of them with the codes of four k, for a vector of columns, exactly:

    q = 65536 * d2 + 256 * d1 + d0
    sum_k d[k] * (code[k] - zero) = sum_k d[k] * code[k] - zero * sum_k d[k]       for each of d2, d1, d0

Both sums of a digit are below 2^24, so that their difference in float32 is exact: it is small beside them where x is of
one sign and bytes with one are stored with 128 added, and rounding would be all that is left.

That is three instructions for four products, and none to make a float of a code: more than twice as fast as expanding
where rows are few, and no slower where they are many. Where a model asks for less precision than
float32's (ROW_BITS), two digits do: q is at most 127 * 256, of units that are the largest number of the block by that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from tvm import tirx
from tvm.ir import Expr

from dscc.schedule.code import Code, Flat, Index, broadcast, index
from dscc.schedule.codes.layout import Codes, Multiplier
from dscc.schedule.tiling import Tile
from dscc.schedule.words import WORD_BYTES

COUNT, FEW = 3, 2
_BITS = 22  # of a whole number of three digits, without the sign: the largest of a block is below 2^22
_LARGEST = 127 * 256  # of two digits
_BIAS, _MANTISSA, _SIGN = 127, 23, 0x7FFFFFFF
_ROUND = 1.5 * 2**23  # added to a number below 2^22, leaves it as a whole one in the lowest bits
_ROUND_BITS = 0x4B400000
_LEAST = _BITS + 1  # biased exponent, below which all elements of a block count as 0: about 2^-104


class DigitRows:
    """Rows of real numbers as digits.

    Attributes:
        pitch: elements of a row.
        count: digits of a number.
    """

    def __init__(
        self,
        code: Code,
        rows: Index,
        codes: Codes,
        element: Callable[[Expr, Expr], Expr],
        lanes: int,
        parallel: bool,
        room: Index | None = None,
        count: int = COUNT,
    ):
        """Write the code that makes them.

        Args:
            rows: how many.
            element: (row, k) to a float32.
            lanes: elements of a vector; blocks are whole vectors.
            parallel: rows may be shared by threads.
            room: for how many rows there is to be memory, if not for `rows`.
            count: digits of a number, COUNT or FEW.
        """
        self._codes, self.pitch, self.count = codes, codes.reach, count
        room = index(rows if room is None else room)
        self._digits = code.heap("digits", room * (count * codes.reach), "int8")
        self._units = code.heap("units", room * codes.blocks)
        self._sums = code.heap("row_sums", room * (count * codes.blocks))
        lanes = min(lanes, codes.block)
        with code.loop(rows, "row", "parallel" if parallel else "serial") as row:
            copy = code.heap("row_copy", codes.reach)
            with code.loop(codes.depth // lanes, "v") as v, code.loop(lanes, "l", "vectorized") as lane:
                code.add(tirx.BufferStore(copy.buffer, element(row, v * lanes + lane), [v * lanes + lane]))
            with code.loop(codes.depth % lanes, "v") as v:
                at = codes.depth // lanes * lanes + v
                code.add(tirx.BufferStore(copy.buffer, element(row, at), [at]))
            with code.loop(codes.reach - codes.depth, "v") as v:
                copy.store(code, codes.depth + v, tirx.const(0.0, "float32"))
            with code.loop(codes.blocks, "block") as block:
                self._block(code, copy, row, block, lanes)

    def _block(self, code: Code, copy: Flat, row: Expr, block: Expr, lanes: int) -> None:
        size, number = self._codes.block, row * self._codes.blocks + block

        def bits(value: Expr) -> Expr:
            return tirx.reinterpret(f"int32x{lanes}", value)

        def constant(value: int) -> Expr:
            return broadcast(tirx.const(value, "int32"), lanes)

        # Of the bits as whole numbers, which are in the order of the sizes, and those of NaN above all.
        most = code.stack("most", lanes, "int32")
        most.store(code, 0, constant(0))
        with code.loop(size // lanes, "v") as v:
            found = tirx.bitwise_and(bits(copy.load(block * size + v * lanes, lanes)), constant(_SIGN))
            most.store(code, 0, tirx.max(most.load(0, lanes), found))
        largest = code.fold(most.load(0, lanes), tirx.max)
        exponent = code.bind("e", tirx.max(largest >> tirx.const(_MANTISSA, "int32"), tirx.const(_LEAST, "int32")))

        def power(biased: Expr) -> Expr:
            return tirx.reinterpret("float32", biased << tirx.const(_MANTISSA, "int32"))

        if self.count == COUNT:
            inverse = code.bind("inverse", power(tirx.const(2 * _BIAS + _BITS - 1, "int32") - exponent))
            unit = power(exponent - tirx.const(_BITS - 1, "int32"))
        else:  # nothing is exact then, and this unit is smaller
            peak = tirx.max(tirx.reinterpret("float32", largest), power(tirx.const(_LEAST, "int32")))
            peak = code.bind("peak", peak)
            inverse = code.bind("inverse", tirx.const(float(_LARGEST), "float32") / peak)
            unit = peak * tirx.const(1.0 / _LARGEST, "float32")
        # Infinity and NaN have the exponent 255: their rows are NaN.
        unit = tirx.Select(exponent > 254, tirx.const(float("nan"), "float32"), unit)
        self._units.store(code, number, unit)
        totals = code.stack("totals", self.count * lanes, "int32")
        for digit in range(self.count):
            totals.store(code, digit * lanes, constant(0))
        with code.loop(size // lanes, "v") as v:
            at = block * size + v * lanes
            rounded = copy.load(at, lanes) * broadcast(inverse, lanes) + broadcast(tirx.const(_ROUND, "float32"), lanes)
            rounded = code.bind("r", rounded)
            whole = code.bind("q", bits(rounded) - constant(_ROUND_BITS))
            for digit in range(self.count):
                to, place = (row * self.count + digit) * self.pitch + at, digit * lanes
                more = code.bind("more", tirx.shift_right(whole + constant(128), constant(8)))
                totals.store(code, place, totals.load(place, lanes) + (whole - more * constant(256)))
                self._digits.store(code, to, tirx.Cast(f"int8x{lanes}", whole))
                whole = more
        for digit in range(self.count):
            total = code.fold(totals.load(digit * lanes, lanes), lambda a, b: a + b)
            self._sums.store(code, number * self.count + digit, tirx.Cast("float32", total))

    def word(self, row: Expr, digit: int, at: Expr, number: int) -> Expr:
        """The digits of four elements, from `at + 4 * number` on, as an int32."""
        start = (row * self.count + digit) * self.pitch + at + WORD_BYTES * number
        return tirx.reinterpret("int32", self._digits.load(start, WORD_BYTES))

    def unit(self, row: Expr, block: Expr) -> Expr:
        """What the whole numbers of a block are multiples of."""
        return self._units.load(row * self._codes.blocks + block)

    def sum(self, row: Expr, block: Expr, digit: int) -> Expr:
        """The sum of one digit of a block."""
        return self._sums.load((row * self._codes.blocks + block) * self.count + digit)


@dataclass(frozen=True)
class Digits:
    """What a tile of float32 sums up: rows of digits times codes.

    Attributes:
        dot: the instruction.
        codes: how they lie in memory.
        rows: the digits.
        row: the first row of the tile.
        words: (number of the word within the panel, first column within the panel) to a vector of words of codes.
        scale, zero: (block, first column within the panel) to a vector of float32; None where it is 1, or 0.
    """

    dot: Multiplier
    codes: Codes
    rows: DigitRows
    row: Expr
    words: Callable[[Expr, Expr], Expr]
    scale: Callable[[Expr, Expr], Expr] | None
    zero: Callable[[Expr, Expr], Expr] | None
    dtype: ClassVar[str] = "float32"

    def accumulate(self, code: Code, tile: Tile, acc: tirx.Var) -> None:
        """Write the sums into `acc`."""
        codes, lanes = self.codes, tile.lanes
        places = [(i, j) for i in range(tile.rows) for j in range(tile.vectors)]
        sums = code.stack("sums", self.rows.count * len(places) * self._width(lanes), self.dot.sums)
        total = Flat(acc)
        for i, j in places:
            total.store(code, i * tile.width + j * lanes, broadcast(tirx.const(0.0, "float32"), lanes))
        with code.loop(codes.blocks, "block") as block:
            for number in range(self.rows.count * len(places)):
                sums.store(code, number * self._width(lanes), self.dot.zeros(lanes))
            with code.loop(codes.words, "word") as word:
                self._step(code, tile, sums, block * codes.words + word)
            for i, j in places:
                self._settle(code, tile, sums, total, block, i, j)

    def _step(self, code: Code, tile: Tile, sums: Flat, word: Expr) -> None:
        lanes, per = tile.lanes, self.codes.per
        stored = [code.bind("w", self.words(word, index(j * lanes))) for j in range(tile.vectors)]
        for number in range(per // WORD_BYTES):
            parts = [code.bind("c", self.codes.part(words, number, lanes, self.dot)) for words in stored]
            for i in range(tile.rows):
                for digit in range(self.rows.count):
                    four = code.bind("d", broadcast(self.rows.word(self.row + i, digit, word * per, number), lanes))
                    four = tirx.reinterpret(f"int8x{WORD_BYTES * lanes}", four)
                    for j, part in enumerate(parts):
                        place = self._place(tile, digit, i, j)
                        before = sums.load(place, self._width(lanes))
                        sums.store(code, place, self.dot.step(before, part, four, lanes))

    def _settle(self, code: Code, tile: Tile, sums: Flat, total: Flat, block: Expr, i: int, j: int) -> None:
        """Add what a block has come to."""
        lanes, row, at = tile.lanes, self.row + i, index(j * tile.lanes)
        base = broadcast(tirx.const(256.0, "float32"), lanes)
        found = broadcast(tirx.const(0.0, "float32"), lanes)
        for digit in reversed(range(self.rows.count)):
            whole = self.dot.total(sums.load(self._place(tile, digit, i, j), self._width(lanes)), lanes)
            real = tirx.Cast(f"float32x{lanes}", whole)
            if self.zero is not None:
                real = real - self.zero(block, at) * broadcast(self.rows.sum(row, block, digit), lanes)
            found = real if digit == self.rows.count - 1 else found * base + real
        factor = broadcast(self.rows.unit(row, block), lanes)
        if self.scale is not None:
            factor = factor * self.scale(block, at)
        place = i * tile.width + j * lanes
        total.store(code, place, total.load(place, lanes) + found * factor)

    def _width(self, lanes: int) -> int:
        """Elements of a vector of sums."""
        return 2 * lanes if self.dot.widen else lanes

    def _place(self, tile: Tile, digit: int, i: int, j: int) -> int:
        return ((digit * tile.rows + i) * tile.vectors + j) * self._width(tile.lanes)
