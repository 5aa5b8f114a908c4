"""As many vectors as a vector has lanes: turned around, or each added up, by shuffles of pairs.

The vectors are passed on in arrays, which LLVM keeps in registers: TVM 0.27's analysis would substitute variables into
each other, at a cost exponential in the number of rounds.
"""

from __future__ import annotations

from tvm import tirx
from tvm.ir import Expr

from dscc.schedule.code import Code, lanes_of


def transposed(code: Code, rows: list[Expr]) -> list[Expr]:
    """The columns of the square matrix whose rows are given, in log2(n) rounds in which pairs of rows swap blocks."""
    n, block = len(rows), 1
    while block < n:
        rows = _held(code, rows)
        low, high = _orders(n, block)
        swapped = list(rows)
        for i in (i for i in range(n) if not i & block):
            pair = [rows[i], rows[i + block]]
            swapped[i], swapped[i + block] = tirx.Shuffle(pair, low), tirx.Shuffle(pair, high)
        rows, block = swapped, 2 * block
    return rows


def sums(code: Code, rows: list[Expr]) -> Expr:
    """A vector with the sum of row i in lane i; each round makes one row of two."""
    n, block = len(rows), 1
    while block < n:
        rows = _held(code, rows)
        low, high = _orders(n, block)
        pairs = [rows[i : i + 2] for i in range(0, len(rows), 2)]
        rows, block = [tirx.Shuffle(pair, low) + tirx.Shuffle(pair, high) for pair in pairs], 2 * block
    return rows[0]


def _orders(n: int, block: int) -> tuple[list[int], list[int]]:
    """The lanes of a pair of rows that a swap of blocks brings into the first of them, and into the second."""
    low = [lane if not lane & block else n + lane - block for lane in range(n)]
    return low, [lane + block for lane in low]


def _held(code: Code, rows: list[Expr]) -> list[Expr]:
    n = lanes_of(rows[0])
    held = code.stack("square", len(rows) * n, str(rows[0].ty.dtype).partition("x")[0])
    for i, row in enumerate(rows):
        held.store(code, i * n, row)
    return [held.load(i * n, n) for i in range(len(rows))]
