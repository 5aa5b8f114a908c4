"""What a race has shown: its records, who is the best peer of a model, and the tables."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import models, report
from dscc.bench import Result

BASE = "onnxruntime"
FLOAT_ERROR, ROUNDED_ERROR = 1e-3, 5e-2
METHOD = f"""\
One process per engine and thread count, taking turns, the others stopped; thread counts are set on every engine. dscc,
{BASE} and openvino run models of symbolic dimensions; iree, tvm and inductor are compiled for the very shapes (inductor
from torch's program, where the model is an export of torch). Times are medians of all runs in milliseconds. The best
peer is the one with the least time among those whose outputs are right: within {FLOAT_ERROR} of {BASE}'s, relative to
the largest ({ROUNDED_ERROR} where activations are rounded to 8 bits on the way). `best / ours` is
the median of the ratios of neighbouring turns: above 1, dscc is the faster one. Peak memory is VmHWM of the process.
Loading is measured in new processes, files in the page cache; dscc's includes checking all hashes of the artifact."""


@dataclass
class Entry:
    """One engine on one case at one thread count; `turns` by round: wall and CPU time. `starts_ms`: import, load, first
    run and their sum, medians over new processes.
    """

    engine: str
    threads: int
    wall_ms: float
    wall_quartiles_ms: tuple[float, float]
    cpu_ms: float
    runs: int
    turns: Mapping[str, tuple[float, float]]
    error: float | None
    peak_bytes: int
    import_ms: float
    load_ms: float
    first_ms: float
    starts_ms: list[float] = field(default_factory=list)


@dataclass
class Record:
    """All of one case. `absent`: engines that did not take part, and why; `kernels`: dscc's profile by thread count."""

    case: str
    shape: str
    entries: list[Entry] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    compiled: dict[str, Any] = field(default_factory=dict)
    kernels: dict[int, list[dict[str, Any]]] = field(default_factory=dict)


def read(path: Path) -> Record:
    """A record as it was kept."""
    data = json.loads(path.read_text())
    data["entries"] = [Entry(**entry) for entry in data["entries"]]
    data["kernels"] = {int(threads): rows for threads, rows in data["kernels"].items()}
    return Record(**data)


def put_starts(record: Record, engine: str, threads: int, starts: Sequence[Result]) -> None:
    """Keep the medians of starts in new processes."""
    for entry in record.entries:
        if (entry.engine, entry.threads) == (engine, threads) and starts:
            parts = [[start.import_ms, start.load_ms, start.first_ms] for start in starts]
            entry.starts_ms = [
                *(statistics.median(column) for column in zip(*parts, strict=True)),
                statistics.median(sum(part) for part in parts),
            ]


def right(record: Record, entry: Entry) -> bool:
    """Whether an engine's outputs are those of the reference."""
    name, _ = models.case(record.case)
    limit = ROUNDED_ERROR if name in models.ROUNDED else FLOAT_ERROR
    return entry.error is not None and entry.error <= limit


def good(record: Record) -> bool:
    """Whether dscc took part, and rightly."""
    ours = [entry for entry in record.entries if entry.engine == "dscc"]
    return "dscc" not in record.absent and all(right(record, entry) for entry in ours)


def threads_of(records: Iterable[Record]) -> list[int]:
    return sorted({entry.threads for record in records for entry in record.entries})


def at(record: Record, threads: int) -> dict[str, Entry]:
    """The entries at one thread count by engine."""
    return {entry.engine: entry for entry in record.entries if entry.threads == threads}


def best_peer(record: Record, threads: int) -> Entry | None:
    """The fastest of the others that are right."""
    peers = [entry for name, entry in at(record, threads).items() if name != "dscc" and right(record, entry)]
    return min(peers, key=lambda entry: entry.wall_ms, default=None)


def lead(record: Record, threads: int) -> float | None:
    """Best peer's time over dscc's: the median of the ratios of neighbouring turns."""
    ours, peer = at(record, threads).get("dscc"), best_peer(record, threads)
    if ours is None or peer is None:
        return None
    ratios = [turn[0] / ours.turns[i][0] for i, turn in peer.turns.items() if i in ours.turns]
    return statistics.median(ratios) if ratios else peer.wall_ms / ours.wall_ms


def mean_lead(records: Iterable[Record], threads: int) -> float:
    """Geometric mean over the models that have a figure."""
    leads = [value for record in records if (value := lead(record, threads))]
    return math.exp(statistics.fmean(map(math.log, leads))) if leads else math.nan


def number(value: float) -> str:
    """Milliseconds, with three digits that say something."""
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def page(records: Sequence[Record], peaks: Mapping[str, Mapping[str, float]]) -> str:
    """Everything that was measured, as Markdown."""
    counts = threads_of(records)
    parts = [METHOD, "![best peer's time over dscc's](race.png)", summary(records, counts, peaks)]
    parts += [f"### {plural(count)}\n\n" + latency(records, count) for count in counts]
    parts.append("### From a new process to the first result, and memory\n\n" + starts(records, counts))
    parts.append("### Compiling, the whole command with empty caches\n\n" + compiling(records))
    parts.append("### Kernels that take the most time\n\n" + hot(records, peaks))
    if any(record.absent for record in records):
        parts.append("### Who could not take part\n\n" + absent(records))
    return "\n\n".join(part for part in parts if part)


def plural(threads: int) -> str:
    return "One thread" if threads == 1 else f"{threads} threads"


def summary(records: Sequence[Record], counts: Sequence[int], peaks: Mapping[str, Mapping[str, float]]) -> str:
    """A line for each thread count."""
    lines = []
    for count in counts:
        leads = sorted((value, record.case) for record in records if (value := lead(record, count)))
        behind = [f"{case} {value:.2f}" for value, case in leads if value < 0.95]
        roof = peaks.get(str(count), {})
        limits = f"; peaks {roof['flops'] / 1e9:.0f} GFLOP/s, {roof['bytes'] / 1e9:.1f} GB/s" if roof else ""
        mean = f"geometric mean of best / ours {mean_lead(records, count):.2f} over {len(leads)} models"
        lines.append(f"- {plural(count)}: {mean}, below 0.95: {', '.join(behind) or 'none'}{limits}")
    return "\n".join(lines)


def latency(records: Sequence[Record], threads: int) -> str:
    """The times of all engines at one thread count."""
    engines = sorted({entry.engine for record in records for entry in record.entries} - {"dscc"}, key=order)
    rows = []
    for record in records:
        found, peer = at(record, threads), best_peer(record, threads)
        if not found:
            continue
        times = [mark(record, found.get(engine)) for engine in ("dscc", *engines)]
        value = lead(record, threads)
        ours = found.get("dscc")
        spread = "-" if ours is None else "{} to {}".format(*map(number, ours.wall_quartiles_ms))
        error = "-" if ours is None or ours.error is None else f"{ours.error:.0e}"
        rows.append(
            [record.case, record.shape, times[0], spread, *times[1:], peer.engine if peer else "-"]
            + [f"{value:.2f}" if value else "-", error]
        )
    return report.table(["model", "shape", "dscc", "quartiles", *engines, "best peer", "best / ours", "error"], rows)


def order(engine: str) -> int:
    from dscc.bench.ahead import ENGINES

    return list(ENGINES).index(engine)


def mark(record: Record, entry: Entry | None) -> str:
    """A time, or why there is none that counts."""
    if entry is None:
        return "-"
    return number(entry.wall_ms) if right(record, entry) else f"wrong by {entry.error or math.nan:.0e}"


def starts(records: Sequence[Record], counts: Sequence[int]) -> str:
    rows = []
    for record in records:
        for count in counts:
            found = at(record, count)
            for engine in ("dscc", BASE):
                if engine in found and (entry := found[engine]).starts_ms:
                    times = [f"{value:.0f}" for value in entry.starts_ms]
                    rows.append([record.case, str(count), engine, *times, f"{entry.peak_bytes / 1e6:.0f}"])
    return report.table(["model", "threads", "engine", "import ms", "load ms", "first ms", "sum ms", "peak MB"], rows)


def compiling(records: Sequence[Record]) -> str:
    made = [(record.case, record.compiled) for record in records if "wall_s" in record.compiled]
    rows = [
        [case, f"{c['wall_s']:.1f}", f"{c['size_bytes'] / 1e6:.1f}", f"{c['peak_bytes'] / 1e6:.0f}"] for case, c in made
    ]
    return report.table(["model", "seconds", "artifact MB", "compiler's peak MB"], rows)


def losses(
    rows: Sequence[Mapping[str, Any]], roof: Mapping[str, float]
) -> list[tuple[float, float, Mapping[str, Any]]]:
    """The kernels by how much time they take beyond what the nearer roof allows: (that time in ms, fraction of the
    roof, row).
    """
    found = []
    for row in rows:
        least_ms = 1e3 * max((row["flops"] or 0) / roof["flops"], row["bytes"] / roof["bytes"])
        found.append((row["time_ms"] - least_ms, least_ms / row["time_ms"] if row["time_ms"] else 0.0, row))
    return sorted(found, key=lambda item: item[0], reverse=True)


def hot(records: Sequence[Record], peaks: Mapping[str, Mapping[str, float]], most: int = 5) -> str:
    """The kernels that lose the most against the machine's roofs, of every model at one thread."""
    rows = []
    for record in records:
        for threads in sorted(record.kernels)[:1]:
            for loss, share, row in losses(record.kernels[threads], peaks[str(threads)])[:most]:
                rows.append([record.case, *kernel_cells(row), f"{share:.0%}", number(max(loss, 0.0))])
    heads = ["model", "kernel", "rule", "calls", "ms", "GFLOP/s", "GB/s", "of roof", "above roof ms"]
    return report.table(heads, rows)


def kernel_cells(row: Mapping[str, Any]) -> list[str]:
    seconds = row["time_ms"] / 1e3 or math.inf
    flops = "-" if row["flops"] is None else f"{row['flops'] / seconds / 1e9:.1f}"
    moved = f"{row['bytes'] / seconds / 1e9:.1f}"
    return [row["kernel"], row["rule"], str(row["calls"]), number(row["time_ms"]), flops, moved]


def absent(records: Sequence[Record]) -> str:
    """Engines and reasons, models with the same reason in one line."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for record in records:
        for engine, reason in record.absent.items():
            text = reason.removeprefix(f"{engine}: ")
            reasons.setdefault((engine, text[:200]), []).append(record.case)
    return "\n".join(f"- {engine}, {', '.join(cases)}: {reason}" for (engine, reason), cases in reasons.items())
