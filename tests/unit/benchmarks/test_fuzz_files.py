"""The fuzzer of the loader: its bases are valid, its files come again, and a sample of them is clean."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from benchmarks.fuzz.judge import Verdict
from benchmarks.fuzz_files import bases, judge
from benchmarks.fuzz_files.__main__ import minimise, requests, signature
from benchmarks.fuzz_files.alter import IMPOSSIBLE, TABLE, alter
from benchmarks.fuzz_files.file import File
from benchmarks.fuzz_files.judge import Request

SAMPLE = 250  # files that are read here; `make fuzz-files` reads thousands


@pytest.mark.parametrize("name", bases.MADE)
def test_every_base_is_read_as_it_is(name: str, tmp_path: Path) -> None:
    base = bases.base(f"made:{name}")
    path = File(onnx.ModelProto.FromString(base.model), dict(base.files)).write(tmp_path)
    assert judge.judge(path, compiled=False) == Verdict("read")


def test_a_sample_ends_in_success_or_in_one_line() -> None:
    names = bases.names(["made"])
    kinds = {}
    for request in requests(seed=4, numbers=iter(range(SAMPLE)), names=names, compiled=0.02):
        verdict = judge.serve(request, lambda stage: None)
        assert not verdict.finding, f"--seed 4 --only {request.number}: {verdict.reason}\n{verdict.detail}"
        kinds[verdict.kind] = verdict.reason
    assert kinds.keys() == {"read", "compiled", "refused"}


def test_a_file_comes_again(tmp_path: Path) -> None:
    base = bases.base("made:external")
    contents = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        path = alter(5, 8, base)[0].write(folder)
        contents.append((path.read_bytes(), sorted(os.listdir(folder))))
    assert contents[0] == contents[1]
    assert contents[0][0] != base.model


def test_every_alteration_alters_something() -> None:
    for alteration in TABLE:
        changed = 0
        for name in bases.MADE:
            base = bases.base(f"made:{name}")
            file = File(onnx.ModelProto.FromString(base.model), dict(base.files))
            for attempt in range(10):
                try:
                    alteration(np.random.default_rng(attempt), file)
                except IMPOSSIBLE:
                    continue
            changed += file.files != base.files or file.written() != base.model
        assert changed, alteration.__name__


def test_alterations_that_a_failure_does_not_need_are_left_out() -> None:
    request = next(
        request
        for number in range(1000)
        for request in [Request(0, number, bases.base("made:dense"), False)]
        if alter(request.seed, number, request.base)[1] == 4
    )

    def worker(asked: Request) -> Verdict:
        wrong = asked.kept is None or 2 in asked.kept
        return Verdict("error", "KeyError: 'w'") if wrong else Verdict("read")

    smaller, verdict = minimise(worker, request, worker(request))  # type: ignore[arg-type]
    assert smaller == replace(request, kept=[2]) and verdict.kind == "error"


def test_two_failures_at_one_place_are_one_finding() -> None:
    frames = 'File "/a/dscc/x.py", line 3, in f\n  File "/a/dscc/y/z.py", line 17, in g\n'
    one, two = (Verdict("error", f"KeyError: '{name}'", frames) for name in ("a", "b"))
    assert signature(one) == signature(two) == "error KeyError: _ [dscc/y/z.py:17]"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (KeyError("x"), "error"), (RecursionError("deep"), "error"), (MemoryError("4 GB"), "error"),
        (judge.DsccError("one line"), "refused"), (judge.DsccError("two\nlines"), "error"),
        (judge.DsccError("\x1b[2J"), "error"),
    ],
)  # fmt: skip
def test_what_is_a_finding(error: Exception, kind: str, monkeypatch: Any, tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        raise error

    monkeypatch.setattr(judge.frontends, "find", fail)
    assert judge.judge(tmp_path / "m.onnx", compiled=False).kind == kind
