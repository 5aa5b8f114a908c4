"""Build graphs, judge them, make small what fails, and report.

    python -m benchmarks.fuzz --seconds 60 --seed 0
    python -m benchmarks.fuzz --seed 0 --only 17        one graph again

Exits with 1 if anything was found. Every finding is a folder's worth of files in --out: NAME.onnx, NAME.npz with the
inputs of each run (`0:x` is input x of run 0) and NAME.txt.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import onnx

from benchmarks.fuzz import build, judge
from benchmarks.fuzz.build import Case
from benchmarks.fuzz.campaign import Tally, ask, deadline, flags, numbers, pattern, side_by_side
from benchmarks.fuzz.judge import Verdict
from benchmarks.fuzz.shrink import shrink
from benchmarks.fuzz.worker import Worker
from dscc import feeds

LIMIT_S = 60.0


def signature(case: Case, verdict: Verdict) -> str:
    """What makes two findings the same: the operators left, and the message without its numbers and names."""
    operators = " ".join(sorted(node.op_type for node in case.model.graph.node))
    return f"{verdict.kind} [{operators}] {pattern(verdict.reason) if verdict.kind != 'wrong' else ''}"


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
    parser = flags("benchmarks.fuzz", __doc__, "graph")
    parser.add_argument("--shrink-seconds", type=float, default=60.0, help="for each finding; 0 keeps it as it is")
    args = parser.parse_args()
    started, left, tally = time.monotonic(), numbers(args), Tally()
    end = deadline(args, started)

    def work(worker: Worker) -> None:
        while time.monotonic() < end and (number := next(left, None)) is not None:
            verdict = ask(worker, (args.seed, number))
            tally.note(verdict)
            if verdict.finding:
                case = build.case(args.seed, number)
                if args.shrink_seconds:
                    case, verdict = minimise(worker, case, verdict, args.shrink_seconds)
                found = signature(case, verdict)
                print(f"{args.seed}:{number} {found} {verdict.reason[:200]}", flush=True)
                if tally.found(found) <= 3:
                    command = f"python -m benchmarks.fuzz --seed {args.seed} --only {number}"
                    save(args.out, f"{args.seed}-{number}", case, verdict, command)

    side_by_side(args.jobs, lambda: Worker(judge.serve, LIMIT_S), work)
    return tally.report(f"graphs in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
