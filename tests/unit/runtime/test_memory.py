"""Memory of the values between kernels: the blocks by themselves, in C, and what a module makes of them."""

from __future__ import annotations

import resource
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx.parser
import pytest

import dscc
from dscc import library
from dscc.errors import InputError

MODEL = """<ir_version: 10, opset_import: ["": 20]> f (float[n, 64] x, float[64, 64] w) => (float[n, 64] y, float[k] z)
    <int64[1] rest = {-1}> { a = MatMul(x, w) b = Softmax<axis = 0>(a) y = MatMul(b, w) z = Reshape(a, rest) }"""


def test_blocks_of_many_threads(tmp_path: Path) -> None:
    compiler = shutil.which("cc") or pytest.skip("there is no C compiler")
    program = tmp_path / "stress"
    source = str(Path(__file__).with_name("memory_stress.c"))
    command = [compiler, "-O1", "-g", "-pthread", *library.compile_flags(), source]
    sanitized = subprocess.run([*command, "-fsanitize=thread", "-o", program], capture_output=True, check=False)
    if sanitized.returncode != 0:  # this compiler has no thread sanitizer
        subprocess.run([*command, "-o", program], check=True)
    done = subprocess.run([program], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0 wrong, 0 regions left\n", "")


def test_a_steady_run_takes_no_pages() -> None:
    """32 MB a value: malloc would ask the system for each of them, in every run."""
    module = dscc.compile(onnx.parser.parse_model(MODEL), jobs=1).load(1)
    feeds = {"x": np.ones((1 << 17, 64), np.float32), "w": np.ones((64, 64), np.float32)}
    faults = []
    for _ in range(6):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        module.run(None, feeds)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    assert min(faults[2:]) < 100 < faults[0], faults


def test_outputs_outlive_the_module_and_later_runs() -> None:
    module = dscc.compile(onnx.parser.parse_model(MODEL), jobs=1).load(1)
    rng = np.random.default_rng(0)
    w = rng.standard_normal((64, 64)).astype(np.float32)
    kept, wanted = [], []
    for rows in (1, 700, 33, 5000, 2, 700):
        x = rng.standard_normal((rows, 64)).astype(np.float32)
        kept.append(module.run(["z"], {"x": x, "w": w})[0])
        wanted.append((x @ w).ravel())
    del module
    for got, want in zip(kept, wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_more_than_there_is_is_an_input_error() -> None:
    text = """<ir_version: 10, opset_import: ["": 20]> f (float[n] x) => (float[m, k, n] y)
        <int64[3] shape = {100000, 100000, 1}> { e = Expand(x, shape) y = Exp(e) }"""
    module = dscc.compile(onnx.parser.parse_model(text), jobs=1).load(1)
    with pytest.raises(InputError, match="not enough memory"):
        module.run(None, {"x": np.ones(1000, np.float32)})
