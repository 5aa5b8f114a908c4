"""The map: from a model file to an artifact, one call per stage."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dscc import codegen, effort, fallback, frontends, library, ordered_symbols, pipeline, record, selfcheck, targets
from dscc.artifact import Artifact
from dscc.options import CompileOptions
from dscc.passes.base import PassContext
from dscc.passes.lower.lift_constants import lift_constants
from dscc.pipeline import Pipeline
from dscc.plugins import registry
from dscc.tune import database

if TYPE_CHECKING:
    import tvm

    from dscc.targets.base import Target

Progress = Callable[[str], None]
ordered_symbols.install()  # before anything is read
_turn = threading.RLock()  # TVM 0.27 keeps the functions that are being built in one list of the process


@dataclass(frozen=True)
class Optimized:
    """A module after its passes, and what they said; `frontend` is the name of the one that read it."""

    mod: tvm.IRModule
    frontend: str
    pipeline: Pipeline
    ctx: PassContext


def compile(
    model: Path | str | Any, options: CompileOptions | None = None, *, progress: Progress | None = None, **fields: Any
) -> Artifact:
    """Compile a model for one target. Calls from several threads take turns.

    Args:
        model: path of a model file, or the in-memory model of a format (`onnx.ModelProto`).
        options: what is asked for; or give the fields of `CompileOptions` as keywords.
        progress: called with the name of every stage as it begins.

    Raises:
        DsccError: the model, the pipeline text or the target cannot be used; see dscc/errors.py.
    """
    progress = progress or (lambda stage: None)
    options = options or CompileOptions(**fields)
    with _turn:
        return finish(optimize(model, options, lowering(options), progress), options.jobs, progress)


def finish(done: Optimized, jobs: int, progress: Progress) -> Artifact:
    """The artifact of a scheduled module.

    Args:
        jobs: processor cores that may be used; 0 means all.
    """
    lifted = lift_constants(done.mod)
    with tempfile.TemporaryDirectory(prefix="dscc-") as folder:
        progress("generate code")
        objects = codegen.build(lifted.mod, done.ctx.target, Path(folder), jobs)
        progress("link")
        model_so = Path(folder) / "model.so"
        done.ctx.target.link(objects, model_so, library.sources(lifted.mod))
        progress("pack")
        manifest = record.manifest(lifted, done.frontend, done.pipeline, done.ctx)
        elsewhere = [region.model for region in fallback.of(lifted.mod)]
        artifact = Artifact.build(model_so, lifted.weights, manifest, elsewhere)
    progress("check")
    return selfcheck.record(artifact, isolated=not effort.is_bounded(lifted.mod))


def optimize(model: Path | str | Any, options: CompileOptions, then: str, progress: Progress) -> Optimized:
    """Read a model and run the passes that `options` ask for, then those of the pipeline text `then`."""
    target = target_of(options)
    ctx = PassContext(target, records=_records(options, target))
    asked, after = graph_passes(options), pipeline.parse(then, registry().passes)
    frontend = frontends.find(model)
    progress("read")
    mod = frontend.load(Path(model) if isinstance(model, str) else model, options)
    passes = Pipeline((*asked.passes, *after.passes))
    return Optimized(passes.run(mod, ctx, dump=options.dump, progress=progress), frontend.name, passes, ctx)


def _records(options: CompileOptions, target: Target) -> Callable[[Any, frozenset[int]], Mapping[str, Any]] | None:
    return None if options.db is None else database.open_existing(options.db, target, options.precision).best


def target_of(options: CompileOptions) -> Target:
    """The target, in the precision that is asked for.

    Raises:
        TargetError: there is none of that name, or it does not compute in that precision.
    """
    return targets.resolve(options.target).in_precision(options.precision)


def lowering(options: CompileOptions) -> str:
    """What every module goes through after the passes of the preset or of `--passes`, as pipeline text.

    Raises:
        TargetError: the target does not compute in the precision that is asked for.
    """
    small = str(options.small).lower()
    return ",".join([*kernel_passes(options), f"schedule-kernels{{small={small}}}"])


def kernel_passes(options: CompileOptions) -> list[str]:
    """What makes kernels of operators, which the rules of the target then schedule.

    Raises:
        TargetError: the target does not compute in the precision that is asked for.
    """
    target = target_of(options)
    lowered = {"fp16": ["lower-precision"], "bf16": ["lower-precision{to=bfloat16}"]}.get(options.precision, [])
    return [
        *lowered,
        *target.lowering,
        *("fuse-integer-casts", "fuse-weight-casts", "legalize-operators", "fuse-operators"),
    ]


def graph_passes(options: CompileOptions) -> Pipeline:
    """The passes of `--passes`, or of the preset of `-O`."""
    known = registry().passes
    return (
        pipeline.preset(options.opt_level, known) if options.passes is None else pipeline.parse(options.passes, known)
    )
