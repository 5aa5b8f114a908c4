"""The linker: which one is taken, and what is said where there is none."""

import importlib.machinery
import importlib.util
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dscc.errors import TargetError
from dscc.targets import toolchain


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    toolchain.find_linker.cache_clear()
    yield
    toolchain.find_linker.cache_clear()


def no_ziglang(name: str, package: str | None = None) -> None:
    return None


def test_a_driver_on_path_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = tmp_path / "gcc"
    driver.write_text("#!/bin/sh\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert toolchain.find_linker() == (str(driver),)


def test_ziglang_is_taken_where_there_is_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    spec = importlib.machinery.ModuleSpec("ziglang", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None: spec)
    assert toolchain.find_linker()[:4] == (sys.executable, "-m", "ziglang", "cc")


def test_none_at_all_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(importlib.util, "find_spec", no_ziglang)
    with pytest.raises(TargetError, match=r"no C linker found: .* install a C compiler, or run 'pip install ziglang'"):
        toolchain.find_linker()


def test_a_failing_linker_says_why(tmp_path: Path, monkeypatch: Any) -> None:
    broken = tmp_path / "broken.o"
    broken.write_text("no object file")
    with pytest.raises(TargetError, match=r"the linker '.*' failed with status [1-9]"):
        toolchain.link([broken], tmp_path / "model.so")
    assert not (tmp_path / "model.so").exists()


def test_a_cross_compiler_is_taken_for_another_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("gcc", "aarch64-linux-gnu-g++"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert toolchain.find_linker("aarch64") == (str(tmp_path / "aarch64-linux-gnu-g++"),)


def test_ziglang_links_for_another_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gcc").write_text("#!/bin/sh\n")
    (tmp_path / "gcc").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    spec = importlib.machinery.ModuleSpec("ziglang", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None: spec)
    assert toolchain.find_linker("aarch64")[-2:] == ("-target", "aarch64-linux-gnu")


def test_no_linker_for_another_family_names_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(importlib.util, "find_spec", no_ziglang)
    wanted = r"no linker for aarch64 found: .*'apt-get install g\+\+-aarch64-linux-gnu'\), or run 'pip install ziglang'"
    with pytest.raises(TargetError, match=wanted):
        toolchain.find_linker("aarch64")
