"""Matrix products and convolutions on Hopper's tensor cores; see dscc/targets/cuda/ring.py for how.

A convolution is the product of its windows with its weights. Its windows are never unfolded: a tile of rows is a box of
pixels, which the bulk tensor copy engine fetches once for every position in the window, with the padding as zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from tvm import tirx
from tvm.ir import Expr

from dscc.schedule.base import Scheduled
from dscc.schedule.code import Index, ceildiv, constant, index, product
from dscc.schedule.convolution import Convolution
from dscc.schedule.decisions import Decisions
from dscc.schedule.epilogue import Fused
from dscc.schedule.stages import unravel
from dscc.targets.cuda.kernel import CudaKernel
from dscc.targets.cuda.machine import CudaMachine, CudaRule
from dscc.targets.cuda.problem import Factor, Problem
from dscc.targets.cuda.ring import UNITS, Left, Right, Tile, right_box, write_ring

_TYPICAL_ROWS = 4096  # stands for a symbolic extent when tiles are compared
_SIZES = ((2, 256), (2, 128), (1, 256), (1, 128), (1, 64), (2, 64))


class HopperProduct(CudaRule):
    """Products of matrices in float16 and bfloat16 on sm_90a; see the module."""

    name: ClassVar[str] = "wgmma-product"

    def write(
        self, func: tirx.PrimFunc, constants: frozenset[int], machine: CudaMachine, decisions: Decisions
    ) -> Scheduled | None:
        if not machine.has_wgmma:
            return None
        code = CudaKernel()
        problem = Problem.of(func, code)
        if problem is None or not _fits(problem):
            return None
        dtype, units = problem.dtype, UNITS[problem.dtype]
        steps = -(-problem.depth // units)
        rows = constant(problem.rows) or _TYPICAL_ROWS
        batches = constant(problem.batches) or 16
        tile = _choose(decisions, machine, [(rows, batches)], problem.columns, steps)
        columns_inner = not problem.right.depth_inner
        box = right_box(tile, dtype, columns_inner)
        right = _matrices(code, "right_map", problem, problem.right, problem.columns, box)
        left = _Rows(code, problem, tile)
        write_ring(
            code, machine, dtype, tile, left, Right(right, columns_inner, problem.columns), problem.batches, steps
        )
        return Scheduled(tirx.PrimFunc(func.params, code.stmt(), func.ret_type, func.attrs))


def _fits(problem: Problem) -> bool:
    known = problem.dtype in UNITS and problem.columns % 2 == 0 and problem.aligned
    return known and (problem.dtype != "float32" or problem.right.depth_inner)


def _choose(
    decisions: Decisions, machine: CudaMachine, shapes: Sequence[tuple[int, int]], columns: int, steps: int
) -> Tile:
    """The tile for one of `shapes` (rows, products), by the tuner or by estimated cycles."""
    found = []
    for groups, wide in _SIZES:
        cycles = 0.0
        for rows, batches in shapes:
            down, across = -(-rows // (64 * groups)), -(-columns // wide)
            tiles = down * across * batches
            # time of a tile: its arithmetic, or its bytes from the second-level cache; in cycles of a multiprocessor
            multiply = 64 * groups * wide / 4096 * 64
            fetch = (64 * groups + wide) * 128 / 48
            waves = -(-tiles // machine.units)
            cycles += waves * (steps * max(multiply, fetch) + 1500 + 2 * groups * wide)
        found.append((cycles, (groups, wide)))
    ordered = [size for _, size in sorted(found, key=lambda each: each[0])]
    return Tile(*decisions.pick("tile", ordered))


def _matrices(
    code: CudaKernel, name: str, problem: Problem, factor: Factor, lines: Index, box: Sequence[int]
) -> tirx.Var:
    inner, outer = (problem.depth, lines) if factor.depth_inner else (lines, problem.depth)
    batches = problem.batches if factor.batched else 1
    return code.tensor_map(name, factor.buffer, [inner, outer, batches], [inner, product([inner, outer])], [*box, 1])


class _Rows(Left):
    """The rows of a matrix."""

    def __init__(self, code: CudaKernel, problem: Problem, tile: Tile):
        self._code, self._problem, self._tile = code, problem, tile
        self.down = code.bind("down", index(ceildiv(problem.rows, tile.rows)))

    def map(self) -> tirx.Var:
        problem = self._problem
        box = [UNITS[problem.dtype], self._tile.rows]
        return _matrices(self._code, "left_map", problem, problem.left, problem.rows, box)

    def source(self, ring: str) -> tuple[str, list[Index]]:
        problem = self._problem
        return f"dscc::Rows<{ring}, {UNITS[problem.dtype]}>", [int(problem.left.batched), int(problem.right.batched)]

    def place(self, tile: Expr, within: Expr, batch: Expr) -> tuple[Expr, list[Expr]]:
        row = tile * self._tile.rows + within
        batches = unravel(batch, self._problem.batch) if self._problem.batch else []
        return row < index(self._problem.rows), [*batches, row]

    def store(self, place: Sequence[Expr], column: Expr, value: Expr) -> tirx.Stmt:
        return self._problem.view.store([*place, column], value)


class HopperConv(CudaRule):
    """Dense convolutions over channels-last data in float16 and bfloat16 on sm_90a; see the module."""

    name: ClassVar[str] = "wgmma-conv"

    def write(
        self, func: tirx.PrimFunc, constants: frozenset[int], machine: CudaMachine, decisions: Decisions
    ) -> Scheduled | None:
        if not machine.has_wgmma:
            return None
        fused = Fused.of(func)
        conv = None if fused is None else Convolution.of(fused, converted=True)
        if fused is None or conv is None or conv.groups != 1 or conv.source is None or conv.outputs % 2:
            return None
        dtype = str(conv.source.dtype)
        units = UNITS.get(dtype)
        if units is None or str(conv.weight.source.dtype) != dtype or conv.inputs * (128 // units) % 16:
            return None
        if max(conv.height.stride, conv.width.stride) > 8:  # what the copy engine can step over
            return None
        steps = conv.height.kernel * conv.width.kernel * -(-conv.inputs // units)
        boxes = {groups: Box.best(conv, 64 * groups) for groups in (1, 2)}
        tile = _choose_box(decisions, machine, boxes, conv, steps)
        code = CudaKernel()
        left = _Windows(code, fused, conv, boxes[tile.groups])
        depth = conv.height.kernel * conv.width.kernel * conv.inputs
        box = [*right_box(tile, dtype, False), 1]
        shape = [depth, conv.outputs, 1]
        right = code.tensor_map("right_map", conv.weight.source, shape, [depth, depth * conv.outputs], box)
        write_ring(code, machine, dtype, tile, left, Right(right, False, conv.outputs), 1, steps)
        return Scheduled(tirx.PrimFunc(func.params, code.stmt(), func.ret_type, func.attrs))


@dataclass(frozen=True)
class Box:
    """Pixels of a tile: images x rows x columns of the result."""

    images: int
    rows: int
    columns: int

    def count(self, conv: Convolution) -> int:
        """How many of them cover the result; symbolic extents are taken as those of a usual image."""
        batch, tall, wide = _extents(conv)
        return -(-batch // self.images) * -(-tall // self.rows) * -(-wide // self.columns)

    @staticmethod
    def best(conv: Convolution, most: int) -> Box:
        """The box of at most `most` pixels that covers the result most tightly, as wide as can be."""
        batch, tall, wide = _extents(conv)
        found = []
        for columns in range(1, min(wide, most, 256 // conv.width.stride) + 1):
            for rows in range(1, min(tall, most // columns, 256 // conv.height.stride) + 1):
                images = min(max(most // (columns * rows), 1), 256)
                if constant(conv.batch) is not None:
                    images = min(images, batch)
                elif rows * columns < tall * wide:
                    images = 1
                box = Box(images, rows, columns)
                found.append((box.count(conv), -columns, -rows, box))
        return min(found, key=lambda each: each[:3])[3]


def _extents(conv: Convolution) -> tuple[int, int, int]:
    return constant(conv.batch) or 8, constant(conv.height.out) or 56, constant(conv.width.out) or 56


def _choose_box(
    decisions: Decisions,
    machine: CudaMachine,
    boxes: dict[int, Box],
    conv: Convolution,
    steps: int,
) -> Tile:
    found = []
    for groups, wide in _SIZES:
        tiles = boxes[groups].count(conv) * -(-conv.outputs // wide)
        multiply = 64 * groups * wide / 4096 * 64
        fetch = (64 * groups + wide) * 128 / 48
        waves = -(-tiles // machine.units)
        found.append((waves * (steps * max(multiply, fetch) + 1500 + 2 * groups * wide), (groups, wide)))
    return Tile(*decisions.pick("tile", [size for _, size in sorted(found, key=lambda each: each[0])]))


class _Windows(Left):
    """The windows of a convolution, one for every pixel of the result."""

    def __init__(self, code: CudaKernel, fused: Fused, conv: Convolution, box: Box):
        self._code, self._fused, self._conv, self._box = code, fused, conv, box
        self._across = code.bind("tiles_w", index(ceildiv(conv.width.out, box.columns)))
        self._tall = code.bind("tiles_h", index(ceildiv(conv.height.out, box.rows)))
        deep = index(ceildiv(conv.batch, box.images))
        self.down = code.bind("down", deep * self._tall * self._across)

    def map(self) -> tirx.Var:
        conv, box = self._conv, self._box
        assert conv.source is not None  # the rule has looked
        channels, wide, tall = conv.channels, conv.width.size, conv.height.size
        row = product([channels, wide])
        strides = [channels, row, product([row, tall])]
        steps = [1, conv.width.stride, conv.height.stride, 1]
        taken = [UNITS[str(conv.source.dtype)], box.columns, box.rows, box.images]
        return self._code.tensor_map("left_map", conv.source, [channels, wide, tall, conv.batch], strides, taken, steps)

    def source(self, ring: str) -> tuple[str, list[Index]]:
        conv, box = self._conv, self._box
        assert conv.source is not None
        numbers = [UNITS[str(conv.source.dtype)], conv.inputs, conv.width.kernel, conv.height.stride, conv.width.stride]
        numbers += [conv.height.dilation, conv.width.dilation, box.images, box.rows, box.columns]
        places = [conv.height.before, conv.width.before, self._tall, self._across]
        return f"dscc::Windows<{ring}, {', '.join(map(str, numbers))}>", places

    def place(self, tile: Expr, within: Expr, batch: Expr) -> tuple[Expr, list[Expr]]:
        conv, box = self._conv, self._box
        image, row, column = unravel(within, [index(box.images), index(box.rows), index(box.columns)])
        images, rows, columns = unravel(tile, [index(0), self._tall, self._across])
        pixel = [images * box.images + image, rows * box.rows + row, columns * box.columns + column]
        exists = within < box.images * box.rows * box.columns
        for at, extent in zip(pixel, (conv.batch, conv.height.out, conv.width.out), strict=True):
            exists = tirx.And(exists, at < index(extent))
        return exists, pixel

    def store(self, place: Sequence[Expr], column: Expr, value: Expr) -> tirx.Stmt:
        return self._fused.store([*place, column], value)
