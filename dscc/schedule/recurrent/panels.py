"""The recurrent weights in the order in which the kernel reads them: one stream, front to back, for every step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tvm import tirx

from dscc.schedule.base import Packing
from dscc.schedule.code import Code, Flat, index

_SUMS = 8  # multiply-adds in flight: latency times throughput


@dataclass(frozen=True)
class Panels:
    """The gates of one phase, cut into panels of some hidden units: [panel][k][gate][unit].

    A panel has the same units of all its gates, so that what they make of a unit is at hand when the product is. The
    last panel is padded; what is computed there is not stored.

    Attributes:
        gates: as they are numbered in R.
        hidden: number of hidden units, which is also the length of the sums.
        vectors, lanes: a panel has `vectors` x `lanes` units of every gate.
    """

    gates: tuple[int, ...]
    hidden: int
    vectors: int
    lanes: int

    @property
    def units(self) -> int:
        return self.vectors * self.lanes

    @property
    def width(self) -> int:
        """Elements of a panel for one k."""
        return len(self.gates) * self.units

    @property
    def count(self) -> int:
        return -(-self.hidden // self.units)

    @property
    def size(self) -> int:
        """Elements of all panels."""
        return self.count * self.hidden * self.width

    def pack(self, weight: np.ndarray) -> np.ndarray:
        """(directions, gates, units, k) -> (directions, size)."""
        chosen = weight[:, list(self.gates)]
        padded = np.pad(chosen, [(0, 0), (0, 0), (0, self.count * self.units - self.hidden), (0, 0)])
        cut = padded.reshape(len(weight), len(self.gates), self.count, self.units, self.hidden)
        return cut.transpose(0, 2, 4, 1, 3).reshape(len(weight), self.size)


@dataclass(frozen=True)
class RecurrentPacking(Packing):
    """R (directions, gates * hidden, hidden) as the panels of all phases, direction by direction, in one dimension."""

    phases: tuple[Panels, ...]

    def pack(self, weight: np.ndarray) -> np.ndarray:
        hidden = weight.shape[2]
        split = weight.reshape(weight.shape[0], -1, hidden, hidden)
        return np.ascontiguousarray(np.concatenate([p.pack(split) for p in self.phases], axis=1).reshape(-1))


def choose(gates: tuple[int, ...], hidden: int, lanes: int) -> Panels:
    """Panels with enough sums at once to hide the latency of a multiply-add, and with little padding."""
    while lanes > 4 and lanes // 2 >= hidden:
        lanes //= 2
    vectors = -(-hidden // lanes)

    def cost(count: int) -> float:
        """Of a row: padding costs loads, and fewer than eight sums wait for each other."""
        return -(-vectors // count) * count * max(1.0, (_SUMS / (len(gates) * count)) ** 0.5)

    most = max(1, 2 * _SUMS // len(gates) // 2)
    return Panels(gates, hidden, min(range(1, most + 1), key=lambda n: (cost(n), n)), lanes)


def write_panels(code: Code, directions: int, gates: int, panels: Sequence[Panels], source: Flat, target: Flat) -> None:
    """Copy R (directions, gates * hidden, hidden) to panels when the model runs; padding repeats the last unit."""
    size = sum(p.size for p in panels)
    hidden = panels[0].hidden
    with code.loop(directions, "direction") as direction:
        start = direction * size
        for p in panels:
            with code.loop(p.count, "panel") as panel, code.loop(hidden, "k") as k:
                for n, gate in enumerate(p.gates):
                    with code.loop(p.units, "u") as u:
                        unit = tirx.min(panel * p.units + u, index(hidden - 1))
                        value = source.load(((direction * gates + gate) * hidden + unit) * hidden + k)
                        target.store(code, start + (panel * hidden + k) * p.width + n * p.units + u, value)
            start = start + p.size
