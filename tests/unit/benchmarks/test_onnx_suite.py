"""Running cases in processes that may die or hang, and grouping what fails."""

from __future__ import annotations

import signal
import sys
import textwrap
from pathlib import Path

import pytest

from benchmarks import onnx_suite
from benchmarks.onnx_suite import Result, Worker, counts, grouped, page, reason, run_all


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Workers that pass every case, but die at `die`, say nothing at `hang` and refuse `refuse`."""
    script = tmp_path / "worker.py"
    script.write_text(
        textwrap.dedent(
            """
            import json, os, signal, sys, time
            def say(**fields): print(json.dumps(fields), flush=True)
            say(ready=1)
            for line in sys.stdin:
                name = json.loads(line)["case"]
                say(operators=[name]), say(native="refused: no" if name == "refuse" else "")
                if name == "die": os.kill(os.getpid(), signal.SIGSEGV)
                if name == "hang": time.sleep(60)
                say(fallback="")
            """
        )
    )
    real = onnx_suite.subprocess.Popen
    monkeypatch.setattr(
        onnx_suite.subprocess, "Popen", lambda command, **rest: real([sys.executable, str(script)], **rest)
    )


def test_a_worker_that_dies_or_hangs_is_replaced(worker: None) -> None:
    results = {r.name: r for r in run_all(["a", "die", "b", "hang", "refuse"], jobs=1, limit_s=0.2, fallback=True)}
    assert [results[name].fallback for name in ("a", "b", "refuse")] == ["", "", ""]
    assert results["die"].fallback == f"crash: signal {signal.SIGSEGV.value}"
    assert results["hang"].fallback == "timeout: more than 0.2 s"
    assert results["hang"].operators == ("hang",)
    assert results["refuse"].native == "refused: no"


def test_the_real_worker() -> None:
    worker = Worker(120.0, fallback=False)
    try:
        assert worker.run("test_abs").native == ""
        assert worker.run("test_abs").fallback is None
    finally:
        worker.stop()


def test_reasons_leave_out_what_differs() -> None:
    text = "refused: operator 'Col2Im' of domain 'ai.onnx', version 18, is not supported (at node 0 (Col2Im)); do"
    assert reason(text) == "refused: operator ai.onnx:Col2Im is not supported"
    one, two = (
        reason(f"refused: node {i} 'n{i}' (Cast): size {i}.5 of '{i}' in [{i}, 2]; give another") for i in (1, 2)
    )
    assert one == two == "refused: Cast: size # of '...' in [...]"
    assert reason("result: Not equal to tolerance rtol=0.001") == "result: other values"


def test_counts_and_page() -> None:
    results = [
        Result("a", ("Abs",), "", "", 1.0),
        Result("b", ("B",), "refused: no | b", "", 1.0),
        Result("c", ("C",), "crash: signal 11", "crash: signal 11", 1.0),
    ]
    assert counts(results) == "1 of 3 cases pass natively, 2 with the fallback allowed"
    assert [(text, len(group)) for text, group in grouped(results)] == [("crash: signal #", 1), ("refused: no | b", 1)]
    assert "| refused: no / b | 1 | b |" in page(results)
