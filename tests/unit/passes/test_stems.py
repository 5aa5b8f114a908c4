"""One stem everywhere: file, class, name of the pass and lit file."""

from __future__ import annotations

from pathlib import Path

import pytest

from dscc import pipeline
from dscc.passes.base import Pass
from dscc.passes.builtin import PASSES

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("cls", PASSES, ids=lambda cls: cls.name)
def test_one_stem(cls: type[Pass]) -> None:
    stem = cls.name.replace("-", "_")
    assert cls.__module__.rsplit(".", 1)[-1] == stem
    assert cls.__name__ == "".join(word.capitalize() for word in cls.name.split("-"))
    assert cls.stage in pipeline.STAGES
    if cls.stage in ("graph", "layout"):
        assert list((ROOT / "tests" / "lit" / "passes").rglob(f"{stem}.py"))


@pytest.mark.parametrize("cls", PASSES, ids=lambda cls: cls.name)
def test_the_docstring_shows_before_and_after(cls: type[Pass]) -> None:
    module = __import__(cls.__module__, fromlist=["__doc__"])
    assert "->" in (module.__doc__ or "")


def test_every_pass_is_in_a_preset_or_in_the_lowering() -> None:
    in_presets = {name for preset in pipeline.PRESETS for name in preset}
    asked_for = {"moe-partition"}  # nobody knows but the user how many devices there are
    assert {cls.name for cls in PASSES if cls.stage in ("graph", "layout")} - asked_for <= in_presets
