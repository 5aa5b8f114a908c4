"""Alter files, judge them, leave out of what fails the alterations that it does not need, and report.

    python -m benchmarks.fuzz_files --seconds 60 --seed 0
    python -m benchmarks.fuzz_files --seed 0 --only 17        one file again

Exits with 1 if anything was found. Every finding is a folder in --out: the files as they were altered, and NAME.txt.
"""

from __future__ import annotations

import re
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.fuzz.campaign import Tally, ask, deadline, flags, numbers, pattern, side_by_side
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
    parser = flags("benchmarks.fuzz_files", __doc__, "file")
    parser.add_argument("--compile", type=float, default=0.2, help="share of the files that is compiled, 0 to 1")
    parser.add_argument(
        "--bases", nargs="+", choices=("made", "suite", "real"), default=["made", "suite"], help="what is altered"
    )
    args = parser.parse_args()
    left = requests(args.seed, numbers(args), bases.names(args.bases), args.compile)
    started, tally, slowest = time.monotonic(), Tally(), [0.0]
    end, turn = deadline(args, started), threading.Lock()

    def work(worker: Worker) -> None:
        while time.monotonic() < end:
            with turn:  # a generator does not take two callers at once
                request = next(left, None)
            if request is None:
                return
            begun = time.monotonic()
            verdict = ask(worker, request)
            slowest[0] = max(slowest[0], time.monotonic() - begun)
            tally.note(verdict)
            if verdict.finding and tally.found(found := signature(verdict)) <= 2:
                request, verdict = minimise(worker, request, verdict)
                print(f"{args.seed}:{request.number} {request.base.name} {found}", flush=True)
                command = f"python -m benchmarks.fuzz_files --seed {args.seed} --only {request.number}"
                command += f" --bases {' '.join(args.bases)} --compile {args.compile}"
                save(args.out / f"{args.seed}-{request.number}", request, verdict, command)

    side_by_side(args.jobs, lambda: Worker(judge.serve, LIMIT_S, MEMORY_BYTES), work)
    return tally.report(f"files in {time.monotonic() - started:.0f} s, the slowest in {slowest[0]:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
