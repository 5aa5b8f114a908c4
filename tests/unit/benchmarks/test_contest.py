"""Ratios, errors and tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import report
from benchmarks.acceptance import Check, render
from benchmarks.contest import by_engine, complaint, largest_error, ratio
from benchmarks.race import thread_counts
from dscc.bench import Contestant, Result


def result(engine: str, turns: list[tuple[float, float]], error: str = "") -> Result:
    return Result(Contestant(engine, Path("m"), 1), turns=dict(enumerate(turns)), error=error)


def test_ratio_is_taken_turn_by_turn() -> None:
    # The machine became three times slower half way: every turn still says 0.5.
    ours = result("dscc", [(1.0, 2.0), (1.0, 2.0), (3.0, 6.0)])
    base = result("onnxruntime", [(2.0, 1.0), (2.0, 1.0), (6.0, 3.0)])
    assert ratio(ours, base, 0).median == 0.5
    assert (ratio(ours, base, 1).low, ratio(ours, base, 1).high) == (2.0, 2.0)


def test_failed_engines_are_left_out() -> None:
    assert by_engine([result("a", []), result("b", [], "no such operator")], 1).keys() == {"a"}


def test_largest_error_is_that_of_the_worst_output() -> None:
    want = [np.array([100.0, 1.0]), np.array([1.0, 0.5])]
    got = [np.array([101.0, 1.0]), np.array([1.0, 0.4])]
    assert largest_error(got, want) == pytest.approx(0.1)
    assert largest_error(got[:1], want) == float("inf")
    assert largest_error([got[0][:1], got[1]], want) == float("inf")


def test_thread_counts() -> None:
    counts = thread_counts("1,1,2")
    assert counts == [1, 2]
    assert thread_counts("all")[0] >= 1


def test_table_aligns_figures_to_the_right() -> None:
    text = report.table(["model", "ms"], [["a", "1.5"], ["longer", "12.25"]])
    assert text.splitlines() == ["| model  |    ms |", "|--------|------:|", "| a      |   1.5 |", "| longer | 12.25 |"]


def test_render_counts_only_what_is_judged() -> None:
    checks = [Check("m", "p", "1", "2", True), Check("m", "q", "3", "2", False), Check("m", "r", "3", "-", None)]
    assert render(checks).endswith("1 of 2 reached.")


def test_complaint_is_the_error_not_what_follows_it() -> None:
    said = "Traceback (most recent call last):\n  File\ntvm.error.InternalError: no such thing\nwhile running it\n\n"
    assert complaint(said) == "tvm.error.InternalError: no such thing"
    assert complaint("dscc: error: model file 'm' does not exist\n") == "dscc: error: model file 'm' does not exist"
    assert complaint("Segmentation fault\n") == "Segmentation fault"
    assert complaint("") == "nothing was said"
