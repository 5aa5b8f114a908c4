"""Weights move to huge pages while a module runs; nothing but the speed changes."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx.helper
import onnx.numpy_helper
import pytest

import dscc
from dscc.artifact import Artifact
from dscc.runtime import module, pages

WIDE, NARROW = 2048, 3072  # 24 MB of float32


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    weight = np.random.default_rng(0).standard_normal((WIDE, NARROW)).astype(np.float32)
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])], "pages",
        [info("x", 1, ["n", WIDE])], [info("y", 1, ["n", NARROW])], [onnx.numpy_helper.from_array(weight, "w")],
    )  # fmt: skip
    return dscc.compile(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)]), jobs=1)


def _moved() -> None:
    for thread in threading.enumerate():
        if thread.name == "dscc-pages":
            thread.join()


def _huge_bytes(address: int) -> int:
    """Bytes in huge pages, of memory that is no file's, in the mapping of an address."""
    within = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, *rest = line.split()
        if "-" in first and not first.endswith(":"):
            begin, end = (int(side, 16) for side in first.split("-"))
            within = begin <= address < end
        elif within and first == "AnonHugePages:":
            return int(rest[0]) << 10
    return 0


def test_runs_go_on_while_weights_move(artifact: Artifact, tmp_path: Path) -> None:
    if not pages._page_bytes():
        pytest.skip("this system has no transparent huge pages")
    artifact.save(tmp_path / "m.dscc")
    loaded = dscc.load(tmp_path / "m.dscc", 1)
    feeds = {"x": np.random.default_rng(1).standard_normal((3, WIDE)).astype(np.float32)}
    (want,) = loaded.run(None, feeds)
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda _: loaded.run(None, feeds)[0], range(20 * module._EARLY)))
    _moved()
    results.append(loaded.run(None, feeds)[0])
    assert all(np.array_equal(result, want) for result in results)
    weights = loaded._program._image
    middle = weights.__array_interface__["data"][0] + weights.nbytes // 2
    assert not weights.flags.writeable
    assert _huge_bytes(middle) > 0
    assert bytes(weights) == bytes(artifact.member("weights.safetensors"))


def test_an_artifact_is_saved_after_its_weights_moved(artifact: Artifact, tmp_path: Path) -> None:
    """What `save` has written it gives back to the system, which would empty pages that are no file's any more."""
    before = bytes(artifact.image)
    loaded = artifact.load(1)
    feeds = {"x": np.ones((2, WIDE), np.float32)}
    (want,) = loaded.run(None, feeds)
    for _ in range(module._EARLY):
        loaded.run(None, feeds)
    _moved()
    artifact.save(tmp_path / "m.dscc")
    assert (tmp_path / "m.dscc").read_bytes() == before
    assert np.array_equal(loaded.run(None, feeds)[0], want)


@pytest.fixture
def fresh() -> Iterator[None]:
    """What is remembered of the system is asked for again."""
    pages._page_bytes.cache_clear()
    yield
    pages._page_bytes.cache_clear()


def test_the_environment_says_no(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSCC_HUGE_PAGES", "0")
    assert pages.settle(np.zeros(64 << 20, np.uint8)) is None


@pytest.mark.parametrize("lacks", ["huge pages", "memory", "weights", "threads", "/proc"])
def test_what_keeps_weights_where_they_are(lacks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.zeros(pages._page_bytes() if lacks == "weights" else 64 << 20, np.uint8)
    if lacks == "huge pages":
        monkeypatch.setattr(pages, "_page_bytes", lambda: 0)
    if lacks == "memory":
        monkeypatch.setattr(pages, "_available", lambda: image.nbytes)
    if lacks == "threads":
        monkeypatch.setattr(threading.Thread, "start", _no_thread)
    if lacks == "/proc":
        monkeypatch.setattr(pages, "_MEMORY", Path("/nowhere/meminfo"))
    assert pages.settle(image) is None


def _no_thread(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_loading_a_module_imports_none_of_it() -> None:
    """Most processes run a model a few times, and logging alone was a third of the runtime's own import."""
    code = "import sys, dscc.runtime.module; print({'logging', 'tempfile', 'dscc.runtime.pages'} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
