"""`dscc profile`: where the time of a run goes, kernel by kernel, and how near the machine's limits that is."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dscc.cli import flags, output
from dscc.cli.model import open_artifact

if TYPE_CHECKING:
    from dscc.bench.peaks import Peaks
    from dscc.profile import Profile, Row


@click.command("profile", short_help="Show where the time of a run goes.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--input", "inputs", metavar="NAME=@FILE.npy", multiple=True, help="An input; @FILE.npz gives several.")
@flags.feed_flags
@click.option("--runs", type=click.IntRange(min=1), default=10, show_default=True, help="Of which medians are taken.")
@click.option("--top", type=click.IntRange(min=1), help="Show only the longest.")
@click.option("--calls", "by_call", is_flag=True, help="A line for every call, in order, instead of every kernel.")
@click.option("--trace", "trace_file", type=click.Path(path_type=Path), help="File for Perfetto (ui.perfetto.dev).")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="File for the same numbers.")
@flags.compile_flags(shapes=False)
def command(
    model: Path,
    inputs: tuple[str, ...],
    dims: Mapping[str, int],
    seed: int,
    threads: int | None,
    runs: int,
    top: int | None,
    by_call: bool,
    trace_file: Path | None,
    json_file: Path | None,
    **values: Any,
) -> None:
    """Run MODEL, an artifact or a model file, and show the time of every kernel.

    Beside it: arithmetic operations, bytes of all arguments, and which part of the nearer of the machine's two limits
    that is, measured in the same run: operations from registers, bytes from memory. More than 100 % of memory means
    that the data was in cache. Inputs that are not given are random.
    """
    from dscc import feeds, files, targets
    from dscc import profile as profiling
    from dscc.artifact import store
    from dscc.artifact.host import cores
    from dscc.bench import peaks

    for file in filter(None, (trace_file, json_file)):
        files.check_writable(file)
    given = feeds.read_feeds(inputs)
    artifact = open_artifact(model, flags.compile_options(values))
    missing = [info for info in artifact.load(1).get_inputs() if info.name not in given]
    given = {**given, **feeds.random_feeds(missing, dims, seed)}
    threads = threads or cores()
    with flags.guessed(missing, dims):
        found = profiling.profile(artifact, given, threads, runs)
    # What a device can do at most is not measured: its rates stand alone.
    roofs = None if artifact.manifest.device else peaks.measure(targets.resolve(artifact.manifest.target), threads)
    rows = found.rows if by_call else profiling.by_kernel(found.rows)
    if trace_file:
        store.write(trace_file, [json.dumps(profiling.trace(found)).encode()])
    if json_file:
        store.write(json_file, [json.dumps(_record(found, rows, roofs, threads), indent=1).encode()])
    longest = sorted(rows, key=lambda row: row.time_ms, reverse=True)[:top]
    lines = [_line(row, found.total_ms, roofs) for row in rows if row in longest]
    output.table(["kernel", "rule", "calls", "time", "share", "GFLOP/s", "GB/s", "of limit", "from"], lines)
    rest = max(0.0, found.total_ms - sum(row.time_ms for row in rows))
    limits = f"limits: {roofs.flops / 1e9:.0f} GFLOP/s, {roofs.bytes / 1e9:.1f} GB/s" if roofs else "limits: not known"
    print(
        f"{output.milliseconds(found.total_ms)} a run, {output.milliseconds(rest)} of it between kernels; "
        f"{found.device or output.count(threads, 'thread')}; {limits}"
    )


def _line(row: Row, total_ms: float, roofs: Peaks | None) -> list[str]:
    share, bound = row.roof(roofs) if roofs else (0.0, "")
    seconds = row.time_ms / 1e3 or float("inf")
    rate = "" if row.flops is None else f"{row.flops / seconds / 1e9:.1f}"
    return [
        row.kernel,
        row.rule,
        str(row.calls),
        output.milliseconds(row.time_ms),
        f"{row.time_ms / total_ms:.1%}",
        rate,
        f"{row.bytes / seconds / 1e9:.1f}",
        f"{share:.0%} {bound}" if roofs else "",
        ", ".join(row.nodes[:4]) + (f", {len(row.nodes) - 4} more" if len(row.nodes) > 4 else ""),
    ]


def _record(found: Profile, rows: Sequence[Row], roofs: Peaks | None, threads: int) -> dict[str, Any]:
    return {
        "total_ms": found.total_ms,
        "threads": threads,
        "device": found.device,
        "peak_flops": roofs.flops if roofs else None,
        "peak_bytes_per_s": roofs.bytes if roofs else None,
        "kernels": [dataclasses.asdict(row) for row in rows],
    }
