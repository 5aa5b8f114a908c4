"""Tuning a model: which kernels it has, with which sizes they are called and for how long."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dscc import compiler, targets
from dscc.artifact import Artifact, host
from dscc.errors import ArtifactError
from dscc.options import CompileOptions
from dscc.passes.lower.schedule_kernels import ScheduleKernels, unscheduled
from dscc.profile import profile
from dscc.runtime import device
from dscc.targets.base import Target
from dscc.targets.device import DeviceTarget
from dscc.tune.database import Database
from dscc.tune.kernel import Kernel, Sizes
from dscc.tune.search import Task

_RUNS = 5


def unfit(target: Target) -> str | None:
    """Why the kernels of a target cannot be measured on this machine, or None if they can."""
    reason = host.lacking(target.machine_name, target.features, str(target))
    if reason is None and isinstance(target, DeviceTarget):
        try:
            device.opened(target.device)
        except ArtifactError as err:
            return str(err)
    return reason


def measured_on(target: Target) -> str:
    """The device or the processor of this machine that runs the kernels of a target, which is not `unfit`."""
    return device.opened(target.device).name if isinstance(target, DeviceTarget) else host.processor()


def here(model: Path | Any, options: CompileOptions, progress: compiler.Progress) -> Artifact:
    """The kernels that the target of `options` has, scheduled and compiled for this machine instead.

    Which are called how often and with which sizes is the same there.
    """
    plain = dataclasses.replace(options, db=None)
    done = compiler.optimize(model, plain, ",".join(compiler.kernel_passes(plain)), progress)
    done.ctx.target = targets.resolve(None)
    scheduled = ScheduleKernels(plain.small).run(done.mod, done.ctx)
    return compiler.finish(dataclasses.replace(done, mod=scheduled), plain.jobs, progress)


def tasks(
    model: Path | Any,
    options: CompileOptions,
    feeds: Mapping[str, Any],
    artifact: Artifact,
    threads: int,
    database: Database,
    elsewhere: bool = False,
) -> list[Task]:
    """The kernels of a model, the longest first, with what the database knows of them.

    Args:
        options: with the target that is tuned for.
        feeds: inputs by name, of the sizes to tune for.
        artifact: the model compiled with the defaults, by `here` where the target cannot run on this machine.
        elsewhere: whether candidates are measured on another machine, so that times seen here say little.
    """
    found = profile(artifact, feeds, threads, _RUNS)
    times: dict[str, dict[Sizes, float]] = defaultdict(lambda: defaultdict(float))
    for call, row in zip(found.run.calls, found.rows, strict=True):
        times[row.kernel][call.sizes] += row.time_ms
    calls = Counter(row.kernel for row in found.rows)
    plain = dataclasses.replace(options, db=None)
    passes = ",".join(compiler.kernel_passes(plain))
    optimized = compiler.optimize(model, plain, passes, lambda stage: None)
    kernels, target = unscheduled(optimized.mod), str(optimized.ctx.target)
    made = []
    for name, by_sizes in times.items():
        if name not in kernels:
            continue
        func, constants = kernels[name]
        if func.attrs and func.attrs.get("tirx.is_scheduled", False):
            continue
        sizes = max(by_sizes, key=by_sizes.__getitem__)
        kernel = Kernel.of(name, func, constants, sizes, target, options.precision)
        number = database.kernel(func, constants)
        task = Task(kernel, number, sum(by_sizes.values()), database.trials(number, kernel.sizes))
        task.calls = calls[name] if elsewhere else 0
        made.append(task)
    return sorted(made, key=lambda task: task.time_ms, reverse=True)
