"""Instructions that add sums of a few products of small integers to 32-bit accumulators, a vector of them at once.

    acc[lane] += sum over g of left[g] * right[lane][g]            g < group; exact, no saturation

The left side is one 32-bit word of `group` elements that is broadcast, the right side one word for every lane.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from tvm import tirx
from tvm.ir import Expr, Var

from dscc.schedule.base import Packing
from dscc.schedule.code import Code, Index, index
from dscc.schedule.machine import Machine
from dscc.schedule.stages import variables
from dscc.schedule.tiling import Columns, Tile

WORD_BYTES = 4


@dataclass(frozen=True)
class Instruction:
    """One instruction, at every vector length that it has.

    Attributes:
        left: type of the elements of the left word. A tensor of the other signedness is shifted by 128 first, and the
            zero point is taken out afterwards, by the sums of the right side's columns; with `int16`, before.
        right: type of the elements on the right.
        feature: LLVM's name of the instruction set that brings it; empty where every machine has it.
        names: lanes to LLVM's intrinsic; empty for plain arithmetic, which LLVM makes the best of.
        adds: whether the instruction adds to the accumulator itself.
    """

    left: str
    right: str
    feature: str = ""
    names: Mapping[int, str] = field(default_factory=dict)
    adds: bool = True

    @property
    def group(self) -> int:
        """Products per step and lane."""
        return 8 * WORD_BYTES // int(self.left.lstrip("uint"))

    @property
    def centred(self) -> bool:
        """Whether the left side holds differences from the zero point."""
        return self.left == "int16"

    def step(self, acc: Expr, left: Expr, right: Expr, lanes: int) -> Expr:
        """`acc` (int32 x lanes) and one step more.

        Args:
            left: `group` elements, a vector of the type `left`.
            right: `lanes * group` elements of the type `right`.
        """
        if not self.names:
            return self._plain(acc, left, right, lanes)
        word = tirx.Broadcast(tirx.reinterpret("int32", left), lanes)
        operands = [tirx.reinterpret(f"{self.left}x{self.group * lanes}", word), right]
        name = self.names[lanes]
        if self.adds:
            return tirx.call_llvm_pure_intrin(f"int32x{lanes}", name, acc, *operands)
        return acc + tirx.call_llvm_pure_intrin(f"int32x{lanes}", name, *operands)

    def _plain(self, acc: Expr, left: Expr, right: Expr, lanes: int) -> Expr:
        for g in range(self.group):
            one = tirx.Broadcast(tirx.Cast("int32", tirx.Shuffle([left], [g])), lanes)
            some = tirx.Shuffle([right], [lane * self.group + g for lane in range(lanes)])
            acc = acc + one * tirx.Cast(f"int32x{lanes}", some)
        return acc


_VNNI = "llvm.x86.avx512.vpdp{}.{}"
_AVX2 = {4: "llvm.x86.sse2.pmadd.wd", 8: "llvm.x86.avx2.pmadd.wd"}

# In the order in which they are asked for: four products a step before two. (Ice Lake and Zen 4 on; Alder Lake on.)
INSTRUCTIONS = (
    *(
        Instruction("uint8", "int8", feature, {lanes: _VNNI.format("busd", 32 * lanes) for lanes in (4, 8, 16)})
        for feature in ("avx512vnni", "avxvnni")
    ),
    Instruction("int8", "int8", "dotprod", {4: "llvm.aarch64.neon.sdot.v4i32.v16i8"}),
    Instruction("int16", "int16", "avx512vnni", {lanes: _VNNI.format("wssd", 32 * lanes) for lanes in (4, 8, 16)}),
    Instruction("int16", "int16", "avxvnni", {lanes: _VNNI.format("wssd", 32 * lanes) for lanes in (4, 8)}),
    Instruction("int16", "int16", "avx512bw", {**_AVX2, 16: "llvm.x86.avx512.pmaddw.d.512"}, adds=False),
    Instruction("int16", "int16", "avx2", _AVX2, adds=False),
    Instruction("int16", "int16", "sse3", {4: _AVX2[4]}, adds=False),
    Instruction("int16", "int16"),
)


def choose(machine: Machine, right: str) -> Instruction:
    """The first instruction of this machine that takes elements of the type `right`, int8 or int16, on the right."""
    widest = machine.lanes()
    fits = (
        dot
        for dot in INSTRUCTIONS
        if (not dot.feature or dot.feature in machine.features)
        and (not dot.names or widest in dot.names)
        and (right == "int8" or dot.right == "int16")
    )
    return next(fits)


@dataclass(frozen=True)
class WordPacking(Packing):
    """Weights as [panel][step][column][product of the step]: `axes` brings them into the order (.., depth, column).

    Attributes:
        columns: how the columns are cut into panels.
        axes: the order of the weight's axes that puts the innermost axis of the sum before the column, which is last.
        group: products of a step; the innermost axis of the sum is filled up with zeros to a multiple of it.
        sums: whether one more step follows, whose bytes are the sum of every column as an int32.
    """

    columns: Columns
    axes: tuple[int, ...]
    group: int
    sums: bool

    def steps(self, depths: Sequence[int]) -> int:
        """Steps of a panel for sums over axes of these extents, the innermost last."""
        return math.prod(depths[:-1]) * -(-depths[-1] // self.group) + self.sums

    def pack(self, weight: np.ndarray) -> np.ndarray:
        ordered = weight.transpose(self.axes)
        spare = -ordered.shape[-2] % self.group
        padded = np.pad(ordered, [(0, 0)] * (ordered.ndim - 2) + [(0, spare), (0, 0)])
        cut = self.columns.cut(padded.reshape(-1, padded.shape[-1]))
        depth, panels, width = cut.shape
        parts = cut.reshape(depth // self.group, self.group, panels, width).transpose(2, 0, 3, 1)
        packed = parts.reshape(panels, depth // self.group, width * self.group)
        if self.sums:
            totals = cut.sum(axis=0, dtype="<i4")[:, None, :]
            packed = np.concatenate([packed, totals.view(weight.dtype)], axis=1)
        return np.ascontiguousarray(packed)


@dataclass(frozen=True)
class Words:
    """What a tile of int32 sums up: words of the left side times words of the right.

    Attributes:
        dot: the instruction.
        depth: extents of the loops over words, outermost first.
        left: (row within the tile, place in the loops) to `dot.group` elements.
        right: (place in the loops, first column within the panel) to `lanes * dot.group` elements.
        start: from the first column of a vector to what its sums start from; None for zero.
    """

    dot: Instruction
    depth: Sequence[tuple[str, Index]]
    left: Callable[[Expr, Sequence[Expr]], Expr]
    right: Callable[[Sequence[Expr], Expr], Expr]
    start: Callable[[Expr], Expr] | None
    dtype: ClassVar[str] = "int32"

    def accumulate(self, code: Code, tile: Tile, acc: tirx.Var) -> None:
        """Write the sums into `acc`."""
        lanes = tile.lanes

        def vector(i: Expr, j: Expr) -> Expr:
            return tirx.Ramp(i * tile.width + j * lanes, index(1), lanes)

        with code.loop(tile.vectors, "j", "unrolled") as j:
            zero = tirx.Broadcast(tirx.const(0, "int32"), lanes)
            first = zero if self.start is None else code.bind("first", self.start(j * lanes))
            with code.loop(tile.rows, "i", "unrolled") as i:
                code.add(tirx.BufferStore(acc, first, [vector(i, j)]))
        with ExitStack() as stack:
            ks = [stack.enter_context(code.loop(extent, name)) for name, extent in self.depth]
            with code.loop(tile.rows, "i", "unrolled") as i, code.loop(tile.vectors, "j", "unrolled") as j:
                right = self.right(ks, j * lanes)
                before = tirx.BufferLoad(acc, [vector(i, j)])
                code.add(tirx.BufferStore(acc, self.dot.step(before, self.left(i, ks), right, lanes), [vector(i, j)]))


@dataclass(frozen=True)
class Integers:
    """8-bit integers less a zero point, both as formulas."""

    stored: Expr
    zero: Expr | None

    @staticmethod
    def of(expr: Expr, loops: Collection[Var]) -> Integers | None:
        """`expr` taken apart, or None if it is something else; the zero point is the same for all values of `loops`."""
        zero = None
        if isinstance(expr, tirx.Sub):
            expr, zero = expr.a, expr.b
        if not isinstance(expr, tirx.Cast) or str(expr.value.ty.dtype) not in ("int8", "uint8"):
            return None
        if zero is not None and any(var in variables(zero) for var in loops):
            return None
        return Integers(expr.value, zero)

    def element(self, dot: Instruction) -> Expr:
        """What is stored for `dot` to read."""
        wide = tirx.Cast("int32", self.stored)
        if dot.centred:
            return tirx.Cast("int16", wide if self.zero is None else wide - self.zero)
        return tirx.Cast(dot.left, wide + self._shift(dot)) if self._shift(dot) else self.stored

    def centre(self, dot: Instruction) -> Expr:
        """What `element` is where the difference is zero: an int32."""
        if dot.centred:
            return tirx.const(0, "int32")
        zero = self.zero if self.zero is not None else tirx.const(0, "int32")
        return zero + self._shift(dot) if self._shift(dot) else zero

    def _shift(self, dot: Instruction) -> int:
        """What is added to the stored integers to make them of the type of the left side."""
        if str(self.stored.ty.dtype) == dot.left:
            return 0
        return 128 if dot.left == "uint8" else -128

    def start(
        self, dot: Instruction, panels: Var, panel: Expr, centre: Expr, lanes: int
    ) -> Callable[[Expr], Expr] | None:
        """What the sums of a vector of columns start from: the zero point's part in them, taken out."""
        if dot.centred:
            return None
        last = panels.shape[1] - 1

        def first(at: Expr) -> Expr:
            sums = tirx.BufferLoad(panels, [panel, last, tirx.Ramp(at * WORD_BYTES, index(1), lanes * WORD_BYTES)])
            return tirx.Broadcast(-centre, lanes) * tirx.reinterpret(f"int32x{lanes}", sums)

        return first


def right_of(dot: Instruction, panels: Var, panel: Expr, step: Expr, at: Expr, lanes: int) -> Expr:
    """The right side of a step for the columns from `at` on."""
    stored = tirx.BufferLoad(panels, [panel, step, tirx.Ramp(at * dot.group, index(1), lanes * dot.group)])
    return stored if str(panels.dtype) == dot.right else tirx.Cast(f"{dot.right}x{lanes * dot.group}", stored)
