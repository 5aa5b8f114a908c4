"""The innermost loops of every contraction: a tile of accumulators that stay in registers.

    acc[rows][vectors] = 0
    for k:                                    # rolled: a few hundred bytes of code
        acc[i][j] += a(i, k) * w(k, j)        # vfmadd231ps, all i and j unrolled
    out(i, j) = epilogue(acc[i][j])

The tile is written with unrolled and vectorised TIR loops around scalar formulas, which TVM expands late; LLVM
promotes the local array to registers because every index into it is constant by then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import tvm_ffi
from tvm import ir, tirx
from tvm.ir import Expr

from dscc.schedule.code import Code, Index, constant, index, product
from dscc.schedule.epilogue import Fused
from dscc.schedule.tiling import Columns, Tile, vector_base

# Elementary functions are tens of instructions each: a tile's worth of them unrolled would be most of the library.
_LONG = frozenset(
    {"tirx.exp", "tirx.erf", "tirx.tanh", "tirx.sigmoid", "tirx.log", "tirx.pow", "tirx.exp2", "tirx.sin", "tirx.cos"}
)


Depth = Sequence[tuple[str, Index]]
UNROLL = (1, 2, 4)  # candidates for the tuner
# Products that are summed in a row. Runs of 384 were about 2% faster on ResNet-50 (one noisy run) and put one sample of
# OCR recognition 1.1e-4 away from onnxruntime.
SHORT_RUN = 96
# Where the panel is expanded in scratch memory, short runs take twice the time (minilm_l6_int8: 55 against 34 ms; the
# machine code was not looked at), so they are longer there.
LONG_RUN = 384


@dataclass(frozen=True)
class Ahead:
    """Lines of the cache that are asked for so early that memory can deliver them before they are needed.

    Attributes:
        lines: for every `unroll` steps.
        place: (depth indices of the first of the steps, which of the lines) to a place in it.
        level: of the cache that they are brought to.
    """

    lines: int
    place: Callable[[Sequence[Expr], Expr], tirx.BufferLoad]
    level: int


@dataclass(frozen=True)
class Operands:
    """What a tile multiplies.

    Attributes:
        depth: extents of the loops of the reduction, outermost first.
        left: (row within the tile, depth indices) to the scalar that is broadcast.
        right: (depth indices, column within the panel) to an element of the vector.
        run: how many products may be summed in a row.
        unroll: steps of the innermost loop that are written out, where they divide its length.
        settle: (row within the tile, index of the outermost loop, column within the panel, sum of the loops within it)
        to what is added up.
        ahead: what is asked of memory while `unroll` steps go on.
        chains: sums that neighbouring steps are added to in turn, so that none waits for the one before: for tiles of
            few sums.
    """

    depth: Depth
    left: Callable[[Expr, Sequence[Expr]], Expr]
    right: Callable[[Sequence[Expr], Expr], Expr]
    run: int = SHORT_RUN
    unroll: int = 1
    settle: Callable[[Expr, Expr, Expr, Expr], Expr] | None = None
    ahead: Ahead | None = None
    chains: int = 1
    dtype: ClassVar[str] = "float32"

    def accumulate(self, code: Code, tile: Tile, acc: tirx.Var) -> None:
        """Write the sums of the products into `acc`, one for every element of the tile."""
        _multiply(code, tile, self, acc)


class Terms(Protocol):
    """What a tile sums up: products of real numbers as above, or of small integers (dscc/schedule/words.py)."""

    dtype: ClassVar[str]

    def accumulate(self, code: Code, tile: Tile, acc: tirx.Var) -> None:
        """Write the sums into `acc`."""


def has_long_functions(fused: Fused) -> bool:
    """Whether the epilogue is too long to be unrolled over a tile."""
    found = False

    def visit(call: ir.Call) -> None:
        nonlocal found
        found = found or (isinstance(call.op, ir.Op) and call.op.name in _LONG)

    for step in fused.steps:
        tvm_ffi.structural_walk(step.value, (ir.Call, visit))
    return found


def write_tile(
    code: Code,
    tile: Tile,
    operands: Terms,
    store: Callable[[Expr, Expr, Expr], tirx.Stmt],
    *,
    columns: Columns,
    base: Expr,
    rolled: bool = False,
    guard: Callable[[Expr], Expr] | None = None,
    partial: Partial | None = None,
) -> None:
    """Write one tile: zero, multiply and add, store.

    Args:
        code: where to.
        tile: its size.
        operands: what is multiplied.
        store: (row within the tile, column of the result, value) to the statement that stores it.
        columns: how the result's columns are cut.
        base: first column of the panel.
        rolled: store in a loop that is not unrolled, through a copy of the tile.
        guard: row within the tile to the condition that it is stored at all.
        partial: the reduction is cut into blocks, and this is one of them.
    """
    acc = accumulate(code, tile, operands)

    def load(i: Expr, at: Expr) -> Expr:
        return tirx.BufferLoad(acc, [i * tile.width + at])

    if partial is None:
        finish(code, tile, acc, store, columns, base, rolled, guard)
        return
    with code.when(partial.block > 0):
        _each(code, tile, lambda i, at: tirx.BufferStore(acc, load(i, at) + partial.load(i, at), [i * tile.width + at]))
    with code.when(partial.block < partial.last):
        _each(code, tile, lambda i, at: partial.store(i, at, load(i, at)))
    with code.when(tirx.EQ(partial.block, index(partial.last))):
        finish(code, tile, acc, store, columns, base, rolled, guard)


@dataclass(frozen=True)
class Partial:
    """Sums of a reduction that is cut into blocks, kept in memory between them.

    Attributes:
        block: which block this is.
        last: the last one.
        load: (row within the tile, column within the panel) to the sum so far.
        store: the statement that keeps it.
    """

    block: Expr
    last: Index
    load: Callable[[Expr, Expr], Expr]
    store: Callable[[Expr, Expr, Expr], tirx.Stmt]


def accumulate(code: Code, tile: Tile, operands: Terms) -> tirx.Var:
    """The sums of a tile, [row][column within the panel], for an epilogue that needs several columns at once."""
    acc = code.stack("acc", tile.rows * tile.width, operands.dtype).buffer
    operands.accumulate(code, tile, acc)
    return acc


def _multiply(code: Code, tile: Tile, operands: Operands, acc: tirx.Var) -> None:
    """The sums of the products. Rounding grows with the length of a sum, so a long one is taken in blocks."""
    operands = _divided(operands)
    outer, inner = _blocks(operands) if operands.settle is None else (operands.depth[:1], operands.depth[1:])
    size = tile.rows * tile.width
    sums = acc if operands.chains == 1 else code.stack("chains", operands.chains * size).buffer

    def move(target: tirx.Var, value: Callable[[Expr], Expr], chain: int = 0) -> None:
        def write(i: Expr, at: Expr) -> tirx.Stmt:
            where = i * tile.width + at
            return tirx.BufferStore(target, value(where), [chain * size + where])

        _each(code, tile, write)

    def multiply(before: Sequence[Expr]) -> None:
        for chain in range(operands.chains):
            move(sums, lambda where: tirx.const(0.0, "float32"), chain)
        _nest(code, tile, operands, sums, inner, before)

    def summed(where: Expr) -> Expr:
        terms: list[Expr] = [tirx.BufferLoad(sums, [chain * size + where]) for chain in range(operands.chains)]
        while len(terms) > 1:
            terms = [sum(terms[at + 1 : at + 2], start=terms[at]) for at in range(0, len(terms), 2)]
        return terms[0]

    if not outer:
        multiply([])
        if operands.chains > 1:
            move(acc, summed)
        return
    total = code.stack("total", size).buffer

    def add(block: Expr) -> None:
        def write(i: Expr, at: Expr) -> tirx.Stmt:
            where = i * tile.width + at
            more = summed(where)
            if operands.settle is not None:
                more = operands.settle(i, block, at, more)
            return tirx.BufferStore(total, tirx.BufferLoad(total, [where]) + more, [where])

        _each(code, tile, write)

    move(total, lambda where: tirx.const(0.0, "float32"))
    with ExitStack() as stack:
        before = [stack.enter_context(code.loop(extent, name)) for name, extent in outer]
        multiply(before)
        add(before[0])
    move(acc, lambda where: tirx.BufferLoad(total, [where]))


def _divided(operands: Operands) -> Operands:
    """The same with a single long loop cut in two, where its length has a factor that makes blocks of a fair size."""
    if len(operands.depth) != 1:
        return operands
    name, extent = operands.depth[0]
    length = constant(extent)
    blocks = next((n for n in range(2, 65) if length and length % n == 0 and length // n <= operands.run), 0)
    if not (length and length > operands.run and blocks and length // blocks >= operands.run // 4):
        return operands
    size = length // blocks

    def joined(ks: Sequence[Expr]) -> list[Expr]:
        return [ks[0] * index(size) + ks[1]]

    ahead = operands.ahead
    return Operands(
        [(f"{name}_block", blocks), (name, size)],
        lambda i, ks: operands.left(i, joined(ks)),
        lambda ks, at: operands.right(joined(ks), at),
        operands.run,
        operands.unroll,
        chains=operands.chains,
        ahead=ahead and replace(ahead, place=lambda ks, line: ahead.place(joined(ks), line)),
    )


def _blocks(operands: Operands) -> tuple[Depth, Depth]:
    """The loops around a block of the sum, and those within: as many of the inner ones as a block can hold."""
    depth = operands.depth
    for cut in range(len(depth)):
        length = constant(product([extent for _, extent in depth[cut:]]))
        if (length is not None and length <= operands.run) or cut == len(depth) - 1:
            return depth[:cut], depth[cut:]
    return (), depth


def _nest(
    code: Code,
    tile: Tile,
    operands: Operands,
    acc: tirx.Var,
    depth: Depth,
    before: Sequence[Expr],
    chain: Index = 0,
) -> None:
    """The loops of the reduction that are left to open, then one product for every element of the tile."""
    if depth:
        name, extent = depth[0]
        length, steps = constant(extent), operands.unroll if len(depth) == 1 else 1
        if length is None or length % steps or length == steps:
            steps = 1
        outer = extent if steps == 1 or length is None else length // steps
        with ExitStack() as stack:
            k = stack.enter_context(code.loop(outer, name))
            lines = operands.ahead.lines if operands.ahead is not None and len(depth) == 1 else 0
            between = lines if lines % steps == 0 else 0

            def ask(first: Index, count: int) -> None:
                assert operands.ahead is not None
                for line in range(count):
                    place = operands.ahead.place([*before, k * index(steps)], index(first) + line)
                    code.add(tirx.Evaluate(prefetch(place, operands.ahead.level)))

            if lines > between:
                ask(0, lines)
            copy = stack.enter_context(code.loop(steps, "copy", "unrolled"))
            at = k if steps == 1 else k * index(steps) + copy
            turn = copy % operands.chains if operands.chains > 1 and len(depth) == 1 else 0
            _nest(code, tile, operands, acc, depth[1:], [*before, at], turn)
            if between:  # some after every step rather than all in a row
                ask(copy * index(between // steps), between // steps)
        return

    def step(i: Expr, at: Expr) -> tirx.Stmt:
        where = [chain * (tile.rows * tile.width) + i * tile.width + at]
        term = operands.left(i, before) * operands.right(before, at)
        return tirx.BufferStore(acc, tirx.BufferLoad(acc, where) + term, where)

    _each(code, tile, step)


def prefetch(place: tirx.BufferLoad, level: int) -> Expr:
    """The instruction that brings a line of memory into the cache of a level; a place beyond the end does no harm."""
    arguments = [tirx.address_of(place), *(tirx.IntImm("int32", n) for n in (0, 4 - level, 1))]  # to read, data
    return ir.Call(ir.Op.get("tirx.prefetch"), arguments, None, [], None, "void")


def finish(
    code: Code,
    tile: Tile,
    acc: tirx.Var,
    store: Callable[[Expr, Expr, Expr], tirx.Stmt],
    columns: Columns,
    base: Expr,
    rolled: bool,
    guard: Callable[[Expr], Expr] | None = None,
) -> None:
    """Store a tile that lies in the local array `acc`; the arguments are those of `write_tile`."""
    source = acc
    if rolled:
        source = code.stack("copy", tile.rows * tile.width, str(acc.dtype)).buffer

        def copy(i: Expr, at: Expr) -> tirx.Stmt:
            where = [i * tile.width + at]
            return tirx.BufferStore(source, tirx.BufferLoad(acc, where), where)

        _each(code, tile, copy)
    kind = "serial" if rolled else "unrolled"
    with code.loop(tile.rows, "i", kind) as i, code.when(True if guard is None else guard(i)):
        with code.loop(tile.vectors, "j", kind) as j:
            start = base + vector_base(j, columns)
            lanes = columns.count if columns.padded else tile.lanes
            with code.loop(lanes, "l", "unrolled" if columns.padded else "vectorized") as lane:
                value = tirx.BufferLoad(source, [i * tile.width + j * tile.lanes + lane])
                code.add(store(i, start + lane, value))


def _each(code: Code, tile: Tile, write: Callable[[Expr, Expr], tirx.Stmt]) -> None:
    """Write a statement for every element of a tile, given its row and its column within the panel."""
    with code.loop(tile.rows, "i", "unrolled") as i, code.loop(tile.vectors, "j", "unrolled") as j:
        with code.loop(tile.lanes, "l", "vectorized") as lane:
            code.add(write(i, j * tile.lanes + lane))
