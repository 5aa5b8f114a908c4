"""`dscc bench`: a model against other engines, in turns."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dscc.cli import flags, output
from dscc.cli.model import is_artifact, open_artifact
from dscc.cli.progress import Stages

if TYPE_CHECKING:
    from dscc.bench import Result


@click.command("bench", short_help="Race a model against other engines.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--vs", default="", metavar="ENGINE,...", help="Other engines: onnxruntime, openvino, iree, tvm.")
@click.option("--against", type=click.Path(path_type=Path), help="The ONNX file that the other engines run.")
@click.option("--input", "inputs", metavar="NAME=@FILE.npy", multiple=True, help="An input; random ones otherwise.")
@flags.feed_flags
@click.option(
    "--rounds", type=click.IntRange(min=1), default=15, show_default=True, help="Turns that each engine gets."
)
@flags.compile_flags(shapes=False)
def command(
    model: Path,
    vs: str,
    against: Path | None,
    inputs: tuple[str, ...],
    dims: Mapping[str, int],
    seed: int,
    threads: int | None,
    rounds: int,
    **values: Any,
) -> None:
    """Measure MODEL, an artifact or an ONNX file: time, memory and loading, with one thread and with all.

    Each engine runs in a process of its own; they take turns, the others quiet. --threads replaces both thread counts.
    """
    from dscc import bench, feeds
    from dscc.errors import InputError

    peers = [name for name in vs.split(",") if name]
    for name in peers:
        bench.check_engine(name, reads=".onnx")
    if against is None and not is_artifact(model):
        against = model
    if peers and against is None:
        raise InputError(f"'{model}' is an artifact, which other engines cannot run; give --against MODEL.onnx")
    cores = len(os.sched_getaffinity(0))
    counts = [threads] if threads else sorted({1, cores})
    artifact = open_artifact(model, flags.compile_options(values))
    with tempfile.TemporaryDirectory(prefix="dscc-bench-") as folder:
        path = model
        if not is_artifact(model):
            path = Path(folder) / "model.dscc"
            artifact.save(path)
        given = feeds.read_feeds(inputs)
        missing = [info for info in artifact.load(1).get_inputs() if info.name not in given]
        given |= feeds.random_feeds(missing, dims, seed)
        contestants = [bench.Contestant("dscc", path, count) for count in counts]
        contestants += [bench.Contestant(name, against, count) for name in peers for count in counts if against]
        with Stages(f"bench {model.name}") as stages:
            results = bench.race(contestants, given, rounds, stages)
    _print(results)
    failed = [result for result in results if result.error]
    if failed:
        raise InputError(f"engine '{failed[0].contestant.engine}' could not take part: {failed[0].error}")


def _print(results: list[Result]) -> None:
    """Medians with quartiles; the ratio is another engine's time over ours, so that above 1 we are the faster one."""
    ours = {result.contestant.threads: result for result in results if result.contestant.engine == "dscc"}
    rows = []
    for result in results:
        if result.error:
            continue
        low, high = result.spread_ms
        own = ours.get(result.contestant.threads)
        ratio = f"{result.median_ms / own.median_ms:.2f}" if own and own.wall_ms else ""
        rows.append(
            [
                result.contestant.engine,
                str(result.contestant.threads),
                output.milliseconds(result.median_ms),
                f"{output.milliseconds(low)} to {output.milliseconds(high)}",
                ratio,
                output.milliseconds(result.load_ms),
                output.milliseconds(result.first_ms),
                output.size(result.peak_bytes),
                str(len(result.wall_ms)),
            ]
        )
    headers = ["engine", "threads", "median", "quartiles", "x dscc", "load", "first run", "peak memory", "runs"]
    output.table(headers, rows)
