"""Expert weights in the order in which the kernel reads them: [expert][panel][depth][part][unit].

A panel has the same units of the gate and of what it opens, so that the activation finds both in registers. What is
stored several to a byte stays so: neighbours along the depth share a word.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dscc.schedule.base import Packing
from dscc.schedule.codes.layout import in_bytes
from dscc.schedule.machine import Machine

_MOST_ROWS = 12


@dataclass(frozen=True)
class Panels:
    """How the columns of a product are cut.

    Attributes:
        parts, units: the columns are `parts` times `units`.
        vectors, lanes: of every part in one panel; the last panel is padded.
        rows: of a register tile.
    """

    parts: int
    units: int
    vectors: int
    lanes: int
    rows: int

    @property
    def step(self) -> int:
        """Units in a panel."""
        return self.vectors * self.lanes

    @property
    def width(self) -> int:
        """Columns of a panel."""
        return self.parts * self.step

    @property
    def count(self) -> int:
        return -(-self.units // self.step)

    @property
    def padded(self) -> bool:
        return self.units % self.step != 0

    @property
    def pitch(self) -> int:
        """Units with their padding."""
        return self.count * self.step

    def size(self, depth: int) -> int:
        """Elements of one expert's panels, `depth` to a column."""
        return self.count * depth * self.width


def choose(machine: Machine, parts: int, units: int, registers: int = 1) -> Panels:
    """Two vectors across, and as many rows as there are registers for their sums, the weights and a scalar.

    Args:
        registers: that a sum takes.
    """
    lanes = machine.lanes()
    while lanes > 4 and lanes > units:
        lanes //= 2
    vectors = 1 if parts == 2 or units <= lanes or -(-units // lanes) % 2 else 2
    across = parts * vectors
    rows = (machine.vector_registers - across - 2) // across // registers
    return Panels(parts, units, vectors, lanes, max(1, min(_MOST_ROWS, rows)))


@dataclass(frozen=True)
class ExpertPacking(Packing):
    """(experts, parts * units, depth) to panels of `stored` along the depth, the rest zeros, in words of `dtype`.

    Attributes:
        bits: of codes, neighbours of which are to lie in bytes that are neighbours; 0 where they stay as they are.
    """

    panels: Panels
    stored: int
    dtype: str
    bits: int = 0

    def pack(self, weight: np.ndarray) -> np.ndarray:
        panels, depth = self.panels, self.stored
        experts, per = weight.shape[0], np.dtype(self.dtype).itemsize // weight.dtype.itemsize
        if weight.dtype != self.dtype:
            filled = np.pad(weight, [(0, 0), (0, 0), (0, -weight.shape[2] % per)])
            filled = in_bytes(filled, self.bits) if self.bits else np.ascontiguousarray(filled)
            weight = filled.view(np.dtype(self.dtype).newbyteorder("<")).astype(self.dtype)
        parts = weight.reshape(experts, panels.parts, panels.units, -1)
        wider, longer = panels.pitch - panels.units, depth - weight.shape[2]
        if wider or longer:
            parts = np.pad(parts, [(0, 0), (0, 0), (0, wider), (0, longer)])
        cut = parts.reshape(experts, panels.parts, panels.count, panels.step, depth).transpose(0, 2, 4, 1, 3)
        return np.ascontiguousarray(cut).reshape(experts, panels.count, depth, panels.width)
