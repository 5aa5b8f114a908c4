"""Alter files, judge them, leave out of what fails the alterations that it does not need, and report.

    python -m benchmarks.fuzz_files --seconds 60 --seed 0
    python -m benchmarks.fuzz_files --seed 0 --only 17        one file again

Exits with 1 if anything was found. Every finding is a folder in --out: the files as they were altered, and NAME.txt.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.fuzz.__main__ import ask, pattern
from benchmarks.fuzz.judge import Verdict
from benchmarks.fuzz.worker import Worker
from benchmarks.fuzz_files import bases, judge
from benchmarks.fuzz_files.alter import alter
from benchmarks.fuzz_files.judge import Request

LIMIT_S = 20.0
MEMORY_BYTES = 4 << 30


def requests(seed: int, numbers: Iterator[int], names: list[str], compiled: float) -> Iterator[Request]:
    """The files of a seed; a share `compiled` of them is compiled."""
    for number in numbers:
        rng = np.random.default_rng([seed, number, 1])
        yield Request(seed, number, bases.base(names[int(rng.integers(len(names)))]), bool(rng.random() < compiled))


def minimise(worker: Worker, request: Request, verdict: Verdict) -> tuple[Request, Verdict]:
    """The request with as few alterations as still fail alike."""
    kept = list(range(alter(request.seed, request.number, request.base)[1]))
    for index in reversed(range(len(kept))):
        fewer = replace(request, kept=kept[:index] + kept[index + 1 :])
        found = ask(worker, fewer)
        if kept[1:] and signature(found) == signature(verdict):
            kept, verdict, request = list(fewer.kept or ()), found, fewer
    return request, verdict


def signature(verdict: Verdict) -> str:
    """What makes two findings the same: the message without its numbers and names, and where it came from."""
    frames = re.findall(r'File "[^"]*?((?:dscc|benchmarks)/[\w/]+\.py)", line (\d+)', verdict.detail)
    return f"{verdict.kind} {pattern(verdict.reason)} [{':'.join(frames[-1]) if frames else ''}]"


def save(folder: Path, request: Request, verdict: Verdict, command: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    alter(request.seed, request.number, request.base, request.kept)[0].write(folder)
    which = f"{request.base.name}, alterations {request.kept or 'all'}"
    text = f"{verdict.kind}: {verdict.reason}\n{verdict.detail}\n\n{command}\n{which}\n"
    (folder / "finding.txt").write_text(text)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz_files", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="stop after this time")
    parser.add_argument("--count", type=int, default=10**9, help="stop after so many files")
    parser.add_argument("--seed", type=int, default=0, help="of the whole run; a file is a seed and a number")
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--only", type=int, help="number of the one file to try")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side")
    parser.add_argument("--compile", type=float, default=0.2, help="share of the files that is compiled, 0 to 1")
    parser.add_argument(
        "--bases", nargs="+", choices=("made", "suite", "real"), default=["made", "suite"], help="what is altered"
    )
    parser.add_argument("--out", type=Path, default=Path("fuzz-findings"), help="folder for what fails")
    args = parser.parse_args()
    first, count = (args.first, args.count) if args.only is None else (args.only, 1)
    work = requests(args.seed, iter(range(first, first + count)), bases.names(args.bases), args.compile)
    started = time.monotonic()
    verdicts: Counter[str] = Counter()
    refusals: Counter[str] = Counter()
    findings: Counter[str] = Counter()
    slowest = [0.0]
    turn = threading.Lock()

    def serve(_: int) -> None:
        worker = Worker(judge.serve, LIMIT_S, MEMORY_BYTES)
        try:
            while time.monotonic() < started + args.seconds:
                with turn:  # a generator does not take two callers at once
                    request = next(work, None)
                if request is None:
                    return
                begun = time.monotonic()
                verdict = ask(worker, request)
                slowest[0] = max(slowest[0], time.monotonic() - begun)
                verdicts[verdict.kind] += 1
                if verdict.kind == "refused":
                    refusals[pattern(verdict.reason)] += 1
                if verdict.finding:
                    found = signature(verdict)
                    findings[found] += 1
                    if findings[found] <= 2:
                        request, verdict = minimise(worker, request, verdict)
                        print(f"{args.seed}:{request.number} {request.base.name} {found}", flush=True)
                        command = f"python -m benchmarks.fuzz_files --seed {args.seed} --only {request.number}"
                        command += f" --bases {' '.join(args.bases)} --compile {args.compile}"
                        save(args.out / f"{args.seed}-{request.number}", request, verdict, command)
        finally:
            worker.close()

    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(serve, range(args.jobs)))
    total, seconds = sum(verdicts.values()), time.monotonic() - started
    kinds = ", ".join(f"{n} {k}" for k, n in verdicts.most_common())
    print(f"{total} files in {seconds:.0f} s, the slowest in {slowest[0]:.0f} s: {kinds}")
    for text, times in refusals.most_common(25):
        print(f"  refused {times:4} {text}")
    for text, times in findings.most_common():
        print(f"  FOUND   {times:4} {text}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
