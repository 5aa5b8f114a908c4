"""Race dscc against its peers: `python -m benchmarks.race --models ppocrv4_det,resnet50 --threads 1,all`.

Every engine at every thread count is a process of its own; they take turns of a fifth of a second, the others quiet. A
figure is the median over all runs with its quartiles; a ratio is the median of the ratios of neighbouring turns.
Without --save nothing is written.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import models, report
from benchmarks.contest import (
    Compiled,
    ContestError,
    by_engine,
    compile_model,
    contest,
    contestants,
    fresh_starts,
    largest_error,
    ratio,
)
from dscc.bench import Result
from dscc.errors import DsccError

BASE = "onnxruntime"
METHOD = f"""\
One process per engine and thread count, taking turns, the others quiet; thread counts are set on every engine.
Times are medians of all runs, with quartiles; CPU is processor time over all threads. A ratio is an engine's time over
{BASE}'s in the neighbouring turn, median and quartiles; below 1 is faster than {BASE}. Errors are the largest
difference from {BASE}'s output, relative to that output's largest value. Peak memory is VmHWM of the process. Loading
is measured in new processes, files in the page cache: `load` includes checking all hashes of an artifact."""


@dataclass
class Row:
    """One engine on one model at one thread count."""

    model: str
    shape: str
    threads: int
    engine: str
    wall_ms: float
    wall_quartiles_ms: tuple[float, float]
    cpu_ms: float
    ratio_wall: tuple[float, float, float] | None
    ratio_cpu: tuple[float, float, float] | None
    error: float
    peak_bytes: int
    import_ms: float
    load_ms: float
    first_ms: float


@dataclass
class Race:
    """Everything that was measured, and what could not take part."""

    rows: list[Row] = field(default_factory=list)
    compiled: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


def row(name: str, result: Result, base: Result | None, starts: Sequence[Result]) -> Row:
    """The figures of one contestant; `base` is the reference engine at the same thread count."""
    wall = ratio(result, base, 0) if base else None
    cpu = ratio(result, base, 1) if base else None
    return Row(
        name,
        "; ".join("x".join(map(str, shape)) for shape in dict.fromkeys(models.lookup(name).shapes[0].values())),
        result.contestant.threads,
        result.contestant.engine,
        result.median_ms,
        result.spread_ms,
        result.median_cpu_ms,
        (wall.median, wall.low, wall.high) if wall else None,
        (cpu.median, cpu.low, cpu.high) if cpu else None,
        largest_error(result.outputs, base.outputs) if base else float("nan"),
        result.peak_bytes,
        *(statistics.median(getattr(start, key) for start in starts) for key in ("import_ms", "load_ms", "first_ms")),
    )


def run_model(name: str, args: argparse.Namespace, folder: Path, race: Race) -> None:
    """Compile, race and time the loading of one model; what fails is written down and left out."""
    artifact: Compiled | None = None
    if "dscc" in args.engines:
        try:
            artifact = compile_model(name, folder)
            race.compiled[name] = {
                "wall_s": artifact.wall_s,
                "size_bytes": artifact.size_bytes,
                "peak_bytes": artifact.peak_bytes,
                "command": artifact.command,
            }
        except ContestError as err:
            race.failures.append(str(err))
    path = artifact.path if artifact else None
    entrants = contestants(name, args.engines, path, args.threads)
    results = contest(entrants, name, rounds=args.rounds, turn_ms=args.turn_ms)
    race.failures += [f"model '{name}': {result.error}" for result in results if result.error]
    for threads in args.threads:
        able = by_engine(results, threads)
        starts = fresh_starts(name, list(able), path, args.starts, threads)
        for engine, result in able.items():
            good = [start for start in starts[engine] if not start.error]
            race.rows.append(row(name, result, able.get(BASE), good or [result]))


def spread(figures: tuple[float, float, float] | None) -> str:
    """`0.97 (0.95 to 1.01)`"""
    return f"{figures[0]:.2f} ({figures[1]:.2f} to {figures[2]:.2f})" if figures else "-"


def tables(race: Race) -> str:
    """The three tables of a race, and the list of what failed."""
    times = [
        [
            r.model,
            r.shape,
            str(r.threads),
            r.engine,
            f"{r.wall_ms:.2f} ({r.wall_quartiles_ms[0]:.2f} to {r.wall_quartiles_ms[1]:.2f})",
            f"{r.cpu_ms:.2f}",
            spread(r.ratio_wall) if r.engine != BASE else "-",
            spread(r.ratio_cpu) if r.engine != BASE else "-",
            f"{r.error:.1e}" if r.engine != BASE else "-",
        ]
        for r in race.rows
    ]
    starts = [
        [
            r.model,
            str(r.threads),
            r.engine,
            *(f"{v:.0f}" for v in (r.import_ms, r.load_ms, r.first_ms, r.import_ms + r.load_ms + r.first_ms)),
            f"{r.peak_bytes / 1e6:.0f}",
        ]
        for r in race.rows
    ]
    made = [
        [name, f"{c['wall_s']:.1f}", f"{c['size_bytes'] / 1e6:.1f}", f"{c['peak_bytes'] / 1e6:.0f}"]
        for name, c in race.compiled.items()
    ]
    head = ["model", "shape", "threads", "engine", "wall ms", "CPU ms", "ratio wall", "ratio CPU", "error"]
    parts = ["### Latency\n\n" + report.table(head, times)]
    head = ["model", "threads", "engine", "import ms", "load ms", "first run ms", "sum ms", "peak MB"]
    parts.append("### From a new process to the first result, and memory\n\n" + report.table(head, starts))
    if made:
        head = ["model", "compile s", "artifact MB", "compiler's peak MB"]
        parts.append("### Compiling, the whole command with empty caches\n\n" + report.table(head, made))
    if race.failures:
        parts.append("### What failed\n\n" + "\n".join(f"- {failure}" for failure in race.failures))
    return "\n\n".join(parts)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command's options; `all` threads are the cores that this process may use."""
    parser = argparse.ArgumentParser(description="Race dscc against its peers.")
    parser.add_argument("--models", type=lambda text: text.split(","), default=list(models.CORE))
    parser.add_argument("--engines", type=lambda text: text.split(","), default=["dscc", "onnxruntime", "openvino"])
    parser.add_argument("--threads", type=thread_counts, default=thread_counts("1,all"), help="as in 1,all")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--turn-ms", type=float, default=200.0)
    parser.add_argument("--starts", type=int, default=5, help="new processes that loading is measured in")
    parser.add_argument("--save", action="store_true", help="write RESULTS.md and results.json")
    return parser.parse_args(argv)


def thread_counts(text: str) -> list[int]:
    """`1,all` to numbers, without repetition."""
    cores = len(os.sched_getaffinity(0))
    return list(dict.fromkeys(cores if word == "all" else int(word) for word in text.split(",")))


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    started, place, race = time.time(), report.machine(), Race()
    with tempfile.TemporaryDirectory(prefix="dscc-race-") as folder:
        for name in args.models:
            print(f"{name} ...", file=sys.stderr, flush=True)
            try:
                run_model(name, args, Path(folder), race)
            except DsccError as err:
                race.failures.append(str(err))
    body = METHOD + "\n\n" + tables(race)
    text = report.section("Race", report.command_line("benchmarks.race"), started, place, body)
    print(text)
    if args.save:
        data = {"rows": [asdict(r) for r in race.rows], "compiled": race.compiled, "failures": race.failures}
        report.save("race", {**data, "machine": place}, text)
    return 1 if race.failures else 0


if __name__ == "__main__":
    sys.exit(main())
