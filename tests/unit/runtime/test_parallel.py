"""The threads of parallel loops, by themselves, in C."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[3] / "dscc" / "runtime"


def test_many_callers_and_failing_loops(tmp_path: Path):
    compiler = shutil.which("cc") or pytest.skip("there is no C compiler")
    program = tmp_path / "stress"
    command = [compiler, "-O1", "-g", "-pthread", f"-I{SOURCES}", str(Path(__file__).with_name("parallel_stress.c"))]
    sanitized = subprocess.run([*command, "-fsanitize=thread", "-o", program], capture_output=True, check=False)
    if sanitized.returncode != 0:  # this compiler has no thread sanitizer
        subprocess.run([*command, "-o", program], check=True)
    done = subprocess.run([program], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0 errors left\n", "")
