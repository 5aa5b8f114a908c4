"""The weight of a product, recognised in the formula of its elements."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr, Var
from tvm.ir import TensorLoad as Load
from tvm.sym import Analyzer

from dscc.schedule.codes.layout import LONGEST_VECTOR, MOST_PER_UNIT, part_of
from dscc.schedule.stages import is_zero


@dataclass(frozen=True)
class Weight:
    """(code[k, n] - zero) * scale.

    Attributes:
        bits: of a code.
        codes: where they are read: (depth / codes of a byte, columns) of uint8, or of int8 where a byte is one.
        scales: (blocks, columns) of any float; None for 1.
        zeros: (blocks, columns) of numbers, or one number; None for 0.
        block: elements of a column that share them.
    """

    bits: int
    codes: Load
    scales: Load | None
    zeros: Load | tirx.FloatImm | None
    block: int

    @property
    def tables(self) -> list[Load]:
        """What is read of it."""
        return [load for load in (self.codes, self.scales, self.zeros) if isinstance(load, Load)]

    def part(self, most: int) -> int:
        """Elements that share a unit, `most` at most: whole vectors, and a part of a block; 0 if there is none."""
        return part_of(self.block, min(most, MOST_PER_UNIT))

    @staticmethod
    def of(element: Expr, depth: Var, column: Var, length: int) -> Weight | None:
        """`element` of a weight of `length` rows taken apart; None if it is something else."""
        for number, scale in _scaled(element):
            zero = None
            if isinstance(number, tirx.Sub):
                number, zero = number.a, _plain(number.b)
            found = _codes(number, depth, column)
            scales = None if scale is None else _plain(scale)
            if (
                found is None
                or not isinstance(scales, Load | None)
                or not isinstance(zero, Load | tirx.FloatImm | None)
            ):
                continue
            blocks = {_block(load, depth, column, length) for load in (scales, zero) if isinstance(load, Load)}
            block = blocks.pop() if blocks else length
            if blocks or block <= 0:
                continue
            whole = -(-length // LONGEST_VECTOR) * LONGEST_VECTOR
            return Weight(*found, scales, zero, block if block < length else whole)
        return None


def _scaled(element: Expr) -> Iterator[tuple[Expr, Expr | None]]:
    """What may be a number and its scale."""
    if isinstance(element, tirx.Mul):
        yield element.a, element.b
        yield element.b, element.a
    else:
        yield element, None


def _plain(expr: Expr) -> Expr:
    """What `expr` converts, if it does."""
    while isinstance(expr, tirx.Cast):
        expr = expr.value
    return expr


def _codes(number: Expr, depth: Var, column: Var) -> tuple[int, Load] | None:
    """The bits of a code and where it is read, if `number` is one."""
    if not isinstance(number, tirx.Cast):
        return None
    code, shift, bits = _plain(number), None, 8
    if isinstance(code, tirx.BitwiseAnd) and isinstance(code.b, tirx.IntImm):
        bits, moved = int(code.b.value).bit_length(), _plain(code.a)
        if not isinstance(moved, tirx.RShift) or int(code.b.value) != 2**bits - 1 or bits not in (2, 4):
            return None
        code, shift = _plain(moved.a), moved.b
    kinds = ("uint8", "int8") if shift is None else ("uint8",)
    if not isinstance(code, Load) or str(code.source.dtype) not in kinds or len(code.indices) != 2:
        return None
    per, same = tirx.const(8 // bits, "int64"), Analyzer().can_prove_equal
    where = depth if shift is None else tirx.floordiv(depth, per)
    if not same(code.indices[0], where) or not code.indices[1].same_as(column):
        return None
    if shift is not None and not same(tirx.Cast("int64", _plain(shift)), tirx.floormod(depth, per) * bits):
        return None
    return bits, code


def _block(load: Load, depth: Var, column: Var, length: int) -> int:
    """How many elements of a column share what is read; 0 if it is read otherwise."""
    if len(load.indices) != 2 or not load.indices[1].same_as(column):
        return 0
    at = load.indices[0]
    if is_zero(at):
        return length
    by = at.b if isinstance(at, tirx.FloorDiv) and at.a.same_as(depth) else None
    return int(by.value) if isinstance(by, tirx.IntImm) else 0
