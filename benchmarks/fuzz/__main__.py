"""Build graphs, judge them, make small what fails, and report.

    python -m benchmarks.fuzz --seconds 60 --seed 0
    python -m benchmarks.fuzz --seed 0 --only 17        one graph again

Exits with 1 if anything was found. Every finding is a folder's worth of files in --out: NAME.onnx, NAME.npz with the
inputs of each run (`0:x` is input x of run 0) and NAME.txt.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import onnx

from benchmarks.fuzz import build, judge
from benchmarks.fuzz.build import Case
from benchmarks.fuzz.judge import Verdict
from benchmarks.fuzz.shrink import shrink
from benchmarks.fuzz.worker import Died, Stalled, Worker
from dscc import feeds

LIMIT_S = 60.0


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


def signature(case: Case, verdict: Verdict) -> str:
    """What makes two findings the same: the operators left, and the message without its numbers and names."""
    operators = " ".join(sorted(node.op_type for node in case.model.graph.node))
    return f"{verdict.kind} [{operators}] {pattern(verdict.reason) if verdict.kind != 'wrong' else ''}"


def pattern(reason: str) -> str:
    """A message without what differs between graphs."""
    return re.sub(r"'[^']*'|\[[^\]]*\]|\([^)]*\)|-?\d+(\.\d+)?", "_", reason)[:160]


def minimise(worker: Worker, case: Case, verdict: Verdict, seconds: float) -> tuple[Case, Verdict]:
    """A smaller case with the same kind of failure."""
    last = [verdict]

    def fails(smaller: Case) -> bool:
        try:
            onnx.checker.check_model(smaller.model)
        except onnx.checker.ValidationError:
            return False
        found = ask(worker, (smaller.model.SerializeToString(), smaller.feeds))
        alike = found.kind == verdict.kind and (
            verdict.kind == "wrong" or pattern(found.reason) == pattern(verdict.reason)
        )
        if alike:
            last[0] = found
        return alike

    return shrink(case, fails, seconds), last[0]


def save(folder: Path, name: str, case: Case, verdict: Verdict, command: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.onnx").write_bytes(case.model.SerializeToString())
    feeds.save(folder / f"{name}.npz", {f"{i}:{k}": v for i, run in enumerate(case.feeds) for k, v in run.items()})
    text = f"{verdict.kind}: {verdict.reason}\n{verdict.detail}\n\n{command}\n\n{onnx.printer.to_text(case.model)}\n"
    (folder / f"{name}.txt").write_text(text)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="stop after this time")
    parser.add_argument("--count", type=int, default=10**9, help="stop after so many graphs")
    parser.add_argument("--seed", type=int, default=0, help="of the whole run; a graph is a seed and a number")
    parser.add_argument("--first", type=int, default=0, help="number of the first graph")
    parser.add_argument("--only", type=int, help="number of the one graph to try")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side")
    parser.add_argument("--out", type=Path, default=Path("fuzz-findings"), help="folder for what fails")
    parser.add_argument("--shrink-seconds", type=float, default=60.0, help="for each finding; 0 keeps it as it is")
    args = parser.parse_args()
    first, count = (args.first, args.count) if args.only is None else (args.only, 1)
    numbers = iter(range(first, first + count))
    deadline = time.monotonic() + args.seconds
    verdicts: Counter[str] = Counter()
    refusals: Counter[str] = Counter()
    findings: Counter[str] = Counter()

    def work(_: int) -> None:
        worker = Worker(judge.serve, LIMIT_S)
        try:
            while time.monotonic() < deadline and (number := next(numbers, None)) is not None:
                verdict = ask(worker, (args.seed, number))
                verdicts[verdict.kind] += 1
                if verdict.kind == "refused":
                    refusals[pattern(verdict.reason)] += 1
                if verdict.finding:
                    case = build.case(args.seed, number)
                    if args.shrink_seconds:
                        case, verdict = minimise(worker, case, verdict, args.shrink_seconds)
                    found = signature(case, verdict)
                    findings[found] += 1
                    print(f"{args.seed}:{number} {found} {verdict.reason[:200]}", flush=True)
                    if findings[found] <= 3:
                        command = f"python -m benchmarks.fuzz --seed {args.seed} --only {number}"
                        save(args.out, f"{args.seed}-{number}", case, verdict, command)
        finally:
            worker.close()

    started = time.monotonic()
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(work, range(args.jobs)))
    total = sum(verdicts.values())
    print(
        f"{total} graphs in {time.monotonic() - started:.0f} s: "
        + ", ".join(f"{n} {k}" for k, n in verdicts.most_common())
    )
    for text, times in refusals.most_common(25):
        print(f"  refused {times:4} {text}")
    for text, times in findings.most_common():
        print(f"  FOUND   {times:4} {text}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
