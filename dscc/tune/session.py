"""Tuning a model: which kernels it has, with which sizes they are called and for how long."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dscc import compiler
from dscc.artifact import Artifact
from dscc.options import CompileOptions
from dscc.passes.lower.schedule_kernels import unscheduled
from dscc.profile import profile
from dscc.tune.database import Database
from dscc.tune.kernel import Kernel, Sizes
from dscc.tune.search import Task

_RUNS = 5


def tasks(
    model: Path | Any,
    options: CompileOptions,
    feeds: Mapping[str, Any],
    artifact: Artifact,
    threads: int,
    database: Database,
) -> list[Task]:
    """The kernels of a model, the longest first, with what the database knows of them.

    Args:
        options: with the target that is tuned for.
        feeds: inputs by name, of the sizes to tune for.
        artifact: the model compiled with the defaults, for this machine where the target is another.
    """
    found = profile(artifact, feeds, threads, _RUNS)
    times: dict[str, dict[Sizes, float]] = defaultdict(lambda: defaultdict(float))
    for call, row in zip(found.run.calls, found.rows, strict=True):
        times[row.kernel][call.sizes] += row.time_ms
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
        kernel = Kernel.of(name, func, constants, sizes, target)
        number = database.kernel(func, constants)
        made.append(Task(kernel, number, sum(by_sizes.values()), database.trials(number, kernel.sizes)))
    return sorted(made, key=lambda task: task.time_ms, reverse=True)
