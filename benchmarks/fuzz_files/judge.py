"""What came of a file: it is read, and perhaps compiled and loaded, in a worker that may die or stall."""

from __future__ import annotations

import tempfile
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import dscc
from benchmarks.fuzz.judge import Stage, Verdict
from benchmarks.fuzz_files.alter import alter
from benchmarks.fuzz_files.bases import Base
from dscc import frontends
from dscc.errors import DsccError


@dataclass(frozen=True)
class Request:
    """A file by its seed and number, and what is done with it; `kept` as in `alter`."""

    seed: int
    number: int
    base: Base
    compiled: bool
    kept: Sequence[int] | None = None


def serve(request: Request, stage: Stage) -> Verdict:
    """In the worker: write the file, and judge it."""
    stage("build")
    file, _ = alter(request.seed, request.number, request.base, request.kept)
    with tempfile.TemporaryDirectory(prefix="dscc-fuzz-") as folder:
        return judge(file.write(Path(folder)), request.compiled, stage)


def judge(path: Path, compiled: bool, stage: Stage = lambda name: None) -> Verdict:
    """Read a file, and with `compiled` do all that `dscc compile` does, from the start.

    The verdict is `read` or `compiled`, `refused` by an error of ours that is one line, or `error`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of the fallback, and of NumPy for numbers that overflow
        try:
            stage("read")
            frontends.find(path).load(path, dscc.CompileOptions())
            if compiled:
                dscc.compile(path, jobs=1, progress=stage).save(path.with_suffix(".dscc"))
                stage("load")
                dscc.load(path.with_suffix(".dscc"))
        except DsccError as err:
            text = str(err)
            if len(text.splitlines()) != 1 or not text.isprintable() or len(text) > 2000:
                return Verdict("error", f"the text of a {type(err).__name__} is not one line: {text!r:.400}")
            return Verdict("refused", text)
        except Exception as err:  # noqa: BLE001  what a fuzzer is for
            line = " ".join(f"{type(err).__name__}: {err}".split())
            return Verdict("error", line[:600], traceback.format_exc()[-4000:])
    return Verdict("compiled" if compiled else "read")
