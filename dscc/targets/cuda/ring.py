"""Write a product for Hopper: the bulk copy engine fills a ring of tiles, warp groups multiply them (wgmma).

    one block for every multiprocessor, which takes tile after tile of the result:
        warp group 0      fills the ring for all its tiles, ahead of the others
        warp groups 1..   64 rows each: sums in registers over the ring's slots, then the epilogue from registers

Rows, also of a symbolic number, need no mask but at the store: what lies outside of a factor reads as zero. Clusters of
two blocks, each of which fetches half of the columns' tile for both, were slower (H200: 549 against 671 TFLOP/s for
4096 x 4096 x 4096 halves): not all clusters of a persistent grid fit at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr

from dscc.schedule.code import Index, ceildiv, index
from dscc.targets.cuda.kernel import CudaKernel, device_source, int32
from dscc.targets.cuda.machine import CudaMachine
from dscc.targets.cuda.store import Held, staging_bytes, write_store
from dscc.targets.cuda.wgmma import instruction

_SPARE_BYTES = 1280  # of shared memory: alignment and barriers
UNITS = {"float16": 64, "bfloat16": 64, "float32": 32}  # elements in the 128 bytes of depth that a slot holds


@dataclass(frozen=True)
class Tile:
    """A block's tile of the result: `groups` warp groups of 64 rows each, `columns` columns."""

    groups: int
    columns: int

    @property
    def rows(self) -> int:
        """Rows of the tile."""
        return 64 * self.groups

    @property
    def slot_bytes(self) -> int:
        """Shared memory of one slot of the ring."""
        return (self.rows + self.columns) * 128

    def stages(self, machine: CudaMachine) -> int:
        """Slots of the ring."""
        return min(8, (machine.block_bytes - _SPARE_BYTES - self.staging_bytes) // self.slot_bytes)

    @property
    def staging_bytes(self) -> int:
        """Shared memory through which the results of all warps pass."""
        return 4 * self.groups * staging_bytes(self.columns // 8)


class Left(ABC):
    """The left factor: how its tiles are fetched, and where the result's rows go. `down` counts its tiles."""

    down: Expr

    @abstractmethod
    def map(self) -> tirx.Var:
        """Its tensor map; host code."""

    @abstractmethod
    def source(self, ring: str) -> tuple[str, list[Index]]:
        """The C++ type in hopper.cuh that copies a tile, and what it is made with."""

    @abstractmethod
    def place(self, tile: Expr, within: Expr, batch: Expr) -> tuple[Expr, list[Expr]]:
        """Whether row `within` of tile `tile` is one of the result, and its coordinates but for the column."""

    @abstractmethod
    def store(self, place: Sequence[Expr], column: Expr, value: Expr) -> tirx.Stmt:
        """Store a value there, with the epilogue."""


@dataclass(frozen=True)
class Right:
    """The right factor.

    Attributes:
        map: its tensor map.
        columns_inner: it is stored [depth][column], not [column][depth].
        columns: how many there are.
    """

    map: tirx.Var
    columns_inner: bool
    columns: int


def right_box(tile: Tile, dtype: str, columns_inner: bool) -> list[int]:
    """What one copy of the right factor takes, along its contiguous axis and the other."""
    units = UNITS[dtype]
    return [units, units] if columns_inner else [units, tile.columns]


def write_ring(
    code: CudaKernel,
    machine: CudaMachine,
    dtype: str,
    tile: Tile,
    left: Left,
    right: Right,
    batches: Index,
    steps: int,
) -> None:
    """Write the launch.

    Args:
        dtype: of both factors.
        batches: how many products there are.
        steps: how many times 128 bytes of depth.
    """
    _Writer(code, machine, dtype, tile, left, right, batches, steps).write()


class _Writer:
    def __init__(
        self,
        code: CudaKernel,
        machine: CudaMachine,
        dtype: str,
        tile: Tile,
        left: Left,
        right: Right,
        batches: Index,
        steps: int,
    ):
        self.code, self.machine, self.tile, self.left, self.right = code, machine, tile, left, right
        self.batches, self.steps, self.units = batches, steps, UNITS[dtype]
        self.stages = tile.stages(machine)
        self.staging = self.stages * tile.slot_bytes + 256  # after the ring and its barriers
        self.inner = "true" if right.columns_inner else "false"
        self.multiply, source = instruction(dtype, tile.columns, right.columns_inner)
        self.multiply_source = source
        self.ring = f"dscc::Ring<{tile.columns}, {self.stages}, {tile.groups}>"

    def write(self) -> None:
        code, tile = self.code, self.tile
        across = ceildiv(self.right.columns, tile.columns)
        left_map = self.left.map()
        tiles = code.bind("tiles", index(self.left.down) * index(across) * index(self.batches))
        blocks = code.bind("blocks", tirx.min(tiles, index(self.machine.units)))
        counts = [int32(self.left.down), int32(across), int32(self.batches)]
        with code.blocks([blocks], 128 * (tile.groups + 1)) as ((block,), thread):
            shared = code.block_bytes("ring", self.staging + tile.staging_bytes + 1024)
            ring = _address(shared, 0)
            self._call(f"dscc::ring_open<{self.ring}, {self.stages}, {tile.groups}>", ring)
            with code.choose(thread < 128) as branches:
                with branches.side(0):
                    if tile.groups > 1:
                        self._call("dscc::give_registers<40>")
                    with code.when(thread == 0):
                        self._fill(ring, left_map, counts)
                with branches.side(1):
                    if tile.groups > 1:
                        self._call("dscc::take_registers<232>")
                    self._multiply(ring, index(block), blocks, tiles, thread, counts)

    def _call(self, name: str, *arguments: Expr, more: str = "") -> None:
        # TVM wants functions of one name to have one source, in all kernels of a module.
        self.code.call(name, *arguments, source=device_source("hopper.cuh") + more)

    def _fill(self, ring: Expr, left_map: tirx.Var, counts: Sequence[Expr]) -> None:
        tile = self.tile
        left, places = self.left.source(self.ring)
        sizes = f"{tile.columns}, {self.stages}, {self.inner}, {self.units}"
        maps = [tirx.address_of(left_map), tirx.address_of(self.right.map)]
        numbers = [*counts, int32(self.steps), *(int32(place) for place in places)]
        self._call(f"dscc::fill_ring<{self.ring}, {left}, {sizes}>", ring, *maps, *numbers)

    def _multiply(
        self, ring: Expr, first: Expr, blocks: Expr, tiles: Expr, thread: Expr, counts: Sequence[Expr]
    ) -> None:
        code, tile = self.code, self.tile
        sums = code.registers("sums", tile.columns // 2)
        at = code.registers("at", 2, "int32")
        place = code.registers("place", 3, "int32")
        for i in range(2):
            code.add(tirx.BufferStore(at, int32(0), [i]))
        with code.loop(ceildiv(tiles - first, blocks), "turn") as turn:
            number = int32(first + turn * blocks)
            where = [_address(place, i) for i in range(3)]
            self._call("dscc::locate", number, counts[0], counts[1], *where)
            kinds = f"{self.ring}, {self.multiply}, {tile.columns}, {self.stages}, {self.inner}"
            arguments = [_address(sums, 0), ring, _address(at, 0), int32(self.steps)]
            self._call(f"dscc::multiply_ring<{kinds}>", *arguments, more=self.multiply_source)
            self._store(sums, [index(tirx.BufferLoad(place, [i])) for i in range(3)], ring, thread)

    def _store(self, sums: tirx.Var, place: Sequence[Expr], ring: Expr, thread: Expr) -> None:
        """The epilogue of the warp's 16 rows of the tile."""
        code, tile = self.code, self.tile
        down, across, batch = (code.bind("place", each) for each in place)
        inside = code.bind("inside", index(thread - 128))
        top = code.bind("top", inside // 32 * 16 + inside % 32 // 4)
        edge = code.bind("edge", across * tile.columns + inside % 4 * 2)
        groups = tile.columns // 8
        size, text = int32(staging_bytes(groups)), device_source("hopper.cuh")
        staging = code.value("dscc::staging", "uint32", ring, int32(self.staging), size, source=text)
        held = Held(
            sums=sums,
            places=[[group * 4, group * 4 + 2] for group in range(groups)],
            rows=[self.left.place(down, top + half * 8, batch) for half in range(2)],
            edge=edge,
            staging=staging,
        )
        write_store(code, held, self.left.store, self.right.columns, self.right.columns % tile.columns == 0)


def _address(buffer: tirx.Var, at: int) -> Expr:
    return tirx.address_of(tirx.BufferLoad(buffer, [at]))
