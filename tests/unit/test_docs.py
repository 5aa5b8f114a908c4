"""Pages that are made from the code say what the code says, and every built-in pass has its one stem everywhere."""

import dataclasses
import inspect
import re
from pathlib import Path

import pytest

from docs import generate
from dscc.passes.builtin import PASSES

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", sorted(generate.PAGES))
def test_pages_are_what_the_code_says(name: str) -> None:
    written = (generate.FOLDER / name).read_text(encoding="utf-8")
    assert written == generate.PAGES[name]() + "\n", "run `make docs` and commit what it writes"


def test_no_page_is_left_behind() -> None:
    assert {path.name for path in generate.FOLDER.iterdir()} == set(generate.PAGES)


@pytest.mark.parametrize("cls", PASSES, ids=lambda cls: cls.name)
def test_a_pass_has_one_stem(cls: type) -> None:
    """`fuse_silu.py`, `FuseSilu`, `fuse-silu`, `tests/lit/passes/fuse_silu.py`, and a heading in the docs."""
    stem = cls.name.replace("-", "_")
    assert Path(inspect.getfile(cls)).stem == stem
    assert re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower() == stem
    assert list((ROOT / "tests" / "lit" / "passes").rglob(f"{stem}*.py")), f"no lit file for {cls.name}"
    assert f"\n## {cls.name}\n" in (generate.FOLDER / "passes.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("cls", PASSES, ids=lambda cls: cls.name)
def test_a_pass_is_a_frozen_dataclass(cls: type) -> None:
    assert dataclasses.is_dataclass(cls)
    assert cls.__dataclass_params__.frozen  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "page", sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").rglob("*.md")), ids=lambda p: p.name
)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        assert "://" in link or (page.parent / link).exists(), f"{page.name} links to '{link}', which is not there"
