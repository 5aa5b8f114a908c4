"""The public door: what it offers, and what it does not import."""

import ast
import inspect
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import dscc

PUBLIC = {
    "Artifact",
    "CompileOptions",
    "DsccError",
    "Frontend",
    "Module",
    "OnnxOperator",
    "Pass",
    "RewritePass",
    "Target",
    "compile",
    "hookimpl",
    "load",
}


def test_all_is_what_the_design_names() -> None:
    assert set(dscc.__all__) == PUBLIC
    assert list(dscc.__all__) == sorted(dscc.__all__)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_name_loads(name: str) -> None:
    value = getattr(dscc, name)
    assert name == "hookimpl" or value.__name__ == name
    assert name in dir(dscc)


def test_type_checkers_see_the_same_names_from_the_same_places() -> None:
    block = next(node for node in ast.parse(inspect.getsource(dscc)).body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    assert {alias.name: node.module for node in imports for alias in node.names} == dscc._HOME


def test_unknown_attribute() -> None:
    with pytest.raises(AttributeError, match="no attribute 'complie'"):
        dscc.complie  # noqa: B018


@pytest.mark.parametrize(
    ("statement", "forbidden"),
    [
        ("import dscc", {"tvm", "numpy", "click", "pluggy", "onnx"}),
        ("import dscc.cli, dscc.plugins; dscc.cli.main(['--help'])", {"tvm", "numpy", "onnx", "rich"}),
        ("import dscc; dscc.load, dscc.Module, dscc.Artifact", {"tvm", "onnx", "click", "pluggy"}),
    ],
)
def test_what_is_not_imported(statement: str, forbidden: set[str]) -> None:
    code = f"import sys\n{statement}\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not forbidden & set(done.stderr.split())


def test_every_file_is_installed() -> None:
    """What is no Python is named in pyproject.toml, by which a plain `pip install` takes it along."""
    root = Path(dscc.__file__).parent
    settings = tomllib.loads((root.parent / "pyproject.toml").read_text())
    named = {path for pattern in settings["tool"]["setuptools"]["package-data"]["dscc"] for path in root.glob(pattern)}
    files = {path for path in root.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert files and not files - named
