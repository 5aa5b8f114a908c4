"""`dscc profile`: the time of every kernel of an artifact, beside what the machine could do at most."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dscc.runtime.profile import Call, Profiler, Run, flops

if TYPE_CHECKING:
    from dscc.artifact import Artifact
    from dscc.bench.peaks import Peaks

_WARM_UP = 2


@dataclass(frozen=True)
class Row:
    """A kernel's part of a run, the medians of all runs.

    Attributes:
        kernel, rule: the function's name, and the schedule rule that wrote it.
        calls: in one run.
        time_ms: of all calls of one run.
        flops: arithmetic operations of one run, None where they are not known.
        bytes: of all arguments of the calls of one run, weights as they are packed.
        nodes: of the model, as far as they are known.
    """

    kernel: str
    rule: str
    calls: int
    time_ms: float
    flops: int | None
    bytes: int
    nodes: tuple[str, ...]

    def roof(self, peaks: Peaks) -> tuple[float, str]:
        """The least time that the machine allows over the time that it took, and what bounds it: the nearer roof."""
        compute, memory = (self.flops or 0) / peaks.flops, self.bytes / peaks.bytes
        bound = "arithmetic" if compute > memory else "memory"
        return (max(compute, memory) * 1e3 / self.time_ms if self.time_ms else 0.0), bound


@dataclass(frozen=True)
class Profile:
    """What was measured.

    Attributes:
        rows: a row for every call, in order.
        total_ms: of a run without the instrument, with what the virtual machine and the allocator take: the median.
        run: the run whose time is the median one.
        device: what ran the kernels, as its driver says it; empty for a processor.
    """

    rows: tuple[Row, ...]
    total_ms: float
    run: Run
    device: str = ""


def profile(artifact: Artifact, feeds: Mapping[str, Any], threads: int, runs: int) -> Profile:
    """Run an artifact `runs` times and take the medians.

    Args:
        feeds: the inputs by name.
        threads: processor cores that its parallel loops may use.

    Raises:
        InputError: the inputs do not fit the model.
    """
    profiler = Profiler(artifact, threads)
    arrays = profiler.bind(feeds)
    for _ in range(_WARM_UP):
        profiler.run(arrays)
    done = sorted((profiler.run(arrays) for _ in range(runs)), key=lambda run: run.time_ns)
    median = done[(len(done) - 1) // 2]
    sources = _sources(artifact.manifest.kernels.get("calls", ()), median.calls)
    functions = artifact.manifest.kernels.get("functions", {})
    alike = [run for run in done if len(run.calls) == len(median.calls)]  # control flow may differ from run to run
    rows = []
    for number, (call, nodes) in enumerate(zip(median.calls, sources, strict=True)):
        function = functions[call.kernel]
        time_ns = statistics.median(run.calls[number].time_ns for run in alike)
        count = flops(function, call.sizes)
        rows.append(Row(call.kernel, function["rule"], 1, time_ns / 1e6, count, call.bytes, tuple(nodes)))
    return Profile(tuple(rows), median.time_ns / 1e6, median, profiler.device)


def by_kernel(rows: Sequence[Row]) -> list[Row]:
    """The calls of every kernel as one row, the longest first."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.kernel].append(row)
    merged = [
        Row(
            kernel=kernel,
            rule=calls[0].rule,
            calls=len(calls),
            time_ms=sum(call.time_ms for call in calls),
            flops=None if any(call.flops is None for call in calls) else sum(call.flops or 0 for call in calls),
            bytes=sum(call.bytes for call in calls),
            nodes=tuple(dict.fromkeys(node for call in calls for node in call.nodes)),
        )
        for kernel, calls in groups.items()
    ]
    return sorted(merged, key=lambda row: row.time_ms, reverse=True)


def _sources(recorded: Sequence[Sequence[Any]], calls: Sequence[Call]) -> list[Sequence[str]]:
    """The nodes behind every call. Where loops or branches make other calls than were written, those of the kernel."""
    if [kernel for kernel, _ in recorded] == [call.kernel for call in calls]:
        return [nodes for _, nodes in recorded]
    known: dict[str, list[str]] = defaultdict(list)
    for kernel, nodes in recorded:
        known[kernel] += nodes
    return [known[call.kernel] for call in calls]


def trace(found: Profile) -> dict[str, Any]:
    """One run in the Trace Event Format, which Perfetto and chrome://tracing show. The gaps between kernels are mostly
    the instrument's.
    """
    run = found.run
    events: list[dict[str, Any]] = [{"name": "thread_name", "ph": "M", "pid": 0, "tid": 0, "args": {"name": "kernels"}}]
    for call, row in zip(run.calls, found.rows, strict=True):
        facts = {"rule": row.rule, "nodes": ", ".join(row.nodes), "bytes": row.bytes, "flops": row.flops}
        sizes = {"arguments": " ".join("x".join(map(str, size)) or "scalar" for size in call.sizes)}
        events.append(
            {
                "name": call.kernel,
                "cat": row.rule,
                "ph": "X",
                "pid": 0,
                "tid": 0,
                "ts": call.start_ns / 1e3,
                "dur": call.time_ns / 1e3,
                "args": facts | sizes,
            }
        )
    return {"displayTimeUnit": "ms", "traceEvents": events}
