"""ONNX's own backend test suite through dscc: `python -m benchmarks.onnx_suite`.

Counts the cases that pass when everything is compiled (`native`: no node runs on another engine), and those that pass
when unsupported nodes may run on the fallback engine. Cases run in worker processes that serve many of them; a crash,
or more processor time than the limit, is a result of the case. The results stay in a file, so that `--failed` runs only
what did not pass natively the last time, or was not reached.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import selectors
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import onnx

from benchmarks import onnx_cases
from benchmarks.patience import Patience

FOLDER = Path(__file__).parent
LAST = FOLDER.parent / ".onnx_suite.jsonl"
START_S = 120.0


@dataclass(frozen=True)
class Result:
    """What became of a case: `native` and `fallback` are empty where it passes, else `STAGE: REASON`.

    Stages: `refused`, `compile`, `run` and `result` as in onnx_cases.py, and `crash` and `timeout`. `fallback` is None
    if it was not tried.
    """

    name: str
    operators: tuple[str, ...]
    native: str
    fallback: str | None
    seconds: float


class Worker:
    """A process that runs cases; it is replaced when a case takes it down."""

    def __init__(self, limit_s: float, fallback: bool):
        self._limit_s = limit_s
        self._fallback = fallback
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, name: str) -> Result:
        started = time.perf_counter()
        found: dict[str, Any] = {}
        try:
            process = self._process or self._start()
            assert process.stdin is not None
            process.stdin.write(json.dumps({"case": name, "fallback": self._fallback}).encode() + b"\n")
            process.stdin.flush()
            while "fallback" not in found:
                found |= self._answer(self._limit_s)
        except (EOFError, OSError, TimeoutError) as err:
            status = self.stop()
            reason = f"timeout: more than {self._limit_s:g} s" if isinstance(err, TimeoutError) else _death(status)
            found = {"operators": found.get("operators", []), "native": found.get("native", reason), "fallback": reason}
        seconds = round(time.perf_counter() - started, 3)
        return Result(name, tuple(found["operators"]), found["native"], found["fallback"], seconds)

    def stop(self) -> int:
        """Take the process down; its exit status, below zero for a signal that was not ours."""
        process, self._process = self._process, None
        if process is None:
            return 0
        try:
            return process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return 0
        finally:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "benchmarks.onnx_cases"]
        self._process = subprocess.Popen(
            command,
            bufsize=0,  # a line that was read ahead would not show up in `select`
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=FOLDER.parent,
        )
        self._answer(START_S)
        return self._process

    def _answer(self, limit_s: float) -> dict[str, Any]:
        """The next line of the process; it is shorter than a pipe's buffer, so that it comes whole."""
        assert self._process is not None and self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            patience = Patience(self._process.pid, limit_s)
            while not selector.select(1.0):
                if patience.over():
                    raise TimeoutError
        line = _read_line(self._process.stdout)
        answer: dict[str, Any] = json.loads(line)
        return answer


def _read_line(pipe: IO[bytes]) -> bytes:
    line = pipe.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    return line


def _death(status: int) -> str:
    return f"crash: signal {-status}" if status < 0 else f"crash: exit status {status}"


def run_all(names: Sequence[str], jobs: int, limit_s: float, fallback: bool) -> Iterator[Result]:
    """Results as they come, from `jobs` workers."""
    waiting = iter(names)
    results: list[Result] = []
    changed = threading.Condition()

    def serve() -> None:
        worker = Worker(limit_s, fallback)
        while True:
            with changed:
                name = next(waiting, None)
            if name is None:
                worker.stop()
                return
            result = worker.run(name)
            with changed:
                results.append(result)
                changed.notify()

    for _ in range(min(jobs, len(names))):
        threading.Thread(target=serve, daemon=True).start()
    for index in range(len(names)):
        with changed:
            while len(results) <= index:
                changed.wait()
        yield results[index]


# What is missing, and why.


def reason(text: str) -> str:
    """A failure without what differs between cases that fail for the same reason, and without the advice."""
    text = re.sub(r"operator '([\w.]+)' of domain '([\w.]+)'", r"operator \2:\1", text)  # these names are the reason
    text = re.sub(r"element type '(\w+)'", r"element type \1", text)
    text = re.sub(r"^(\w+): (?:node \d+ (?:'[^']*' )?\(([\w.]+)\)(?:, in its body)?:? )+", r"\1: \2: ", text)
    text = re.sub(r", version \d+, is not supported.*", " is not supported", text)
    text = re.sub(r"'[^']*'", "'...'", text)
    text = re.sub(r"[\[(][^\[\]()]*\d[^\[\]()]*[\])]", "[...]", text)
    text = re.sub(r"(?<![\w.])-?\d+(\.\d+)?(e[+-]?\d+)?|0x[0-9a-f]+", "#", text)
    text = re.sub(r"^result: .*(shape|dtype|tolerance|length|Unexpected type).*$", _difference, text)
    return text.split("; ")[0][:160].strip()


def _difference(match: re.Match[str]) -> str:
    words = {"shape": "of another shape", "tolerance": "other values", "length": "another number of outputs"}
    return f"result: {words.get(match[1], 'of another type')}"


def grouped(results: Iterable[Result], kind: str = "native") -> list[tuple[str, list[Result]]]:
    """The failures by reason, the most frequent first."""
    groups: dict[str, list[Result]] = defaultdict(list)
    for result in sorted(results, key=lambda result: result.name):
        if text := getattr(result, kind):
            groups[reason(text)].append(result)
    return sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))


def counts(results: Sequence[Result]) -> str:
    """Both counts, in a line."""
    native = sum(not result.native for result in results)
    text = f"{native} of {len(results)} cases pass natively"
    if all(result.fallback is not None for result in results):
        text += f", {sum(not result.fallback for result in results)} with the fallback allowed"
    return text


def page(results: Sequence[Result]) -> str:
    """The page that `--save` writes."""
    lines = [
        "# ONNX's backend test suite",
        "<!-- Written by `python -m benchmarks.onnx_suite --save`. -->",
        f"{counts(results)}: all node, simple and PyTorch cases of onnx {onnx.__version__}, through "
        "`dscc.onnx_backend` with default options, compared with the suite's own tolerances. Natively means that "
        "`--no-fallback` was given: no node runs on another engine.",
    ]
    for kind, title in (("native", "What does not pass natively"), ("fallback", "What does not pass at all")):
        lines.append(f"## {title}")
        rows = [
            f"| {text.replace('|', '/')} | {len(group)} | {', '.join(result.name for result in group)} |"
            for text, group in grouped(results, kind)
        ]
        lines.append("\n".join(["| reason | cases | which |", "| --- | --- | --- |", *rows]) if rows else "Nothing.")
    return "\n\n".join(lines) + "\n"


def _load(path: Path) -> dict[str, Result]:
    if not path.exists():
        return {}
    entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {entry["name"]: Result(**entry | {"operators": tuple(entry["operators"])}) for entry in entries}


def _store(path: Path, results: Mapping[str, Result]) -> None:
    lines = [json.dumps(asdict(results[name])) for name in sorted(results)]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; the exit status is 0 if every case passes natively."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.onnx_suite", description=__doc__)
    parser.add_argument("--filter", default="", metavar="REGEX", help="only the cases whose name it is found in")
    parser.add_argument("--sample", type=int, metavar="N", help="only N of them, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--failed", action="store_true", help="only those that did not pass natively the last time")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="worker processes")
    parser.add_argument(
        "--limit", type=float, default=60.0, metavar="SECONDS", help="of processor time, for a step of one case"
    )
    parser.add_argument("--no-fallback", action="store_true", help="do not count what passes with the fallback")
    parser.add_argument("--verbose", action="store_true", help="print each failure in full")
    parser.add_argument("--results", type=Path, default=LAST, help="the file that keeps the results")
    parser.add_argument("--save", action="store_true", help="write onnx_suite.json and ONNX_SUITE.md")
    chosen = parser.parse_args(arguments)
    every = sorted(onnx_cases.load_cases())
    last = _load(chosen.results)
    names = [name for name in every if re.search(chosen.filter, name)]
    if chosen.failed:
        names = [name for name in names if name not in last or last[name].native]
    if chosen.sample is not None:
        names = sorted(random.Random(chosen.seed).sample(names, min(chosen.sample, len(names))))
    if chosen.save and names != every:
        parser.error("--save takes a run of all cases")
    found: dict[str, Result] = {}
    started = time.perf_counter()
    for result in run_all(names, chosen.jobs, chosen.limit, not chosen.no_fallback):
        found[result.name] = result
        if chosen.verbose and result.native:
            print(f"{result.name}: {result.native}", flush=True)
        if len(found) % 100 == 0:
            _store(chosen.results, last | found)  # --failed goes on from here if this is interrupted
            print(f"{len(found)} of {len(names)}, {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    _store(chosen.results, last | found)
    results = list(found.values())
    for kind in ("native",) if chosen.no_fallback else ("native", "fallback"):
        for text, group in grouped(results, kind):
            few = ", ".join(result.name for result in group[:4]) + (", ..." if len(group) > 4 else "")
            print(f"{kind} {len(group):5}  {text}  [{few}]")
    print(counts(results))
    if chosen.save:
        cases = [asdict(found[name]) for name in every]
        for case in cases:
            del case["seconds"]  # different every time
        record = {"onnx": onnx.__version__, "counts": counts(results), "cases": cases}
        (FOLDER / "onnx_suite.json").write_text(json.dumps(record, indent=0) + "\n", encoding="utf-8")
        (FOLDER / "ONNX_SUITE.md").write_text(page(results), encoding="utf-8")
    return int(any(result.native for result in results))


if __name__ == "__main__":
    sys.exit(main())
