"""`dscc tune`: search for better choices of the schedule rules, by measuring kernels of a model where they run."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dscc.cli import flags, output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dscc.targets.base import Target
    from dscc.tune.search import Task
    from dscc.tune.workers import Runner


@click.command("tune", short_help="Search for faster kernels of a model.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="How long; 10 without --trials.")
@click.option("--trials", type=click.IntRange(min=1), help="How many candidates.")
@click.option("--rpc", metavar="HOST:PORT", help="Tracker of TVM's RPC, whose machine measures.")
@click.option("--key", default="default", show_default=True, help="What that machine is called at the tracker.")
@click.option("--ray", metavar="ADDRESS", help="Ray cluster that builds candidates; 'auto' finds a running one.")
@flags.feed_flags
@flags.compile_flags()
def command(
    model: Path,
    minutes: float | None,
    trials: int | None,
    rpc: str | None,
    key: str,
    ray: str | None,
    dims: Mapping[str, int],
    seed: int,
    threads: int | None,
    **values: Any,
) -> None:
    """Try other choices for the kernels of MODEL, and keep what was measured in the file --db.

    With --rpc, candidates are built here and measured on the machine that 'dscc serve' lends, or on its device.

    Every measurement is kept at once: a search that is interrupted goes on where it stopped. A candidate counts if its
    result is that of the default; it is used, by 'dscc compile --db', if it was faster twice. The kernels are measured
    with the sizes that --input and --dim give.
    """
    from dscc import compiler, feeds
    from dscc.artifact.host import cores
    from dscc.cli.progress import Stages
    from dscc.errors import TuneError
    from dscc.tune import database, session
    from dscc.tune import search as searching
    from dscc.tune.workers import LocalBuilder

    options = flags.compile_options(values)
    if options.db is None:
        raise TuneError("tuning needs a file for what it measures; give --db FILE, which 'dscc compile' then takes")
    threads = threads or cores()
    target = compiler.target_of(options)
    plain = dataclasses.replace(options, db=None, target=str(target))
    reason = session.unfit(target)
    if reason and rpc is None:
        raise TuneError(f"kernels for '{target}' cannot be measured here: {reason}; give --rpc HOST:PORT and --key")
    runner, machine = _runner(target, rpc, key, threads)
    with Stages(f"compile {model.name}" + (" for this machine" if reason else "")) as stages:
        # Which kernels are called, and with which sizes, is seen on this machine in any case.
        artifact = (session.here if reason else compiler.compile)(model, plain, progress=stages)
    given = feeds.random_feeds(artifact.load(1).get_inputs(), dims, seed)
    found = database.Database(options.db, database.key(target, options.precision), machine)
    tasks = session.tasks(model, plain, given, artifact, threads, found, elsewhere=bool(reason))
    if ray:
        from dscc.tune.remote import RayBuilder
    builder = RayBuilder(ray) if ray else LocalBuilder(options.jobs or cores())
    limit = _Limit(minutes, trials)
    begin, count = time.monotonic(), 0
    try:
        with _Progress(tasks, limit.text) as progress:
            steps = searching.search(tasks, found, builder, runner, lambda: limit.holds(begin, count), seed)
            for step in steps:
                count += 1
                progress.show(step, count, time.monotonic() - begin)
    except KeyboardInterrupt:
        click.echo("dscc: interrupted; what was measured is kept", err=True)
    finally:
        builder.close()
        runner.close()
    _report(tasks, count, options.db)


def _runner(target: Target, rpc: str | None, key: str, threads: int) -> tuple[Runner, str]:
    """What measures, and the name of the machine or the device that it measures on."""
    from dscc.tune import session
    from dscc.tune.workers import LocalRunner

    if rpc is None:
        return LocalRunner(threads), session.measured_on(target)
    from dscc.targets.device import DeviceTarget
    from dscc.tune.remote import RpcRunner

    runner = RpcRunner(rpc, key, target.device if isinstance(target, DeviceTarget) else None)
    return runner, runner.machine


class _Limit:
    """When the search ends."""

    def __init__(self, minutes: float | None, trials: int | None):
        self._seconds = 60 * (minutes or 10.0) if minutes or not trials else float("inf")
        self._trials = trials or 1 << 62
        self.text = f"of {trials} trials" if trials else f"of {minutes or 10:g} min"

    def holds(self, begin: float, count: int) -> bool:
        return count < self._trials and time.monotonic() - begin < self._seconds


class _Progress:
    """One line on standard error: kernel, best so far, gain of the whole model, time."""

    def __init__(self, tasks: Sequence[Task], limit: str):
        from rich.console import Console
        from rich.status import Status

        self._tasks, self._limit = tasks, limit
        console = Console(stderr=True, highlight=False)
        self._status = Status("build", console=console) if console.is_terminal else None
        self._console = console
        self._shown = 0.0

    def __enter__(self) -> _Progress:
        if self._status:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status:
            self._status.stop()

    def show(self, step: Any, count: int, seconds: float) -> None:
        task, best = step.task, step.task.best
        before, now = total(self._tasks)
        gain = f"{before / now - 1:.1%}" if now else "0.0%"
        ratio = f"{1 / best.ratio:.2f}x" if best else "1.00x"
        text = (
            f"{task.kernel.name}: {ratio} after {len(task.trials)}; kernels {gain} faster; "
            f"{count} trials, {seconds / 60:.1f} min {self._limit}"
        )
        if self._status:
            self._status.update(text)
        elif seconds - self._shown >= 30:
            self._shown = seconds
            self._console.print(text, soft_wrap=True)


def total(tasks: Sequence[Task]) -> tuple[float, float]:
    """Milliseconds of all kernels in a run: with the defaults, and with the best that was found."""
    return sum(task.time_ms for task in tasks), sum(task.now_ms for task in tasks)


def _report(tasks: Sequence[Task], count: int, db: Path) -> None:
    rows = []
    for task in tasks:
        best = task.best
        chosen = ", ".join(f"{name} {_value(value)}" for name, value in best.choices.items()) if best else ""
        tuned = output.milliseconds(task.now_ms) if best else ""
        rows.append([task.kernel.name, output.milliseconds(task.time_ms), tuned, str(len(task.trials)), chosen])
    output.table(["kernel", "default", "tuned", "trials", "choices"], rows)
    before, now = total(tasks)
    gain = f"{before / now - 1:.1%}" if now else "0.0%"
    print(f"{count} trials; kernels {gain} faster; use it: dscc compile MODEL --db {db}")


def _value(value: object) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
