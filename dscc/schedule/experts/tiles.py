"""The rows of one expert times one panel of its weights, in register tiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tvm import tirx
from tvm.ir import Expr

from dscc.schedule.code import Code, Flat, broadcast, index, quotient
from dscc.schedule.codes.digits import DigitRows, Digits
from dscc.schedule.codes.layout import MOST_PER_UNIT, Codes, Multiplier, multiplier, part_of
from dscc.schedule.experts.mixture import Storage
from dscc.schedule.experts.panels import Panels
from dscc.schedule.machine import Machine
from dscc.schedule.microkernel import Ahead, Operands, accumulate
from dscc.schedule.tiling import Tile

_UNROLL = 4
# Where rows are few, small weights are asked for ahead: one row of 16 bits went from 70 to 85% of the bandwidth.
# Weights of 32 bits got nothing from it. Larger tiles have the time to ask for the next panel.
_FEW = 4
# Sums in a panel of two vectors: an addition takes four cycles, the other work of a step with codes three, and one with
# floats less. One token of 32 bits was 2 to 5% faster, of 16 bits 7% slower, of 8 bits the same.
_CHAINS = 4
# Products that are summed in a row: every 96 of them as elsewhere cost 3 to 5% of many tokens' time.
_RUN = 512
_LINE, _AHEAD = 64, 4096  # bytes
_WHOLE = 0x4B000000  # as a float 2^23, above which the lowest bits of a float32 are whole numbers
_ONE = 0x3F800000  # as a float 1, below which the bits of a float32 are halves, quarters and so on
_MANTISSA = 23


@dataclass(frozen=True)
class Weight:
    """A weight in panels, with the scales and zeros of its codes in panels of their own.

    Attributes:
        depth: elements of a column.
        storage: how they are kept.
        codes, scales, zeros: flat; the latter two None where there are none. Codes are in words.
        dot: what multiplies codes with digits of the rows; None where they are expanded.
    """

    panels: Panels
    depth: int
    storage: Storage
    codes: Flat
    scales: Flat | None = None
    zeros: Flat | None = None
    dot: Multiplier | None = None

    @property
    def blocks(self) -> int:
        return self.storage.blocks(self.depth)

    @property
    def reach(self) -> int:
        """Elements of a column with the padding of the last block; rows are read as far."""
        return reach(self.storage, self.depth)

    @property
    def per(self) -> int:
        """Elements in one of what is stored."""
        return per_word(self.storage, self.depth)

    @property
    def digits(self) -> Codes:
        """The codes as digits are multiplied with them: blocks may be cut in parts."""
        return Codes(self.storage.bits, self.reach, part_of(self.reach // self.blocks, MOST_PER_UNIT))


def multiplied(machine: Machine, storage: Storage, depth: int) -> Multiplier | None:
    """What multiplies a weight's codes with digits; None where they have to be expanded."""
    if not storage.coded or word_bits(storage, depth) != 32:
        return None
    dot = multiplier(machine, storage.bits)
    whole = part_of(reach(storage, depth) // storage.blocks(depth), MOST_PER_UNIT)
    fits = storage.bits < 8 or dot is None or dot.codes == "uint8"
    return dot if dot is not None and whole and fits and not dot.widen else None


def word_bits(storage: Storage, depth: int) -> int:
    """Of the words in which codes are read: as many as can be, if blocks are whole words."""
    if not storage.coded:
        return storage.bits
    block = storage.block if storage.blocks(depth) > 1 else 32
    return next(bits for bits in (32, 16, 8) if block * storage.bits % bits == 0)


def per_word(storage: Storage, depth: int) -> int:
    """Elements of a word."""
    return word_bits(storage, depth) // storage.bits


def reach(storage: Storage, depth: int) -> int:
    """Elements of a column of `depth`, in whole words and whole blocks."""
    blocks = storage.blocks(depth)
    block, per = storage.block if blocks > 1 else depth, per_word(storage, depth)
    return -(-block // per) * per * blocks


@dataclass(frozen=True)
class Sums:
    """The sums of a tile, in memory.

    Attributes:
        row: the first row.
        rows: how many.
        load: (row within the tile, part, vector) to a vector of sums.
    """

    row: Expr
    rows: int
    load: Callable[[Expr, int, Expr], Expr]


def write_rows(
    code: Code,
    weight: Weight,
    rows: Flat,
    pitch: int,
    first: Expr,
    count: Expr,
    number: Expr,
    following: Expr,
    prepared: DigitRows | Flat | None,
    use: Callable[[Sums], None],
) -> None:
    """The products of rows `first` to before `first + count` with panel `number` of all experts', and `use` for every
    tile. `prepared` are the rows as digits, where the weight is multiplied with these; or the sums of every row over
    the weight's blocks, if `needs_totals`.

    As few tiles as there can be, of sizes that differ by one at most: a tile of few rows reads the panel as a large one
    does, and waits for its own sums. There is code for every size. The first tile waits for memory, so the last one
    asks for the panel that comes next, `following`.
    """
    most = weight.panels.rows
    tiles = code.opaque("tiles", quotient(count + (most - 1), most))
    each = code.opaque("each", quotient(count, tirx.max(tiles, index(1))))
    larger = code.opaque("larger", count - tiles * each)
    with code.loop(tiles, "tile") as tile:
        row = code.opaque("row", first + tile * each + tirx.min(tile, larger))
        size = code.opaque("size", each + tirx.Select(tile < larger, index(1), index(0)))
        last = tirx.And(tiles > 1, tirx.EQ(tile, tiles - 1))
        wanted = code.opaque("wanted", tirx.Select(last, following, number))
        for rows_here in range(most, 0, -1):
            with code.when(tirx.EQ(size, index(rows_here))):
                if isinstance(prepared, DigitRows):
                    _write_digits(code, weight, prepared, row, rows_here, number, use)
                    continue
                few = prepared if rows_here <= _FEW else None
                _write_tile(code, weight, rows, pitch, row, rows_here, number, wanted, few, use)


def _write_digits(
    code: Code, weight: Weight, digits: DigitRows, row: Expr, size: int, number: Expr, use: Callable[[Sums], None]
) -> None:
    """As `_write_tile`, from the digits of the rows."""
    panels, codes, storage = weight.panels, weight.digits, weight.storage
    width, lanes, dot = panels.width, panels.lanes, weight.dot
    assert dot is not None  # there are digits
    start = code.opaque("start", number * (weight.reach // weight.per * width))
    group = code.opaque("group", number * (weight.blocks * width))
    parts = codes.blocks // weight.blocks

    def table(found: Flat, part: Expr, at: Expr) -> Expr:
        block = part if parts == 1 else tirx.floordiv(part, index(parts))
        return found.load(group + block * width + at, lanes)

    scales, zeros = weight.scales, weight.zeros
    zero: Callable[[Expr, Expr], Expr] | None = None
    if zeros is not None:
        zero = lambda part, at: table(zeros, part, at)  # noqa: E731
    elif storage.zero:
        zero = lambda part, at: broadcast(tirx.const(float(storage.zero), "float32"), lanes)  # noqa: E731
    terms = Digits(
        dot,
        codes,
        digits,
        row,
        lambda word, at: weight.codes.load(start + word * width + at, lanes),
        None if scales is None else lambda part, at: table(scales, part, at),
        zero,
    )
    _hand_over(code, weight, row, size, accumulate(code, Tile(size, width // lanes, lanes), terms), use, None)


def _write_tile(
    code: Code,
    weight: Weight,
    rows: Flat,
    pitch: int,
    row: Expr,
    size: int,
    number: Expr,
    wanted: Expr,
    totals: Flat | None,
    use: Callable[[Sums], None],
) -> None:
    """`number` is that of the panel, `wanted` of the one that memory is asked for.

    With `totals` codes are read as 1 + code / 2^bits, which is one instruction less for each of them than a number from
    which the zero is taken; what is too much is a multiple of the row's sum, and taken out once for a block.
    """
    panels, storage, per = weight.panels, weight.storage, weight.per
    width, lanes = panels.width, panels.lanes
    start = code.opaque("start", number * (weight.reach // per * width))
    distance = code.opaque("ahead", (wanted - number) * (weight.reach // per * width))
    group = code.opaque("group", number * (weight.blocks * width))
    begin = code.opaque("begin", row * pitch)
    block = weight.reach // weight.blocks
    depth = [("block", weight.blocks), ("k", block)] if weight.blocks > 1 else [("k", weight.reach)]
    unroll = max(per, _UNROLL) if size <= _FEW else _UNROLL  # twice as many steps took large tiles twice as long

    def place(ks: Sequence[Expr]) -> Expr:
        return ks[0] if len(ks) == 1 else ks[0] * index(block) + ks[1]

    def stored(ks: Sequence[Expr], at: Expr) -> Expr:
        k = place(ks)
        return start + (k if per == 1 else tirx.floordiv(k, per)) * width + at

    def right(ks: Sequence[Expr], at: Expr) -> Expr:
        found = tirx.BufferLoad(weight.codes.buffer, [stored(ks, at)])
        if not storage.coded:
            return storage.real(found)
        shift = tirx.Cast("int32", tirx.floormod(place(ks), per)) * storage.bits if per > 1 else tirx.const(0, "int32")
        if totals is not None:
            return _fraction(found, shift, storage.bits)
        return _decoded(found, shift, storage.bits, zero(ks[0], at))

    def zero(block: Expr, at: Expr) -> Expr:
        if weight.zeros is None:
            return tirx.const(float(storage.zero), "float32")
        return tirx.BufferLoad(weight.zeros.buffer, [group + (block * width if weight.blocks > 1 else 0) + at])

    def settle(i: Expr, block: Expr, at: Expr, found: Expr) -> Expr:
        assert weight.scales is not None  # codes have them
        if totals is not None:
            whole = tirx.const(float(2**storage.bits), "float32")
            found = found * whole - (zero(block, at) + whole) * totals.load((row + i) * weight.blocks + block)
        return found * tirx.BufferLoad(weight.scales.buffer, [group + block * width + at])

    bytes_ = word_bits(storage, weight.depth) // 8

    def asked(ks: Sequence[Expr], line: Expr) -> tirx.BufferLoad:
        further = index(_AHEAD // bytes_) if size <= _FEW else distance
        return tirx.BufferLoad(weight.codes.buffer, [stored(ks, further) + line * (_LINE // bytes_)])

    lines = -(-unroll * width // per * bytes_ // _LINE)
    operands = Operands(
        depth,
        lambda i, ks: tirx.BufferLoad(rows.buffer, [begin + i * pitch + place(ks)]),
        right,
        run=_RUN,
        unroll=unroll,
        settle=settle if weight.blocks > 1 else None,
        chains=max(1, _CHAINS // size) if totals is not None or storage.bits == 32 else 1,
        ahead=Ahead(lines, asked, 1 if size <= _FEW else 2) if storage.bits < 32 or size > _FEW else None,
    )
    if storage.coded and weight.blocks == 1:
        operands = replace(operands, run=1 << 30)
    acc = accumulate(code, Tile(size, panels.parts * panels.vectors, lanes), operands)
    _hand_over(code, weight, row, size, acc, use, settle if storage.coded and weight.blocks == 1 else None)


def _hand_over(
    code: Code,
    weight: Weight,
    row: Expr,
    size: int,
    acc: tirx.Var,
    use: Callable[[Sums], None],
    settle: Callable[[Expr, Expr, Expr, Expr], Expr] | None,
) -> None:
    """`use` for the sums of a tile, after `settle`."""
    panels, width, lanes = weight.panels, weight.panels.width, weight.panels.lanes
    copy = code.stack("sums", size * width)
    with code.loop(size, "i", "unrolled") as i, code.loop(width // lanes, "j", "unrolled") as j:
        with code.loop(lanes, "l", "vectorized") as lane:
            at = j * lanes + lane
            value = tirx.BufferLoad(acc, [i * width + at])
            value = value if settle is None else settle(i, index(0), at, value)
            code.add(tirx.BufferStore(copy.buffer, value, [i * width + at]))

    def load(i: Expr, part: int, vector: Expr) -> Expr:
        return copy.load(i * width + part * panels.step + vector * lanes, lanes)

    use(Sums(row, size, load))


def needs_totals(weight: Weight) -> bool:
    """Whether a tile of few rows is bound by the work of expanding codes, rather than by memory."""
    return weight.dot is None and weight.storage.coded and weight.storage.bits < 8


def write_totals(code: Code, weight: Weight, rows: Flat, pitch: int, row: Expr, totals: Flat) -> None:
    """The sums of a row over the weight's blocks."""
    block = weight.reach // weight.blocks
    with code.loop(weight.blocks, "block") as b:
        total = code.stack("total", 1)
        total.store(code, index(0), tirx.const(0.0, "float32"))
        with code.loop(block, "k") as k:
            total.store(code, index(0), total.load(index(0)) + rows.load(row * pitch + b * block + k))
        totals.store(code, row * weight.blocks + b, total.load(index(0)))


def _fraction(word: Expr, shift: Expr, bits: int) -> Expr:
    """1 + code / 2^bits, of the code at bit `shift` of a word."""
    word = tirx.Cast("int32", word) if str(word.ty.dtype) != "int32" else word
    place = _MANTISSA - bits
    moved = tirx.Select(shift > place, tirx.shift_right(word, shift - place), tirx.shift_left(word, place - shift))
    code = tirx.bitwise_and(moved, tirx.const((2**bits - 1) << place, "int32"))
    return tirx.reinterpret("float32", tirx.bitwise_or(code, tirx.const(_ONE, "int32")))


def _decoded(word: Expr, shift: Expr, bits: int, zero: Expr) -> Expr:
    """The code at bit `shift` of a word less the code that means 0, as a float.

    2^23 + code - (2^23 + zero) is exact, and less work than the conversion of a whole number.
    """
    word = tirx.Cast("int32", word) if str(word.ty.dtype) != "int32" else word
    code = tirx.bitwise_and(tirx.shift_right(word, shift), tirx.const(2**bits - 1, "int32"))
    base = tirx.const(float(1 << 23), "float32")
    return tirx.reinterpret("float32", tirx.bitwise_or(code, tirx.const(_WHOLE, "int32"))) - (base + zero)
