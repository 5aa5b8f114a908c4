"""Which attention AMD's matrix instructions compute, and in tiles of which sizes; see dscc.targets.rocm.attend."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dscc.schedule.heads import Heads
from dscc.targets.rocm.machine import RocmMachine
from dscc.targets.rocm.matrix import SIDE, Fragments

WAVES = 4
_PAD_BYTES = 16  # between lines in shared memory, so that lanes of a wavefront are in different banks
_COPY_BYTES = 16  # most that a thread reads at once
_SPARE = 64  # registers of a lane left for what clang reads ahead and for addresses


@dataclass(frozen=True)
class Tile:
    """A block's part: `tall` times 16 queries for each wavefront, `keys` keys at a time."""

    tall: int
    keys: int


TILES = (Tile(2, 64), Tile(2, 32), Tile(1, 64), Tile(1, 32), Tile(1, 16))
"""From the largest to the smallest."""


class Shape:
    """The numbers of a kernel."""

    def __init__(self, heads: Heads, held: Fragments, tile: Tile):
        self.heads, self.held, self.tile = heads, held, tile
        self.bytes = 4 if heads.dtype == "float32" else 2
        self.parts = SIDE // held.depth  # instructions for 16 along the depth
        self.run = held.run * self.parts  # elements of 16 that a lane has
        self.chunks, self.wide = -(-heads.size // SIDE), -(-heads.value_size // SIDE)
        self.groups = tile.keys // SIDE
        self.threads = WAVES * held.lanes
        self.rows = WAVES * SIDE * tile.tall
        pad = _PAD_BYTES // self.bytes
        self.key_pitch, self.value_pitch = self.chunks * SIDE + pad, tile.keys + pad
        self.key_lanes, self.value_lanes = (math.gcd(n, _COPY_BYTES // self.bytes) for n in self.sizes)

    @property
    def sizes(self) -> tuple[int, int]:
        return self.heads.size, self.heads.value_size

    @property
    def key_units(self) -> int:
        """Reads of one block of keys, by all threads."""
        return self.tile.keys * self.heads.size // self.key_lanes

    @property
    def value_units(self) -> int:
        return self.tile.keys * self.heads.value_size // self.value_lanes

    def fits(self, machine: RocmMachine) -> bool:
        shared = self.bytes * (self.tile.keys * self.key_pitch + self.wide * SIDE * self.value_pitch)
        return shared <= machine.shared_bytes and self._registers() <= machine.registers - _SPARE

    def _registers(self) -> int:
        """About as many registers as a lane needs."""
        tall, sums, word = self.tile.tall, self.held.sums, -(-self.run * self.bytes // 4)
        kept = tall * (self.chunks * word + (self.wide + self.groups) * sums + word)
        underway = 0
        for units, lanes in ((self.key_units, self.key_lanes), (self.value_units, self.value_lanes)):
            underway += -(-units // self.threads) * -(-lanes * self.bytes // 4)
        # Clang reads the biases of all scores before it needs the first one.
        biases = 2 * tall * self.groups * sums if self.heads.biased else 0
        return kept + underway + biases + 2 * word
