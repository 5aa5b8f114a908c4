"""What a mixture of experts computes.

    p[s] = W1[e] enter(x[t], share)          s: a slot, one of the `top` choices of token t; e: its expert
    h[s] = middle(p[s], b1[e])               element by element, over the parts of p: gate and up, or one
    y[t] = sum over the slots of t of leave(W2[e] h[s], b2[e], share)

Shazeer et al. 2017, arXiv:1701.06538; Fedus et al. 2021, arXiv:2101.03961 for the capacity.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from tvm import tirx
from tvm.ir import Expr, Var

from dscc.schedule.code import Index, index

ATTRIBUTE = "dscc.experts"  # of a PrimFunc: its Mixture as text

ENTER = '"x"'
SILU_GATE = '["Mul", ["Mul", "p0", ["call", "tirx.sigmoid", "p0"]], "p1"]'
LEAVE = '["Mul", "p", "share"]'


@dataclass(frozen=True)
class Storage:
    """How a weight (experts, columns, depth) is kept.

    Attributes:
        bits: 32 and 16: floats; 8, 4 and 2: codes of which several share a byte, the first in its low bits, along the
        depth. An element is (code - zero) * scale.
        brain: the 16 bits are the upper half of a float32, as in bfloat16.
        block: codes along the depth that share a scale; 0: all of a column.
        zero: the code that means 0, where no operand says so.
    """

    bits: int = 32
    block: int = 0
    zero: int = 0
    brain: bool = False

    @property
    def dtype(self) -> str:
        return {32: "float32", 16: "uint16" if self.brain else "float16"}.get(self.bits, "uint8")

    def real(self, stored: Expr) -> Expr:
        """One of what is stored as a float32, where it is no code."""
        if self.brain:
            return tirx.reinterpret("float32", tirx.Cast("uint32", stored) << 16)
        return stored if self.bits == 32 else tirx.Cast("float32", stored)

    @property
    def per(self) -> int:
        """Elements in one of what is stored."""
        return max(1, 8 // self.bits)

    @property
    def coded(self) -> bool:
        return self.bits <= 8

    def stored(self, depth: int) -> int:
        """Elements of the operand along the depth."""
        return -(-depth // self.per)

    def pack(self, codes: np.ndarray) -> np.ndarray:
        """Codes (.., depth), one a byte, as they are stored."""
        short = -codes.shape[-1] % self.per
        padded = np.pad(codes, [*[(0, 0)] * (codes.ndim - 1), (0, short)]) if short else codes
        parts = padded.reshape(*padded.shape[:-1], -1, self.per) << (np.arange(self.per, dtype=np.uint8) * self.bits)
        return np.bitwise_or.reduce(parts, axis=-1)

    def blocks(self, depth: int) -> int:
        """Scales of a column."""
        return -(-depth // self.block) if self.block else 1


@dataclass(frozen=True)
class Mixture:
    """A mixture of experts but for the number of tokens.

    Attributes:
        experts: how many there are.
        top: how many every token chooses.
        hidden, inner, out: elements of a token, of an expert's hidden layer, of the result.
        parts: 2 where the first product makes a gate and what it opens, of `inner` columns each, else 1.
        operands: the names of the inputs in order: x (tokens, hidden), ids (tokens, top) int64, shares (tokens, top),
        w1 (experts, parts * inner, hidden), w2 (experts, out, inner), and of b1, b2 (experts, columns), s1, s2 (scales)
        and z1, z2 (zeros in codes, as floats; both (experts, columns, blocks)) those that there are.
        enter: formula of x and share. middle: of p0 and p1, b0 and b1. leave: of p, b and share.
        first, second: how the weights are kept.
        begin, after: how many experts with lower and higher numbers are elsewhere; their ids count for nothing.
        capacity: None, or the slots that an expert takes as a multiple of an even share; those that come later count
        for nothing.
    """

    experts: int
    top: int
    hidden: int
    inner: int
    out: int
    parts: int
    operands: tuple[str, ...]
    enter: str = ENTER
    middle: str = SILU_GATE
    leave: str = LEAVE
    first: Storage = field(default_factory=Storage)
    second: Storage = field(default_factory=Storage)
    begin: int = 0
    after: int = 0
    capacity: float | None = None

    def text(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @staticmethod
    def of(text: str) -> Mixture:
        fields = json.loads(text)
        fields["operands"] = tuple(fields["operands"])
        fields |= {name: Storage(**fields[name]) for name in ("first", "second")}
        return Mixture(**fields)

    @cached_property
    def columns(self) -> int:
        """Columns of the first product."""
        return self.parts * self.inner

    @property
    def weights(self) -> int:
        """Parameters of one expert."""
        biases = self.columns * ("b1" in self.operands) + self.out * ("b2" in self.operands)
        return self.columns * self.hidden + self.out * self.inner + biases

    def shapes(self, tokens: Index) -> dict[str, tuple[tuple[Index, ...], str]]:
        """Shape and type of every operand that there may be, and of the output `y`."""
        n, first, second = self.experts, self.first, self.second
        return {
            "x": ((tokens, self.hidden), "float32"),
            "ids": ((tokens, self.top), "int64"),
            "shares": ((tokens, self.top), "float32"),
            "w1": ((n, self.columns, first.stored(self.hidden)), first.dtype),
            "b1": ((n, self.columns), "float32"),
            "s1": ((n, self.columns, first.blocks(self.hidden)), "float32"),
            "z1": ((n, self.columns, first.blocks(self.hidden)), "float32"),
            "w2": ((n, self.out, second.stored(self.inner)), second.dtype),
            "b2": ((n, self.out), "float32"),
            "s2": ((n, self.out, second.blocks(self.inner)), "float32"),
            "z2": ((n, self.out, second.blocks(self.inner)), "float32"),
            "y": ((tokens, self.out), "float32"),
        }

    def params(self, tokens: Var) -> dict[str, Var]:
        """A buffer for every operand, then for `y`."""
        shapes = self.shapes(tokens)
        return {
            name: tirx.decl_buffer([index(n) for n in shapes[name][0]], shapes[name][1], name)
            for name in (*self.operands, "y")
        }

    def limit(self, slots: Expr) -> Expr:
        """The slots that an expert takes of `slots`."""
        if self.capacity is None:
            return slots
        even = self.capacity / (self.begin + self.experts + self.after)
        return tirx.Cast("int64", tirx.ceil(tirx.Cast("float64", slots) * tirx.const(even, "float64")))
