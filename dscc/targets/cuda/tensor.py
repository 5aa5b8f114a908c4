"""Products and convolutions on the tensor cores of Ampere and later; dscc/targets/cuda/device/tensor.cuh says how.

A convolution is a product whose rows are the pixels of its result: what a thread copies of a row at a step is 16 bytes
of channels at one position of that pixel's window.
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
from dscc.targets.cuda.kernel import CudaKernel, device_source, int32, nonempty
from dscc.targets.cuda.machine import CudaMachine, CudaRule
from dscc.targets.cuda.problem import Problem
from dscc.targets.cuda.store import Held, Store, staging_bytes, write_store

_ELEMENTS = {"float16": "dscc::Float16", "bfloat16": "dscc::Bfloat16", "float32": "dscc::Tfloat32"}
FILES = ("memory.cuh", "instructions.cuh", "tensor.cuh")
TYPICAL_ROWS = 4096
_STEP_BYTES = 128  # of depth


@dataclass(frozen=True)
class Warps:
    """A block's tile: `down` x `across` warps, each with `rows` x `columns` matrices of 16 x 8."""

    down: int
    across: int
    rows: int
    columns: int

    @property
    def threads(self) -> int:
        """Threads of the block."""
        return self.down * self.across * 32

    @property
    def tall(self) -> int:
        """Rows of the block's tile."""
        return self.down * self.rows * 16

    @property
    def wide(self) -> int:
        """Columns of the block's tile."""
        return self.across * self.columns * 8

    def stages(self, machine: CudaMachine) -> int:
        """Steps whose tiles are in shared memory at once: for two blocks on a multiprocessor if three steps fit."""
        slot = self.slot_bytes
        half = machine.block_bytes // 2 // slot
        return min(4, half if half >= 3 else max(machine.block_bytes // slot, 2))

    @property
    def slot_bytes(self) -> int:
        """Shared memory of the tiles of one step."""
        return (self.tall + self.wide) * 128


SIZES = ((2, 4, 4, 4), (2, 2, 4, 8), (2, 2, 2, 4), (2, 4, 2, 4), (2, 2, 2, 8))


class TensorProduct(CudaRule):
    """Products of matrices in halves and tf32 on sm_80 and later; see the module."""

    name: ClassVar[str] = "mma-product"

    def write(
        self, func: tirx.PrimFunc, constants: frozenset[int], machine: CudaMachine, decisions: Decisions
    ) -> Scheduled | None:
        if not machine.has_mma:
            return None
        code = CudaKernel()
        problem = Problem.of(func, code, constants if machine.tf32 else frozenset())
        if problem is None or not _takes(machine, problem.dtype) or problem.columns % 2 or not problem.aligned:
            return None
        if problem.dtype == "float32" and not problem.right.depth_inner:
            return None  # matrices of words are not turned on their way from shared memory
        rows, columns, depth = problem.rows, problem.columns, problem.depth
        some = constant(rows) or TYPICAL_ROWS
        warps = choose(
            decisions, machine, some, columns, constant(problem.batches) or 16, -(-depth // _units(problem.dtype))
        )
        left, right = code.view(problem.left.buffer), code.view(problem.right.buffer)
        inner = "false" if problem.right.depth_inner else "true"

        def multiply(tile: Tile) -> None:
            offsets = [
                tile.batch * index(product([rows, depth])) if problem.left.batched else index(0),
                tile.batch * index(depth * columns) if problem.right.batched else index(0),
            ]
            at = [tirx.address_of(view.load(offset)) for view, offset in zip((left, right), offsets, strict=True)]
            tile.call("multiply_matrices", f"{inner}, float", [*at, *tile.place, *map(int32, (rows, columns, depth))])

        def place(row: Expr, batch: Expr) -> list[Expr]:
            return [*(unravel(batch, problem.batch) if problem.batch else []), row]

        writer = Writer(code, machine, _ELEMENTS[problem.dtype], warps, rows, columns, problem.batches)
        writer.write(multiply, place, lambda at, column, value: problem.view.store([*at, column], value))
        made = tirx.PrimFunc(list(problem.params), code.stmt(), func.ret_type, func.attrs)
        return Scheduled(made, problem.packings)


class TensorConv(CudaRule):
    """Dense convolutions over channels-last data in halves and tf32 on sm_80 and later; see the module."""

    name: ClassVar[str] = "mma-conv"

    def write(
        self, func: tirx.PrimFunc, constants: frozenset[int], machine: CudaMachine, decisions: Decisions
    ) -> Scheduled | None:
        if not machine.has_mma:
            return None
        fused = Fused.of(func)
        conv = None if fused is None else Convolution.of(fused, converted=True)
        if fused is None or conv is None or conv.groups != 1 or conv.source is None:
            return None
        dtype = str(conv.source.dtype)
        if not _takes(machine, dtype) or str(conv.weight.source.dtype) != dtype or conv.outputs % 2:
            return None
        if dtype == "float32" and conv.inputs % 4:
            return None
        code = CudaKernel()
        tall, wide = conv.height, conv.width
        pixels = [conv.batch, tall.out, wide.out]
        rows = product(pixels)
        taps = tall.kernel * wide.kernel
        units, whole = _units(dtype), conv.inputs % (8 if dtype != "float32" else 4) == 0
        steps = taps * -(-conv.inputs // units) if whole else -(-taps * conv.inputs // units)
        warps = choose(decisions, machine, constant(rows) or TYPICAL_ROWS, conv.outputs, 1, steps)
        data, filters = code.view(conv.source), code.view(conv.weight.source)

        def multiply(tile: Tile) -> None:
            numbers = [conv.inputs, *(n for pair in window(conv) for n in pair)]
            sizes = [rows, conv.outputs, tall.size, wide.size, tall.out, wide.out]
            at = [tirx.address_of(view.load(0)) for view in (data, filters)]
            kinds = f"{', '.join(map(str, numbers))}, float"
            tile.call("multiply_windows", kinds, [*at, *tile.place, *map(int32, sizes)])

        def place(row: Expr, batch: Expr) -> list[Expr]:
            return unravel(row, [index(extent) for extent in pixels])

        writer = Writer(code, machine, _ELEMENTS[dtype], warps, rows, conv.outputs, 1)
        writer.write(multiply, place, lambda at, column, value: fused.store([*at, column], value))
        return Scheduled(tirx.PrimFunc(func.params, code.stmt(), func.ret_type, func.attrs))


def _takes(machine: CudaMachine, dtype: str) -> bool:
    return dtype in _ELEMENTS and (dtype != "float32" or machine.tf32)


def _units(dtype: str) -> int:
    """Elements in the depth of one step."""
    return _STEP_BYTES // (4 if dtype == "float32" else 2)


def window(conv: Convolution) -> list[tuple[int, int]]:
    """(height, width) of the kernel, its strides, its dilations, the padding before."""
    tall, wide = conv.height, conv.width
    return [
        (tall.kernel, wide.kernel),
        (tall.stride, wide.stride),
        (tall.dilation, wide.dilation),
        (tall.before, wide.before),
    ]


def choose(
    decisions: Decisions,
    machine: CudaMachine,
    rows: int,
    columns: int,
    batches: int,
    steps: int,
    sizes: Sequence[tuple[int, ...]] = SIZES,
) -> Warps:
    """The tile by the tuner, or by estimated cycles."""

    def cycles(size: tuple[int, ...]) -> float:
        warps = Warps(*size)
        tiles = -(-rows // warps.tall) * -(-columns // warps.wide) * batches
        together = max(1, machine.block_bytes // (warps.stages(machine) * warps.slot_bytes))
        waves = -(-tiles // (machine.units * together))
        multiply = warps.tall * warps.wide / 16 * min(together, tiles / machine.units)
        fetch = (warps.tall + warps.wide) * 128 / 32
        return waves * (steps * (max(multiply, fetch) + 100) + 2000)

    return Warps(*decisions.pick("warps", sorted(sizes, key=cycles)))


@dataclass(frozen=True)
class Tile:
    """What a block computes: calls of device functions that leave its sums in registers."""

    code: CudaKernel
    common: str
    sums: Expr
    shared: Expr
    place: list[Expr]
    batch: Expr
    files: tuple[str, ...]

    def call(self, name: str, kinds: str, arguments: list[Expr]) -> None:
        source = device_source(*self.files)
        self.code.call(f"dscc::{name}<{self.common}, {kinds}>", self.sums, self.shared, *arguments, source=source)


class Writer:
    """A block for every tile of the result.

    Attributes:
        dtype: of the sums.
        behind: groups of 8 columns that each thread has sums of behind those of the tile's columns.
        files: of dscc/targets/cuda/device, with what `multiply` calls.
    """

    dtype: ClassVar[str] = "float32"
    behind: int = 0
    files: ClassVar[tuple[str, ...]] = FILES

    def __init__(
        self,
        code: CudaKernel,
        machine: CudaMachine,
        element: str,
        warps: Warps,
        rows: Index,
        columns: int,
        batches: Index,
    ):
        self.code, self.warps, self.rows, self.columns, self.batches = code, warps, rows, columns, batches
        self.stages = warps.stages(machine)
        self.common = f"{element}, {warps.rows}, {warps.columns}, {warps.down}, {warps.across}, {self.stages}"

    def write(self, multiply: Callable[[Tile], None], place: Callable[[Expr, Expr], list[Expr]], store: Store) -> None:
        """Write the launch: `multiply` the tile, then `store` every value at the `place` of its row."""
        code, warps = self.code, self.warps
        grid = [ceildiv(self.rows, warps.tall), ceildiv(self.columns, warps.wide), self.batches]
        launch = code.blocks(grid, warps.threads)
        with code.when(nonempty(self.rows, self.batches)), launch as ((down, across, batch), thread):
            shared = code.block_bytes("ring", self.stages * warps.slot_bytes)
            sums = code.registers("sums", warps.rows * (warps.columns + self.behind) * 4, self.dtype)
            pointers = [tirx.address_of(tirx.BufferLoad(buffer, [0])) for buffer in (sums, shared)]
            block = [int32(down), int32(across)]
            multiply(Tile(code, self.common, pointers[0], pointers[1], block, index(batch), self.files))
            lane, warp = thread % 32, tirx.truncdiv(thread, int32(32))
            top = index(down) * warps.tall + index(tirx.truncdiv(warp, int32(warps.across)) * (warps.rows * 16))
            top = top + index(tirx.truncdiv(lane, int32(4)))
            edge = index(across) * warps.wide + index(warp % warps.across * (warps.columns * 8) + lane % 4 * 2)
            size, text = int32(staging_bytes(warps.columns)), device_source(*self.files)
            staging = code.value("dscc::warp_part", "uint32", pointers[1], size, source=text)
            self.prepare(edge)
            for i in range(warps.rows):
                rows = [top + (i * 16 + half * 8) for half in range(2)]
                held = Held(
                    sums=sums,
                    places=[
                        [(i * warps.columns + j) * 4 + half * 2 for half in range(2)] for j in range(warps.columns)
                    ],
                    rows=[(row < index(self.rows), place(row, index(batch))) for row in rows],
                    edge=edge,
                    staging=staging,
                )
                self.settle(held, i)
                write_store(code, held, store, self.columns, self.columns % warps.wide == 0)

    def prepare(self, edge: Expr) -> None:
        """What is computed once for all rows of a thread, whose first column is `edge`."""

    def settle(self, held: Held, number: int) -> None:
        """What becomes of the sums of rows `number` of a warp before the epilogue."""
