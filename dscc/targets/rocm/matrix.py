"""Products of matrices by AMD's matrix instructions: MFMA on CDNA, WMMA on RDNA3 and RDNA4.

    for every tile of rows and columns, a block of a few wavefronts:
        for k in steps of the tile's depth, tiles of two steps in shared memory in turns:
            all threads: read the next step's lines from memory to registers
            each wavefront: sums[i, j] += left[i] x right[j], 16 x 16 at once
            all threads: write what they have read to shared memory                             barrier
        each lane: epilogue and store of the elements that it has

Lines of both operands lie in shared memory along the depth, which is how lanes take them. What is outside of the
operands is read as zero and not stored.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from tvm import ir, tirx
from tvm.ir import Expr
from tvm.ir import TensorLoad as Load

from dscc.schedule.code import Flat, Index, ceildiv, constant, index, quotient, remainder
from dscc.schedule.decisions import Decisions
from dscc.schedule.gpu.gemm import Element, Gemm
from dscc.schedule.gpu.kernel import Kernel
from dscc.targets.rocm.machine import RocmMachine

SIDE = 16  # rows and columns of what one instruction computes
_LINE_BYTES = 64  # of an operand's line in one step
_PAD_BYTES = 16  # between lines, so that lanes of a wavefront are in different banks
_COPY_BYTES = 16  # most that a thread reads at once
_SPARE = 96  # registers of a lane left for what clang reads ahead: with fewer, tiles spilled to memory on gfx1100
_WAVES = 2  # blocks for every compute unit that a tile should leave


@dataclass(frozen=True)
class Fragments:
    """How a wavefront's lanes hold the operands and the sums of one product of 16 x 16.

    Lane l has of line l % 16 of either operand `run` elements from `l // 16 * run` on, or all of the depth if that is
    all there is; and of column l % 16 of the result `sums` elements, `apart` rows from one to the next.

    Attributes:
        lanes: of a wavefront.
        depth: what one instruction sums over.
    """

    lanes: int
    depth: int
    run: int
    sums: int
    apart: int = 1

    def first(self, lane: Expr) -> Expr:
        """The place along the depth of the lane's first element."""
        return index(0) if self.run == self.depth else quotient(lane, SIDE) * self.run

    def row(self, lane: Expr) -> Expr:
        """The row of the lane's first sum."""
        return self.row_of(quotient(lane, SIDE))

    def row_of(self, group: Expr) -> Expr:
        """The same for the lanes of a group of 16."""
        return group * (1 if self.apart > 1 else self.sums)


_OF_HALVES = {
    "mfma": Fragments(lanes=64, depth=16, run=4, sums=4),
    "wmma": Fragments(lanes=32, depth=16, run=16, sums=8, apart=2),
    "wmma12": Fragments(lanes=32, depth=16, run=8, sums=8),
}
_OF_FLOATS = {"mfma": Fragments(lanes=64, depth=4, run=1, sums=4)}


@dataclass(frozen=True)
class Waves:
    """A block: `down` x `across` wavefronts, each of which computes `high` x `wide` products of 16 x 16."""

    down: int
    across: int
    high: int
    wide: int

    @property
    def rows(self) -> int:
        return self.down * self.high * SIDE

    @property
    def columns(self) -> int:
        return self.across * self.wide * SIDE


SIZES = (
    Waves(2, 2, 4, 4),
    Waves(2, 2, 4, 2),
    Waves(2, 2, 2, 2),
    Waves(2, 2, 1, 2),
    Waves(1, 2, 1, 2),
    Waves(1, 1, 1, 1),
)
"""From the largest to the smallest."""


def fragments(gemm: Gemm, machine: RocmMachine) -> Fragments | None:
    """What the machine's instructions need for these operands; None if it has none, or there is too little to do."""
    if gemm.left_dtype != gemm.right_dtype or gemm.dtype != "float32":
        return None
    if any(n is not None and n < SIDE for n in map(constant, (gemm.rows, gemm.columns, gemm.depth))):
        return None
    return held_by(machine, gemm.left_dtype)


def held_by(machine: RocmMachine, dtype: str) -> Fragments | None:
    """How lanes hold operands of a type; None if the machine has no matrix instruction for it."""
    known = {"float16": _OF_HALVES, "bfloat16": _OF_HALVES, "float32": _OF_FLOATS}
    return known.get(dtype, {}).get(machine.matrix)


def write(code: Kernel, gemm: Gemm, held: Fragments, machine: RocmMachine, decisions: Decisions) -> None:
    """One launch that computes the product."""
    waves = _choose(gemm, held, machine, decisions)
    across, along = ceildiv(gemm.columns, waves.columns), ceildiv(gemm.rows, waves.rows)
    blocks = [index(along) * index(gemm.batch) if constant(gemm.batch) != 1 else along, across]
    threads = waves.down * waves.across * held.lanes
    with code.launch(blocks, threads) as (block, (thread,)):
        batch: Expr = index(0)
        number = block[0]
        if constant(gemm.batch) != 1:
            batch = code.bind("batch", quotient(number, along))
            number = code.bind("number", remainder(number, along))
        top, edge = code.bind("top", number * waves.rows), code.bind("edge", block[1] * waves.columns)
        _Block(code, gemm, held, waves, threads, batch, top, edge, thread).write()


def _registers(waves: Waves, gemm: Gemm, held: Fragments) -> int:
    """About as many registers as a lane needs: sums, operands of two instructions in a row, and what is on its way."""
    size, copied = _size(gemm), _copied(gemm)
    sums = waves.high * waves.wide * held.sums
    operands = 2 * (waves.high + waves.wide) * ceildiv(held.run * size, 4)
    underway = 0
    for lines, runs in ((waves.rows, gemm.left_runs), (waves.columns, gemm.right_runs)):
        lanes = copied if runs else 1
        parts = ceildiv(lines * _LINE_BYTES, size * lanes * waves.down * waves.across * held.lanes)
        underway += parts * (2 + ceildiv(lanes * size, 4))  # with the address of each
    return sums + operands + underway


def _size(gemm: Gemm) -> int:
    """Bytes of an operand's element."""
    return 4 if gemm.left_dtype == "float32" else 2


def _copied(gemm: Gemm) -> int:
    """Elements that a thread reads at once of an operand that lies along the depth."""
    whole = constant(gemm.depth)
    return 1 if whole is None else math.gcd(whole, gemm.run, _COPY_BYTES // _size(gemm))


def _choose(gemm: Gemm, held: Fragments, machine: RocmMachine, decisions: Decisions) -> Waves:
    """The largest tile that leaves work for the whole device; sizes that are not known are taken for a thousand."""
    rows, columns, batch = (constant(n) for n in (gemm.rows, gemm.columns, gemm.batch))
    fitting = [waves for waves in SIZES if _registers(waves, gemm, held) <= machine.registers - _SPARE]

    def blocks(waves: Waves) -> int:
        return -(-(rows or 1024) // waves.rows) * -(-(columns or 1024) // waves.columns) * (batch or 1)

    busy = [waves for waves in fitting if blocks(waves) >= _WAVES * machine.units]
    default = busy[0] if busy else max(fitting, key=blocks)
    names = {f"{w.down}x{w.across}x{w.high}x{w.wide}": w for w in [default, *fitting]}
    return names[decisions.pick("waves", list(names))]


class _Operand:
    """One operand's part of a step, on its way from memory to shared memory by way of registers."""

    def __init__(
        self,
        block: _Block,
        name: str,
        lines: int,
        first: Expr,
        limit: Index,
        at: Callable[[Expr, Expr], Element],
        runs: bool,
    ):
        code, gemm = block.code, block.gemm
        self.block, self.code, self.lines = block, code, lines
        self.dtype = gemm.left_dtype
        self.size = lines * block.pitch
        self.shared = code.shared(name, 2 * self.size, self.dtype)
        self.lanes = block.copied if runs else 1
        self.each = -(-lines * block.depth // (block.threads * self.lanes))
        self.kept = code.local(f"{name}_next", self.each * self.lanes, self.dtype)
        whole = constant(limit)
        inside = whole is not None and whole % lines == 0
        chunks = block.depth // self.lanes
        self.parts: list[tuple[Expr, Expr, Expr | bool, Element]] = []
        for i in range(self.each):
            number = code.bind("part", block.thread + i * block.threads)
            # Neighbouring threads read neighbours in memory: along the depth, or across it.
            line, k = (
                (quotient(number, chunks), remainder(number, chunks))
                if runs
                else (remainder(number, lines), quotient(number, lines))
            )
            line, k = code.bind("line", line), code.bind("k", k * self.lanes)
            place = code.bind("place", first + line)
            valid: Expr | bool = True if inside else place < index(limit)
            # Computed even where it is not valid, so that the place has to be one that exists.
            safe = place if inside else code.bind("safe", tirx.min(place, index(limit) - 1))
            self.parts.append((line, k, valid, at(block.batch, safe)))

    def _there(self, i: int) -> Expr | bool:
        """Whether thread has an i-th part: the last ones may be shared out unevenly."""
        spare = self.lines * self.block.depth // self.lanes - i * self.block.threads
        return True if spare >= self.block.threads else self.block.thread < spare

    def fetch(self, step: Expr) -> None:
        """Read a step's lines to registers."""
        code, depth = self.code, constant(self.block.gemm.depth)
        whole = depth is not None and depth % self.block.depth == 0
        for i, (_, k, valid, element) in enumerate(self.parts):
            with code.when(self._there(i)):
                at = code.bind("depth", step * self.block.depth + k)
                conditions = [] if valid is True else [valid]
                conditions += [] if whole else [at < index(self.block.gemm.depth)]
                value = _narrowed(element(at), self.dtype)
                values = [value]
                if self.lanes > 1:
                    vector = _vector(value, self.lanes)
                    values = [_narrowed(element(at + j), self.dtype) for j in range(self.lanes)]
                    values = values if vector is None else [vector]
                for j, each in enumerate(values):
                    guarded = each
                    if conditions:
                        both = conditions[0] if len(conditions) == 1 else tirx.And(*conditions)
                        guarded = tirx.if_then_else(both, each, tirx.const(0, each.ty.dtype))
                    self.kept.store(code, i * self.lanes + j, guarded)

    def put(self, slot: Expr) -> None:
        """Write what was read to one of the two places in shared memory."""
        for i, (line, k, _, _) in enumerate(self.parts):
            with self.code.when(self._there(i)):
                value = self.kept.load(i * self.lanes, self.lanes)
                self.shared.store(self.code, slot * self.size + line * self.block.pitch + k, value)


class _Block:
    """What one block does."""

    def __init__(
        self,
        code: Kernel,
        gemm: Gemm,
        held: Fragments,
        waves: Waves,
        threads: int,
        batch: Expr,
        top: Expr,
        edge: Expr,
        thread: Expr,
    ):
        self.code, self.gemm, self.held, self.waves, self.threads = code, gemm, held, waves, threads
        self.batch, self.top, self.edge, self.thread = batch, top, edge, thread
        size = _size(gemm)
        self.depth, self.pitch = _LINE_BYTES // size, (_LINE_BYTES + _PAD_BYTES) // size
        self.copied = _copied(gemm)
        self.lane = code.bind("lane", remainder(thread, held.lanes))
        wave = code.bind("wave", quotient(thread, held.lanes))
        self.down, self.across = quotient(wave, waves.across), remainder(wave, waves.across)

    def write(self) -> None:
        code, gemm, waves, held = self.code, self.gemm, self.waves, self.held
        self.sums = code.local("sums", waves.high * waves.wide * held.sums)
        for i in range(waves.high * waves.wide * held.sums):
            self.sums.store(code, i, tirx.const(0, "float32"))
        left = _Operand(self, "left", waves.rows, self.top, gemm.rows, gemm.left, gemm.left_runs)
        right = _Operand(self, "right", waves.columns, self.edge, gemm.columns, gemm.right, gemm.right_runs)
        steps = index(ceildiv(gemm.depth, self.depth))
        for operand in (left, right):
            operand.fetch(index(0))
            operand.put(index(0))
        code.barrier()
        with code.loop(steps, "step") as step:
            more = step + 1 < steps
            with code.when(more):
                left.fetch(step + 1)
                right.fetch(step + 1)
            slot = code.bind("slot", remainder(step, 2))
            self._multiply(left, right, slot)
            with code.when(more):
                left.put(1 - slot)
                right.put(1 - slot)
            code.barrier()
        self._finish()

    def _multiply(self, left: _Operand, right: _Operand, slot: Expr) -> None:
        code, held, waves = self.code, self.held, self.waves
        line = remainder(self.lane, SIDE)
        at = code.bind("at", line * self.pitch + held.first(self.lane))
        tops = code.bind("tops", slot * left.size + self.down * (waves.high * SIDE * self.pitch) + at)
        edges = code.bind("edges", slot * right.size + self.across * (waves.wide * SIDE * self.pitch) + at)
        for k in range(0, self.depth, held.depth):
            lefts = [self._taken(left.shared, tops, i, k) for i in range(waves.high)]
            rights = [self._taken(right.shared, edges, j, k) for j in range(waves.wide)]
            for i, a in enumerate(lefts):
                for j, b in enumerate(rights):
                    place = (i * waves.wide + j) * held.sums
                    before = self.sums.load(place, held.sums)
                    after = tirx.call_pure_extern(f"float32x{held.sums}", "dscc_multiply", a, b, before)
                    self.sums.store(code, place, after)

    def _taken(self, shared: Flat, first: Expr, tile: int, k: int) -> Expr:
        """The lane's elements of a tile's line."""
        return self.code.bind("taken", shared.load(first + (tile * SIDE * self.pitch + k), self.held.run))

    def _finish(self) -> None:
        code, gemm, waves, held = self.code, self.gemm, self.waves, self.held
        rows, columns = constant(gemm.rows), constant(gemm.columns)
        top = code.bind("first_row", self.top + self.down * (waves.high * SIDE) + held.row(self.lane))
        edge = code.bind("first_column", self.edge + self.across * (waves.wide * SIDE) + remainder(self.lane, SIDE))
        for i in range(waves.high):
            for r in range(held.sums):
                row = code.bind("row", top + (i * SIDE + r * held.apart))
                with code.when(True if rows is not None and rows % waves.rows == 0 else row < index(gemm.rows)):
                    for j in range(waves.wide):
                        column = code.bind("column", edge + j * SIDE)
                        inside = columns is not None and columns % waves.columns == 0
                        with code.when(True if inside else column < index(gemm.columns)):
                            value = self.sums.load((i * waves.wide + j) * held.sums + r)
                            code.add(gemm.store(self.batch, row, column, value))


def _narrowed(value: Expr, dtype: str) -> Expr:
    """An element as it is stored, without its conversion to the type of the sum."""
    return value.value if isinstance(value, tirx.Cast) and str(value.value.ty.dtype) == dtype else value


def _vector(value: Expr, lanes: int) -> Expr | None:
    """The element and its neighbours along the last axis of a tensor, read at once, or None if it is more than that."""
    if isinstance(value, Load):
        *outer, last = value.indices
        return tirx.BufferLoad(value.source, [*outer, tirx.Ramp(last, index(1), lanes)])
    if isinstance(value, ir.Call) and isinstance(value.op, ir.Op) and value.op.name == "prim.if_then_else":
        condition, inside, outside = value.args
        found = _vector(inside, lanes)
        zero = isinstance(outside, tirx.FloatImm) and float(outside.value) == 0.0
        return (
            tirx.if_then_else(condition, found, tirx.const(0, found.ty.dtype)) if found is not None and zero else None
        )
    return None
