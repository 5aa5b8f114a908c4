"""Which register tile a contraction gets: rows times vectors of accumulators that stay in registers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from tvm import tirx
from tvm.ir import Expr

from dscc.schedule.base import Packing
from dscc.schedule.code import Index, constant, index
from dscc.schedule.decisions import Decisions
from dscc.schedule.machine import Machine

_TYPICAL_ROWS = 200  # stands for a symbolic extent when tiles are compared
_MOST_VECTORS = 6
_LATENCY = 4.0  # cycles of a multiply-add, before the next one to the same accumulator
_LOAD = 0.5  # cycles of a load
_CANDIDATES = 24  # tiles that the tuner may choose from
_SHORT = 0.52  # cycles of a multiply-add of at most eight lanes: two of them go at once


@dataclass(frozen=True)
class Tile:
    """`rows` x `vectors` accumulators of `lanes` elements each."""

    rows: int
    vectors: int
    lanes: int

    @property
    def width(self) -> int:
        """Columns that a tile covers."""
        return self.vectors * self.lanes

    @property
    def cycles(self) -> float:
        """Of a step of the sum: of its multiply-adds, or its loads where those take longer, or the latency of one."""
        each = _SHORT if self.lanes < 16 else 1.0
        loads = self.rows + self.vectors
        return max(self.rows * self.vectors * each, _LOAD * loads, _LATENCY) + 0.05 * loads

    def with_rows(self, rows: int) -> Tile:
        """The same columns, other rows."""
        return Tile(rows, self.vectors, self.lanes)


@dataclass(frozen=True)
class Columns:
    """How the columns of the result are cut into panels of `tile.width`.

    No mask is needed: where the last vectors of the only panel, or the last of several panels, would hang over the
    edge, they are moved back and repeat columns of their neighbours. Columns that fill no vector at all are padded,
    and stored one by one.
    """

    count: int
    tile: Tile

    @property
    def panels(self) -> int:
        """Number of panels."""
        return -(-self.count // self.tile.width)

    @property
    def padded(self) -> bool:
        """Whether a vector is longer than there are columns."""
        return self.count < self.tile.lanes

    @property
    def alone(self) -> Columns:
        """For a packing: it is the same for tiles of any number of rows, as those of the levels of a detector."""
        return Columns(self.count, self.tile.with_rows(1))

    def table(self) -> np.ndarray:
        """The column at every position of every panel, -1 for padding: (panels, width)."""
        tile = self.tile
        lanes = np.arange(tile.lanes)
        if self.padded:
            return np.where(lanes < self.count, lanes, -1)[None, :]
        if self.panels == 1:
            starts = np.minimum(np.arange(tile.vectors) * tile.lanes, self.count - tile.lanes)
            return (starts[:, None] + lanes).reshape(1, tile.width)
        bases = np.minimum(np.arange(self.panels) * tile.width, self.count - tile.width)
        return bases[:, None] + np.arange(tile.width)

    def cut(self, matrix: np.ndarray) -> np.ndarray:
        """(.., column) as (.., panel, column of the panel), with zeros as padding."""
        table = self.table()
        return np.where(table >= 0, matrix[..., table], np.zeros((), matrix.dtype))


@dataclass(frozen=True)
class PanelPacking(Packing):
    """Weights as [panel][depth][column]: `axes` brings them into the order (depth..., column) first.

    Attributes:
        columns: how the columns of one group are cut into panels.
        axes: the order of the weight's axes that puts the column last.
        groups: the column's axis is made of this many groups, which follow one another in the panels.
    """

    columns: Columns
    axes: tuple[int, ...]
    groups: int = 1

    def pack(self, weight: np.ndarray) -> np.ndarray:
        cut = self.columns.cut(weight.transpose(self.axes).reshape(-1, self.groups, self.columns.count))
        depth, groups, panels, width = cut.shape
        packed = cut.transpose(1, 2, 0, 3).reshape(groups * panels, depth, width)
        return np.ascontiguousarray(packed)


def start_of(number: Expr, size: int, extent: Index) -> Expr:
    """Where piece `number` of `size` starts: the last one is moved back so that it ends with the extent."""
    known = constant(extent)
    if known is not None and known % size == 0:
        return number * size
    return tirx.min(number * size, index(extent) - size)


def panel_base(panel: Expr, columns: Columns) -> Expr:
    """The first column of a panel."""
    return index(0) if columns.panels == 1 else start_of(panel, columns.tile.width, columns.count)


def vector_base(number: Expr, columns: Columns) -> Expr:
    """Where vector `number` of a panel starts, in columns of the result from the panel's first one on."""
    lanes = columns.tile.lanes
    if columns.panels > 1 or columns.padded or columns.count >= columns.tile.width:
        return number * lanes
    return tirx.min(number * lanes, index(columns.count - lanes))


def choose(
    decisions: Decisions,
    machine: Machine,
    columns: int,
    rows: int | None,
    row_bytes: int = 0,
    depth: int = 1,
    spare: int = 0,
) -> Tile:
    """The tile that covers `rows` x `columns` in the least time; `rows` is None if it is not known.

    A step of the reduction takes as long as its multiply-adds, or its loads where those take longer, or the latency of
    one multiply-add. Rows that lie `row_bytes` apart, a multiple of what one way of the L1 cache holds, compete for
    the same few lines: then a tile has fewer rows than there are ways. A panel of `depth` rows should leave room in the
    L2 cache. `spare` registers are left over: LLVM spills sooner where every row has a pointer of its own.
    """
    limit = _rows_without_conflict(machine, row_bytes)
    costs: dict[Tile, float] = {}
    for across, lanes in _panels(machine, columns):
        panels = -(-columns // (across * lanes))
        if across > 1 and 4 * depth * across * lanes > machine.l2_bytes * 5 // 8:
            continue
        broadcasts = 0 if across == 1 and machine.embedded_broadcast else 1
        most = min((machine.vector_registers - spare - across - broadcasts) // across, limit)
        for down in range(1, most + 1 if rows is None else min(most, rows) + 1):
            tile = Tile(down, across, lanes)
            tiles_down = -(-rows // down) if rows is not None else _TYPICAL_ROWS / down + 0.5
            costs[tile] = tile.cycles * tiles_down * panels
    ranked = sorted(costs, key=costs.__getitem__)  # one row of one vector always fits
    return Tile(*decisions.pick("tile", [(tile.rows, tile.vectors, tile.lanes) for tile in ranked[:_CANDIDATES]]))


def _panels(machine: Machine, columns: int) -> Iterator[tuple[int, int]]:
    """The (vectors, lanes) that a panel may be made of."""
    lanes = machine.lanes()
    while lanes > 4 and lanes > columns:
        lanes //= 2
    while lanes >= 4:
        yield from ((count, lanes) for count in range(1, min(_MOST_VECTORS, -(-columns // lanes)) + 1))
        lanes //= 2


def _rows_without_conflict(machine: Machine, row_bytes: int) -> int:
    ways = 8
    way_bytes = machine.l1_bytes // ways
    for share in (1, 2):
        if row_bytes and row_bytes * share % way_bytes == 0:
            return ways * share - share
    return machine.vector_registers
