"""Products and convolutions of bytes on the tensor cores of Ampere and later; see dscc/targets/cuda/device/bytes.cuh.

    C[.., m, n] = epilogue(sum_k (int32(A[.., m, k]) - a) * (int32(W[k, n]) - w[n]))          A, W: int8 or uint8
                = epilogue(S[.., m, n] - a * (sum_k W[k, n] - K * w[n]) - w[n] * sum_k A[.., m, k])

S is what the tensor cores sum. W is constant: it is packed as lines along the depth, with their sums behind them. The
sums of A's rows, which only a zero point of the weight wants, are products with a matrix of ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from tvm import tirx
from tvm.ir import Expr, Var

from dscc.schedule.base import Packing, Scheduled
from dscc.schedule.code import Flat, Index, constant, index, product
from dscc.schedule.convolution import Convolution
from dscc.schedule.decisions import Decisions
from dscc.schedule.epilogue import Fused
from dscc.schedule.merge import Merge
from dscc.schedule.rules.matmul import roles
from dscc.schedule.rules.matmul_bytes import BYTES, Factor
from dscc.schedule.stages import substitute, unravel
from dscc.targets.cuda.kernel import CudaKernel, device_source, int32
from dscc.targets.cuda.machine import CudaMachine, CudaRule
from dscc.targets.cuda.store import Held
from dscc.targets.cuda.tensor import FILES, SIZES, TYPICAL_ROWS, Tile, Warps, Writer, choose, window

_STEP, _UNIT = 128, 16  # bytes of depth that are in shared memory at a time, and that one copy takes
_FOR_WINDOWS = tuple(size for size in SIZES if size[2] * size[3] < 32)  # with more sums, registers spilled


@dataclass(frozen=True)
class LinePacking(Packing):
    """Bytes as [column][depth], filled up with zeros, and behind every line 16 bytes that begin with its sum.

    Attributes:
        axes: the order of the weight's axes that puts the columns first.
    """

    axes: tuple[int, ...]

    @staticmethod
    def pitch(depth: int) -> int:
        """Bytes from one line to the next."""
        return -(-depth // _UNIT) * _UNIT + _UNIT

    def pack(self, weight: np.ndarray) -> np.ndarray:
        lines = weight.transpose(self.axes).reshape(weight.shape[self.axes[0]], -1)
        count, depth = lines.shape
        packed = np.zeros((count, self.pitch(depth)), weight.dtype)
        packed[:, :depth] = lines
        sums = lines.sum(axis=1, dtype=np.int32)
        packed[:, -_UNIT : 4 - _UNIT] = sums.view(weight.dtype).reshape(count, 4)
        return packed


class ByteProduct(CudaRule):
    """Products of matrices of int8 and uint8 with constant weights; see the module."""

    name: ClassVar[str] = "mma-byte-product"

    def write(
        self, func: tirx.PrimFunc, constants: frozenset[int], machine: CudaMachine, decisions: Decisions
    ) -> Scheduled | None:
        fused = Fused.of(func) if machine.has_mma else None
        found = None if fused is None else roles(fused, "int32")
        if fused is None or found is None or found.batch:
            return None
        left = Factor.of(found.left, [*found.rows, found.depth], [])
        right = Factor.of(found.right, [found.depth, found.column], [found.column])
        if left is None or right is None or left.bytes.source not in func.params:
            return None
        weight = _Weight.of(func, right.bytes.source, (1, 0), constants)
        if weight is None:
            return None
        code, extents = CudaKernel(), fused.anchor.extents
        depth, columns = int(extents[found.depth]), int(extents[found.column])
        merge = Merge(found.rows, [extents[var] for var in found.rows], code)
        view = merge.fused(fused)
        zeros = _Zeros(left.zero, _by_column(right.zero, found.column), depth)
        rows, steps = merge.extent, -(-depth // _STEP)
        warps = choose(decisions, machine, constant(rows) or TYPICAL_ROWS, columns, 1, steps)
        writer = _Writer(code, machine, str(left.bytes.source.dtype), weight, zeros, warps, rows, columns)
        data = code.view(left.bytes.source)

        def multiply(tile: Tile) -> None:
            at = [tirx.address_of(flat.load(0)) for flat in (data, writer.right)]
            numbers = [rows, columns, depth, weight.pitch]
            tile.call("multiply_bytes", str(_piece(depth)), [*at, *tile.place, *map(int32, numbers)])

        writer.write(multiply, lambda row, _: [row], lambda at, column, value: view.store([*at, column], value))
        return weight.scheduled(func, code)


class ByteConv(CudaRule):
    """Dense convolutions of int8 and uint8, channels last, with constant weights; see the module."""

    name: ClassVar[str] = "mma-byte-conv"

    def write(
        self, func: tirx.PrimFunc, constants: frozenset[int], machine: CudaMachine, decisions: Decisions
    ) -> Scheduled | None:
        fused = Fused.of(func) if machine.has_mma else None
        conv = None if fused is None else Convolution.of(fused, "int32", converted=True)
        data = None if conv is None else Factor.of(conv.data, conv.at, [])
        if fused is None or conv is None or data is None or conv.groups != 1 or data.bytes.source not in func.params:
            return None
        weight, code = _Weight.of(func, conv.weight.source, (0, 1, 2, 3), constants), CudaKernel()
        if weight is None:
            return None
        tall, wide, taps = conv.height, conv.width, conv.height.kernel * conv.width.kernel
        pixels = [conv.batch, tall.out, wide.out]
        rows, depth = product(pixels), taps * conv.inputs
        steps = taps * -(-conv.inputs // _STEP) if conv.inputs % _UNIT == 0 else -(-depth // _STEP)
        warps = choose(decisions, machine, constant(rows) or TYPICAL_ROWS, conv.outputs, 1, steps, _FOR_WINDOWS)
        zeros, stored = _Zeros(data.zero), str(data.bytes.source.dtype)
        writer = _Writer(code, machine, stored, weight, zeros, warps, rows, conv.outputs)
        flat, zero = code.view(data.bytes.source), int32(0) if data.zero is None else data.zero

        def multiply(tile: Tile) -> None:
            kinds = ", ".join(map(str, [conv.inputs, *(n for pair in window(conv) for n in pair)]))
            sizes = [rows, conv.outputs, tall.size, wide.size, tall.out, wide.out, weight.pitch]
            at = [tirx.address_of(each.load(0)) for each in (flat, writer.right)]
            tile.call("multiply_byte_windows", kinds, [*at, *tile.place, *map(int32, sizes), zero])

        def place(row: Expr, _: Expr) -> list[Expr]:
            return unravel(row, [index(extent) for extent in pixels])

        writer.write(multiply, place, lambda at, column, value: fused.store([*at, column], value))
        return weight.scheduled(func, code)


def _by_column(zero: Expr | None, column: Var) -> Callable[[Expr], Expr] | None:
    return None if zero is None else lambda at: substitute(zero, {column: at})


def _piece(depth: int) -> int:
    """Bytes that are copied at once: 16, 4 or 1."""
    return {16: 16, 8: 4, 4: 4}.get(math.gcd(depth, _UNIT), 1)


@dataclass(frozen=True)
class _Weight:
    """A constant parameter, and what it becomes.

    Attributes:
        number: of the parameter.
        lines: the parameter when it is packed.
        pitch: bytes from one line to the next.
        packing: how it is packed.
    """

    number: int
    lines: Var
    pitch: int
    packing: LinePacking

    @staticmethod
    def of(func: tirx.PrimFunc, buffer: Var, axes: tuple[int, ...], constants: frozenset[int]) -> _Weight | None:
        number = list(func.params).index(buffer) if buffer in func.params else -1
        if number not in constants or str(buffer.dtype) not in BYTES:
            return None
        columns, *others = (int(buffer.shape[axis]) for axis in axes)
        packing = LinePacking(axes)
        pitch = packing.pitch(math.prod(others))
        shape = [index(columns), index(pitch)]
        return _Weight(number, tirx.decl_buffer(shape, str(buffer.dtype), buffer.name), pitch, packing)

    def scheduled(self, func: tirx.PrimFunc, code: CudaKernel) -> Scheduled:
        params = list(func.params)
        params[self.number] = self.lines
        return Scheduled(tirx.PrimFunc(params, code.stmt(), func.ret_type, func.attrs), {self.number: self.packing})


@dataclass(frozen=True)
class _Zeros:
    """The zero points.

    Attributes:
        left: of the left factor; None for 0.
        right: (column) to that of the weight; None for 0.
        depth: length of the sums, which both together need.
    """

    left: Expr | None
    right: Callable[[Expr], Expr] | None = None
    depth: int = 0


class _Writer(Writer):
    """Takes the zero points out of the sums, before the epilogue."""

    dtype: ClassVar[str] = "int32"
    files: ClassVar[tuple[str, ...]] = (*FILES, "bytes.cuh")

    def __init__(
        self,
        code: CudaKernel,
        machine: CudaMachine,
        left: str,
        weight: _Weight,
        zeros: _Zeros,
        warps: Warps,
        rows: Index,
        columns: int,
    ):
        signs = ", ".join(str(kind == "int8").lower() for kind in (left, str(weight.lines.dtype)))
        element = f"dscc::{'Bytes' if zeros.right is None else 'SummedBytes'}<{signs}>"
        super().__init__(code, machine, element, warps, rows, columns, 1)
        self.behind = 0 if zeros.right is None else 1
        self.right: Flat = code.view(weight.lines)
        self._zeros, self._pitch = zeros, weight.pitch
        self._of_columns: list[tuple[Expr | None, Expr | None]] = []

    def prepare(self, edge: Expr) -> None:
        zeros = self._zeros
        left = None if zeros.left is None else self.code.bind("zero", zeros.left)
        for group in range(self.warps.columns):
            for c in range(2):
                column = tirx.min(edge + (group * 8 + c), index(self.columns - 1))
                right = None if zeros.right is None else self.code.bind("of_column", zeros.right(column))
                self._of_columns.append((None if left is None else self._taken(left, right, column), right))

    def _taken(self, left: Expr, right: Expr | None, column: Expr) -> Expr:
        """What the left zero point adds to the sums of a column."""
        at = tirx.address_of(self.right.load(column * self._pitch + (self._pitch - _UNIT)))
        total = self.code.value("dscc::word_at", "int32", at, source=device_source(*self.files))
        return self.code.bind("taken", left * (total if right is None else total - right * self._zeros.depth))

    def settle(self, held: Held, number: int) -> None:
        for half in range(2):
            of_row = tirx.BufferLoad(held.sums, [(self.warps.rows * self.warps.columns + number) * 4 + half * 2])
            for group, places in enumerate(held.places):
                for c in range(2):
                    taken, right = self._of_columns[group * 2 + c]
                    value = tirx.BufferLoad(held.sums, [places[half] + c])
                    if taken is not None:
                        value = value - taken
                    if right is not None:
                        value = value - right * of_row
                    if taken is not None or right is not None:
                        self.code.add(tirx.BufferStore(held.sums, value, [places[half] + c]))
