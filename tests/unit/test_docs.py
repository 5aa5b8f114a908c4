"""Pages that are made from the code say what the code says, and every built-in pass has its one stem everywhere."""

import dataclasses
import inspect
import re
from functools import cache
from pathlib import Path

import onnx
import pytest

import dscc
from benchmarks import onnx_cases
from docs import generate, operators
from dscc.errors import FrontendError
from dscc.frontends.onnx.cut import FallbackWarning
from dscc.passes.builtin import PASSES

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", sorted(generate.PAGES))
def test_pages_are_what_the_code_says(name: str) -> None:
    written = (generate.FOLDER / name).read_text(encoding="utf-8")
    if name == "onnx-operators.md" and f"onnx {onnx.__version__}," not in written:
        pytest.skip(f"written for another version of onnx than {onnx.__version__}, which has other operators")
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


@cache
def _examples() -> dict[tuple[str, str], onnx.ModelProto]:
    """(domain, operator) to a case of ONNX's test suite that is nothing but a node of it."""
    found: dict[tuple[str, str], onnx.ModelProto] = {}
    for name, case in sorted(onnx_cases.load_cases("node").items()):
        nodes = case.model.graph.node
        if len(nodes) == 1 and not name.endswith("_expanded"):
            found.setdefault((nodes[0].domain, nodes[0].op_type), case.model)
    return found


def _example(domain: str, name: str) -> onnx.ModelProto:
    if (domain, name) not in _examples():
        pytest.skip(f"ONNX has no test of one node of {name}")
    return _examples()[domain, name]


def _with_status(status: str) -> list[tuple[str, str]]:
    return [key for key, found in sorted(operators.statuses().items()) if found.startswith(status)]


@pytest.mark.parametrize(("domain", "name"), _with_status(operators.BODY))
def test_an_operator_with_a_body_compiles(domain: str, name: str) -> None:
    dscc.compile(_example(domain, name), fallback=False, jobs=1)


@pytest.mark.parametrize(("domain", "name"), _with_status("fallback"))
def test_an_operator_of_the_fallback_runs_there(domain: str, name: str) -> None:
    model = _example(domain, name)
    with pytest.raises(FrontendError, match=name):
        dscc.compile(model, fallback=False, jobs=1)
    with pytest.warns(FallbackWarning, match=name):
        dscc.compile(model, jobs=1)


@pytest.mark.parametrize(("domain", "name"), _with_status(operators.NOT_YET))
def test_an_operator_that_is_not_supported_yet_is_named(domain: str, name: str) -> None:
    with pytest.raises(FrontendError, match=name):
        dscc.compile(_example(domain, name), jobs=1)
