"""What the fuzzers have in common: their flags, workers side by side, their verdicts, and the tally of them."""

from __future__ import annotations

import argparse
import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.fuzz.judge import Verdict
from benchmarks.fuzz.worker import Died, Stalled, Worker


def flags(module: str, doc: str, case: str) -> argparse.ArgumentParser:
    """The flags of a fuzzer, which is run as `python -m module`, and what it calls a case."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=doc.splitlines()[0])
    parser.add_argument("--seconds", type=float, help="stop after this time; after 60 without --count")
    parser.add_argument("--count", type=int, help=f"stop after so many {case}s")
    parser.add_argument("--seed", type=int, default=0, help=f"of the whole run; a {case} is a seed and a number")
    parser.add_argument("--first", type=int, default=0, help=f"number of the first {case}")
    parser.add_argument("--only", type=int, help=f"number of the one {case} to try")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side")
    parser.add_argument("--out", type=Path, default=Path("fuzz-findings"), help="folder for what fails")
    return parser


def deadline(args: argparse.Namespace, started: float) -> float:
    """When to stop, on the clock of `started`."""
    return started + (args.seconds if args.seconds is not None else 60.0 if args.count is None else math.inf)


def numbers(args: argparse.Namespace) -> Iterator[int]:
    """Those of the cases that the flags ask for."""
    if args.only is not None:
        return iter([args.only])
    return itertools.count(args.first) if args.count is None else iter(range(args.first, args.first + args.count))


def side_by_side(jobs: int, make: Callable[[], Worker], work: Callable[[Worker], None]) -> None:
    """Do `work` in as many threads as there are jobs, each with a worker of its own."""

    def run(_: int) -> None:
        worker = make()
        try:
            work(worker)
        finally:
            worker.close()

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(run, range(jobs)))


def ask(worker: Worker, request: object) -> Verdict:
    """The worker's verdict, or that it died or hung."""
    try:
        verdict: Verdict = worker(request)
        return verdict
    except Died as err:
        head, _, detail = str(err).partition("\n")
        # Building and the references are not ours: a crash there says nothing of dscc.
        return Verdict("invalid" if re.search("stage '(start|build|evaluate|compare)", head) else "died", head, detail)
    except Stalled as err:
        return Verdict("invalid" if re.search("stage '(start|build|evaluate|compare)", str(err)) else "hang", str(err))


class Tally:
    """How often which verdict was given, for what reasons cases were refused, and what was found."""

    def __init__(self) -> None:
        self._verdicts: Counter[str] = Counter()
        self._refusals: Counter[str] = Counter()
        self._findings: Counter[str] = Counter()

    def note(self, verdict: Verdict) -> None:
        self._verdicts[verdict.kind] += 1
        if verdict.kind == "refused":
            self._refusals[pattern(verdict.reason)] += 1

    def found(self, signature: str) -> int:
        """How often this has been found, now included."""
        self._findings[signature] += 1
        return self._findings[signature]

    def report(self, heading: str) -> int:
        """Print all; the process's exit status: 1 if anything was found."""
        kinds = ", ".join(f"{n} {k}" for k, n in self._verdicts.most_common())
        print(f"{self._verdicts.total()} {heading}: {kinds}")
        for text, times in self._refusals.most_common(25):
            print(f"  refused {times:4} {text}")
        for text, times in self._findings.most_common():
            print(f"  FOUND   {times:4} {text}")
        return 1 if self._findings else 0


def pattern(reason: str) -> str:
    """A message without what differs between cases."""
    return re.sub(r"'[^']*'|\[[^\]]*\]|\([^)]*\)|-?\d+(\.\d+)?", "_", reason)[:160]
