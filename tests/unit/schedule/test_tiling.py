"""Panels cover every column, and tiles fit the registers."""

from __future__ import annotations

import numpy as np
import pytest

from dscc.schedule.decisions import Decisions
from dscc.schedule.machine import Machine
from dscc.schedule.tiling import Columns, PanelPacking, Tile, choose

MACHINES = [Machine(), Machine(256, 16), Machine(512, 32, 32 * 1024, 1024 * 1024, True)]


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: str(machine.vector_bits))
@pytest.mark.parametrize("columns", [1, 3, 4, 5, 7, 8, 9, 13, 16, 17, 24, 40, 96, 100, 1000])
@pytest.mark.parametrize("rows", [None, 1, 7, 197])
def test_chosen_tiles_fit_and_cover(machine, columns, rows):
    tile = choose(Decisions(), machine, columns, rows)
    assert rows is None or tile.rows <= rows
    assert tile.rows * tile.vectors + tile.vectors <= machine.vector_registers
    assert tile.lanes <= machine.lanes()
    table = Columns(columns, tile).table()
    assert set(table.ravel()) - {-1} == set(range(columns))


def test_rows_that_share_a_cache_set_are_fewer_than_its_ways():
    assert choose(Decisions(), MACHINES[2], 256, None, row_bytes=4096).rows < 8


def test_packed_weights_are_the_columns_of_the_table():
    columns = Columns(20, Tile(2, 2, 8))
    weight = np.arange(2 * 3 * 20, dtype="float32").reshape(20, 3, 2)  # of a column: 3 x 2 terms
    packed = PanelPacking(columns, (1, 2, 0)).pack(weight)
    assert packed.shape == (2, 6, 16)
    matrix = weight.reshape(20, 6).T
    for panel, of_panel in enumerate(columns.table()):
        np.testing.assert_array_equal(packed[panel], matrix[:, of_panel])


def test_groups_follow_one_another():
    columns = Columns(4, Tile(2, 1, 4))
    weight = np.arange(8 * 3, dtype="float32").reshape(8, 3)
    packed = PanelPacking(columns, (1, 0), groups=2).pack(weight)
    np.testing.assert_array_equal(packed, np.stack([weight[:4].T, weight[4:].T]))
