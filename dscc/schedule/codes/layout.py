"""How codes lie in memory, and the instructions that multiply them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from tvm import tirx
from tvm.ir import Expr

from dscc.schedule.base import Packing
from dscc.schedule.code import broadcast
from dscc.schedule.codes.define import unpack
from dscc.schedule.machine import Machine
from dscc.schedule.tiling import Columns
from dscc.schedule.words import INSTRUCTIONS, WORD_BYTES

LONGEST_VECTOR = 16  # elements of it: those that share a unit are whole vectors
# Elements that share one: parts of a longer block of codes have units of their own. With 256, MiniLM in int8 was 1.2e-6
# off, with 64 and 32 0.8e-6, where onnxruntime is 0.9e-6 off; with 32 it took a tenth longer than with 64.
MOST_PER_UNIT = 64
_SIGN = 0x80  # the bit of a byte that tells int8 from uint8 less 128


@dataclass(frozen=True)
class Multiplier:
    """What multiplies four codes of every column with four signed bytes, and adds the products.

    Attributes:
        codes: `uint8` or `int8`.
        names: lanes to LLVM's intrinsic.
        widen: where the sums of two products each are 16-bit integers: lanes to the intrinsic that adds neighbours.
    """

    codes: str
    names: Mapping[int, str]
    widen: Mapping[int, str] = field(default_factory=dict)

    def elements(self, bits: int) -> int:
        """Of how many products the sums surely fit."""
        largest = (2**bits - 1 if bits < 8 else 255 if self.codes == "uint8" else 128) * 128
        return (2**15 - 1) // (2 * largest) * WORD_BYTES if self.widen else (2**31 - 1) // largest

    def zeros(self, lanes: int) -> Expr:
        """Sums of nothing."""
        return broadcast(tirx.const(0, "int16"), 2 * lanes) if self.widen else broadcast(tirx.const(0, "int32"), lanes)

    def step(self, sums: Expr, codes: Expr, digits: Expr, lanes: int) -> Expr:
        """`sums` and four products more for every lane; `digits` are int8."""
        if self.widen:
            return sums + tirx.call_llvm_pure_intrin(f"int16x{2 * lanes}", self.names[lanes], codes, digits)
        return tirx.call_llvm_pure_intrin(f"int32x{lanes}", self.names[lanes], sums, codes, digits)

    def total(self, sums: Expr, lanes: int) -> Expr:
        """The sums as int32."""
        if not self.widen:
            return sums
        ones = broadcast(tirx.const(1, "int16"), 2 * lanes)
        return tirx.call_llvm_pure_intrin(f"int32x{lanes}", self.widen[lanes], sums, ones)

    @property
    def sums(self) -> str:
        """The type of the sums."""
        return "int16" if self.widen else "int32"


_PAIRS = {4: "llvm.x86.ssse3.pmadd.ub.sw.128", 8: "llvm.x86.avx2.pmadd.ub.sw", 16: "llvm.x86.avx512.pmaddubs.w.512"}
_IN_PAIRS = (("avx512bw", (4, 8, 16)), ("avx2", (4, 8)), ("ssse3", (4,)))


def multiplier(machine: Machine, bits: int) -> Multiplier | None:
    """The one for codes of so many bits; None if the machine has none."""
    for dot in INSTRUCTIONS:
        if dot.group == WORD_BYTES and dot.feature in machine.features and machine.lanes() in dot.names:
            return Multiplier(dot.left, dot.names)
    for feature, all_lanes in _IN_PAIRS:
        if feature in machine.features and machine.lanes() in all_lanes and bits < 8:
            words = next(dot for dot in INSTRUCTIONS if dot.feature in (feature, "sse3") and not dot.adds)
            return Multiplier("uint8", {lanes: _PAIRS[lanes] for lanes in all_lanes}, words.names)
    return None


def part_of(block: int, most: int) -> int:
    """Elements that share a unit, `most` at most: whole vectors, and a part of a block; 0 if there is none."""
    parts = range(min(block, most) // LONGEST_VECTOR * LONGEST_VECTOR, 0, -LONGEST_VECTOR)
    return next((part for part in parts if block % part == 0), 0)


@dataclass(frozen=True)
class Codes:
    """Codes in words of 32 bits, as [panel][word][column].

    A word has `per` neighbouring elements of a column: one in each of its bytes, and four more in their higher bits.

    Attributes:
        bits: of a code.
        depth: elements of a column.
        block: those that share a unit, whole words.
        flip: the highest bit of bytes changes.
    """

    bits: int
    depth: int
    block: int
    flip: bool = False

    @property
    def per(self) -> int:
        return 32 // self.bits

    @property
    def blocks(self) -> int:
        return -(-self.depth // self.block)

    @property
    def words(self) -> int:
        """Of a block."""
        return self.block // self.per

    @property
    def reach(self) -> int:
        """Elements of a column with the padding of the last block."""
        return self.blocks * self.block

    def part(self, words: Expr, number: int, lanes: int, dot: Multiplier) -> Expr:
        """Four elements of every word, from element `4 * number` on, as bytes."""
        if number:
            words = tirx.shift_right(words, broadcast(tirx.const(number * self.bits, "int32"), lanes))
        if self.bits < 8:
            mask = (2**self.bits - 1) * 0x01010101
            words = tirx.bitwise_and(words, broadcast(tirx.const(mask, "int32"), lanes))
        return tirx.reinterpret(f"{dot.codes}x{WORD_BYTES * lanes}", words)

    def single(self, word: Expr, number: Expr) -> Expr:
        """Element `number` of a word."""
        byte, part = tirx.floormod(number, WORD_BYTES), tirx.floordiv(number, WORD_BYTES)
        shift = tirx.Cast("int32", byte * 8 + part * self.bits)
        return tirx.bitwise_and(tirx.shift_right(word, shift), tirx.const(2**self.bits - 1, "int32"))


def in_bytes(stored: np.ndarray, bits: int) -> np.ndarray:
    """Words of four bytes along the last axis, whose codes are in order from the low bits on, as `Codes` has them."""
    single = unpack(stored, bits, stored.shape[-1] * 8 // bits)
    parts = single.reshape(*stored.shape[:-1], -1, 8 // bits, WORD_BYTES)
    shifts = (np.arange(8 // bits, dtype=np.uint8) * np.uint8(bits))[:, None]
    return np.bitwise_or.reduce(parts << shifts, axis=-2).reshape(stored.shape)


@dataclass(frozen=True)
class CodePacking(Packing):
    """Codes (ceil(depth * bits / 8), columns), of which neighbours along the first axis share a byte, as words."""

    codes: Codes
    columns: Columns

    def pack(self, weight: np.ndarray) -> np.ndarray:
        codes, bits = self.codes, self.codes.bits
        stored = (weight.view(np.uint8) ^ np.uint8(_SIGN if codes.flip else 0)).T
        whole = np.pad(stored, ((0, 0), (0, codes.reach * bits // 8 - stored.shape[1])))
        cut = self.columns.cut(in_bytes(whole, bits).T)  # [byte][panel][column]
        words = cut.reshape(-1, WORD_BYTES, *cut.shape[1:]).transpose(2, 0, 3, 1)  # [panel][word][column][byte]
        return np.ascontiguousarray(words).view("<i4")[..., 0]
