"""Matrix products and convolutions on Hopper's tensor cores; see dscc/targets/cuda/ring.py for how.

A convolution is the product of its windows with its weights. Its windows are never unfolded: a tile of rows is a box of
pixels, which the bulk tensor copy engine fetches once for every position in the window, with the padding as zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

# Ranges of a symbolic number of rows, above and up to, with a typical one, and what the tuner calls the tile.
_RANGES = ((0, 256, 128, "tile_few"), (256, 2048, 1024, "tile_some"), (2048, None, 8192, "tile"))
_TYPICAL_BATCHES = 16
_TYPICAL_SIDE = 56  # of an image
_SIZES = ((2, 256), (2, 192), (2, 128), (1, 256), (1, 192), (1, 128), (1, 64), (2, 64))


class HopperProduct(CudaRule):
    """Products of matrices in float16, bfloat16 and tf32 on sm_90a; see the module."""

    name: ClassVar[str] = "wgmma-product"

    def write(
        self, func: tirx.PrimFunc, constants: frozenset[int], machine: CudaMachine, decisions: Decisions
    ) -> Scheduled | None:
        if not machine.has_wgmma:
            return None
        code = CudaKernel()
        problem = Problem.of(func, code, constants if machine.tf32 else frozenset())
        if problem is None or not _fits(problem, machine):
            return None
        steps = -(-problem.depth // UNITS[problem.dtype])
        batches = constant(problem.batches) or _TYPICAL_BATCHES

        def tile(rows: int, name: str) -> Tile:
            return _choose(decisions, name, lambda size: _tiles(rows, batches, problem.columns, size), steps, machine)

        for few, many, chosen in _variants(problem.rows, tile):
            with code.when(_between(problem.rows, few, many)):
                _write_product(code, machine, problem, chosen, steps)
        made = tirx.PrimFunc(list(problem.params), code.stmt(), func.ret_type, func.attrs)
        return Scheduled(made, problem.packings)


def _write_product(code: CudaKernel, machine: CudaMachine, problem: Problem, tile: Tile, steps: int) -> None:
    columns_inner = not problem.right.depth_inner
    box = right_box(tile, problem.dtype, columns_inner)
    right = Right(
        _matrices(code, "right_map", problem, problem.right, problem.columns, box), columns_inner, problem.columns
    )
    with code.when(_between(problem.batches, 0, None)):
        write_ring(code, machine, problem.dtype, tile, _Rows(code, problem, tile), right, problem.batches, steps)


def _variants(count: Index, tile: Callable[[int, str], Tile]) -> list[tuple[int, int | None, Tile]]:
    """Ranges of a number of rows, above the first number and up to the second, with a tile for each."""
    known = constant(count)
    if known is not None:
        return [(0, None, tile(known, "tile"))]
    found: list[tuple[int, int | None, Tile]] = []
    for few, many, typical, name in _RANGES:
        chosen = tile(typical, name)
        if found and found[-1][2] == chosen:
            few = found.pop()[0]
        found.append((few, many, chosen))
    return found


def _between(count: Index, few: int, many: int | None) -> Expr | bool:
    """Whether a number is above `few` and not above `many`."""
    if constant(count) is not None:
        return True
    above = index(count) > few
    return above if many is None else tirx.And(above, index(count) <= many)


def _fits(problem: Problem, machine: CudaMachine) -> bool:
    known = problem.dtype in UNITS and problem.columns % 2 == 0 and problem.aligned
    return known and (problem.dtype != "float32" or (machine.tf32 and problem.right.depth_inner))


def _tiles(rows: int, batches: int, columns: int, size: tuple[int, int]) -> int:
    return -(-rows // (64 * size[0])) * -(-columns // size[1]) * batches


def _choose(
    decisions: Decisions, name: str, tiles: Callable[[tuple[int, int]], int], steps: int, machine: CudaMachine
) -> Tile:
    """The tile, by the tuner or by estimated cycles; `tiles` says how many there are of a size."""

    def cycles(size: tuple[int, int]) -> float:
        groups, wide = size
        # time of a step: its arithmetic, or its bytes from the second-level cache; in cycles of a multiprocessor
        multiply = 64 * groups * wide * 64 / 2048
        fetch = (64 * groups + wide) * 128 / 48
        waves = -(-tiles(size) // machine.units)
        return waves * (steps * max(multiply, fetch) + 1000 + groups * wide * 4) + 1500

    candidates: list[tuple[int, ...]] = [*sorted(_SIZES, key=cycles)]
    return Tile(*decisions.pick(name, candidates))


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
    """Dense convolutions over channels-last data in float16, bfloat16 and tf32 on sm_90a; see the module."""

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
        if (
            units is None
            or (dtype == "float32" and not machine.tf32)
            or str(conv.weight.source.dtype) != dtype
            or conv.inputs * (128 // units) % 16
        ):
            return None
        if max(conv.height.stride, conv.width.stride) > 8:  # what the copy engine can step over
            return None
        steps = conv.height.kernel * conv.width.kernel * -(-conv.inputs // units)
        code = CudaKernel()
        known = constant(conv.batch)
        few = [(0, None, known, "tile")] if known is not None else [(0, 2, 1, "tile_few"), (2, None, 8, "tile")]
        for above, upto, typical, name in few:
            boxes = {groups: Box.best(conv, 64 * groups, typical) for groups in (1, 2)}

            def tiles(size: tuple[int, int], boxes: dict[int, Box] = boxes, typical: int = typical) -> int:
                return boxes[size[0]].count(conv, typical) * -(-conv.outputs // size[1])

            tile = _choose(decisions, name, tiles, steps, machine)
            with code.when(_between(conv.batch, above, upto)):
                _write_conv(code, machine, fused, conv, tile, boxes[tile.groups], steps)
        return Scheduled(tirx.PrimFunc(func.params, code.stmt(), func.ret_type, func.attrs))


def _write_conv(
    code: CudaKernel, machine: CudaMachine, fused: Fused, conv: Convolution, tile: Tile, box: Box, steps: int
) -> None:
    dtype = str(conv.weight.source.dtype)
    left = _Windows(code, fused, conv, box)
    depth = conv.height.kernel * conv.width.kernel * conv.inputs
    taken = [*right_box(tile, dtype, False), 1]
    shape = [depth, conv.outputs, 1]
    right = code.tensor_map("right_map", conv.weight.source, shape, [depth, depth * conv.outputs], taken)
    write_ring(code, machine, dtype, tile, left, Right(right, False, conv.outputs), 1, steps)


@dataclass(frozen=True)
class Box:
    """Pixels of a tile: images x rows x columns of the result."""

    images: int
    rows: int
    columns: int

    def count(self, conv: Convolution, batch: int) -> int:
        """How many of them cover the result; symbolic extents are taken as those of a usual image."""
        tall, wide = (constant(axis.out) or _TYPICAL_SIDE for axis in (conv.height, conv.width))
        return -(-batch // self.images) * -(-tall // self.rows) * -(-wide // self.columns)

    @staticmethod
    def best(conv: Convolution, most: int, batch: int) -> Box:
        """The box of at most `most` pixels that covers the result most tightly, as wide as can be."""
        tall, wide = constant(conv.height.out), constant(conv.width.out)
        if tall is None or wide is None:  # little is lost of small images, which have most of the work
            return Box(1, most // 8, 8)
        found = []
        for columns in range(1, min(wide, most, 256 // conv.width.stride) + 1):
            for rows in range(1, min(tall, most // columns, 256 // conv.height.stride) + 1):
                images = min(max(most // (columns * rows), 1), batch) if rows * columns == tall * wide else 1
                box = Box(images, rows, columns)
                found.append((box.count(conv, batch), -columns, -rows, box))
        return min(found, key=lambda each: each[:3])[3]


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
