"""The C++ program in examples/ is built and runs an artifact, with TVM's runtime libraries only."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dscc.artifact import Artifact

EXAMPLE = Path(__file__).parents[3] / "examples" / "cpp"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which("make") or not shutil.which("g++"):
        pytest.skip("make and g++ are needed")
    folder = tmp_path_factory.mktemp("cpp")
    command = ["make", "-C", str(EXAMPLE), f"BUILD={folder}", f"PYTHON={sys.executable}", "CXXFLAGS=-O0 -Wall -Werror"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "run_artifact"


def test_runs_an_artifact(program: Path, artifact: Callable[[str], Artifact], tmp_path: Path):
    artifact("scale").save(tmp_path / "scale.dscc")
    x = np.random.default_rng(0).standard_normal((50, 64)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    subprocess.run([program, "scale.dscc", "2", "out", "x.npy"], cwd=tmp_path, check=True)
    want = artifact("scale").load(threads=2)(x)
    for i, output in enumerate(want):
        np.testing.assert_array_equal(np.load(tmp_path / f"out{i}.npy"), output)


def test_several_inputs(program: Path, artifact: Callable[[str], Artifact], tmp_path: Path):
    artifact("pair").save(tmp_path / "pair.dscc")
    np.save(tmp_path / "ids.npy", np.arange(6).reshape(2, 3))
    np.save(tmp_path / "mask.npy", np.arange(6).reshape(2, 3) > 2)
    subprocess.run([program, "pair.dscc", "1", "out", "ids.npy", "mask.npy"], cwd=tmp_path, check=True)
    assert np.load(tmp_path / "out0.npy").tolist() == [[0, -1, -2], [3, 4, 5]]


def test_says_what_is_wrong(program: Path, artifact: Callable[[str], Artifact], tmp_path: Path):
    artifact("pair").save(tmp_path / "pair.dscc")
    content = (tmp_path / "pair.dscc").read_bytes()
    (tmp_path / "short.dscc").write_bytes(content[:-100])
    for file, said in [
        ("none.dscc", "cannot read 'none.dscc'"),
        ("short.dscc", "'short.dscc' is not an artifact of dscc, or it is damaged"),
        ("pair.dscc", "expected 2 inputs, got 0"),
    ]:
        done = subprocess.run([program, file, "1", "out"], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (1, f"run_artifact: error: {said}\n")
