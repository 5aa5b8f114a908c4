"""The benchmark of mixtures of experts: bytes that a run touches, and the page."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import dscc
from benchmarks import moe
from benchmarks.mixtures import FORMS, MODELS, Sizes, layer
from benchmarks.standing import Entry

SIZES = Sizes(experts=8, top=2, hidden=256, inner=512)


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the kernel does not mark pages")
@pytest.mark.parametrize("bits", [32, 16, 8, 4])
def test_one_token_reads_the_weights_of_its_experts(tmp_path: Path, bits: int) -> None:
    artifact = tmp_path / "layer.dscc"
    dscc.compile(layer(SIZES, bits), jobs=1).save(artifact)
    chosen = SIZES.top * SIZES.bytes(bits)
    # Router and rounding to pages are the rest. All experts would be four times as much.
    assert 0.95 <= moe.touched(artifact, SIZES.hidden) / chosen <= 1.1


def test_the_page_says_which_goals_were_reached() -> None:
    def entry(engine: str, wall_ms: float) -> Entry:
        turns = {str(i): (wall_ms, wall_ms) for i in range(3)}
        return Entry(engine, 1, wall_ms, (wall_ms, wall_ms), wall_ms, 3, turns, 1e-7, 0, 0.0, 0.0, 0.0)

    def row(what: str, tokens: int, times: float) -> moe.Row:
        return moe.Row(what, tokens, 1, entry("dscc", 1.0), entry("onnxruntime", times))

    rows = [row("mixtral grouped", 16, 1.4), row("mixtral grouped", 16, 1.6), row("mixtral batched", 1, 1.0)]
    shown = moe.page({"forms": rows, "dense": [row("dense", 512, 0.8)], "reading": [moe.Reading(4, 1, 1.0, 1.0, 0.5)]})
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in shown.splitlines() if line.startswith("| ")]
    found = {(line[0], line[5]): line[6:8] for line in cells if line[0].startswith("mixtral")}
    assert found["mixtral grouped", "1.40 (1.40 to 1.40)"] == ["1.5", "no"]
    assert found["mixtral grouped", "1.60 (1.60 to 1.60)"] == ["1.5", "yes"]
    assert found["mixtral batched", "1.00 (1.00 to 1.00)"] == ["-", "-"]
    assert ["1", "1.0", "0.8", "1.25 (1.25 to 1.25)", "1.2", "no"] in cells
    assert ["4", "1", "1.00", "1.000", "yes", "50%", "no"] in cells


def test_every_form_of_every_model_is_named() -> None:
    args = moe.parse([])
    assert (args.models, args.forms) == (list(MODELS), list(FORMS))
