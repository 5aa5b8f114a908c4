"""Measure everything that dscc promises about real models: `python -m benchmarks.acceptance`.

One line for every promise and model: what was measured, the figure, the goal, and whether it is reached. The exit
status is 1 if one is not. Without --save nothing is written.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks import models, references, report
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
from dscc.artifact import Artifact
from dscc.bench import Result
from dscc.errors import DsccError
from dscc.verify import TOLERANCE

ENGINES = ("dscc", "onnxruntime")
MOST_TIMES = 1.25  # onnxruntime's time at one thread
TIMED_COMPILE, COMPILE_S = "resnet50", 15.0
LOAD, MEMORY = 0.5, 0.9  # of what onnxruntime takes
GROWTH, FRAME_BYTES = 1.02, 1e6  # of the artifact over its weights as packed
METHOD = f"""\
Ratios are medians (quartiles) over neighbouring turns of fresh processes at one thread, CPU time beside wall time; the
goal is on wall time. Loading is the median over new processes, hashes checked, with the engine's import and without.
Peak memory is VmHWM of a process that loads the model and runs it. Errors are relative to the largest output, the worst
of all shapes; the goal is {TOLERANCE:.0e}, and for models with integer weights what onnxruntime shows against the
reference evaluator of onnx. onnxruntime gets the same file, weights taken out of its inputs so that it folds them."""


@dataclass(frozen=True)
class Check:
    """One promise on one model. `reached` is None for what is only reported."""

    model: str
    promise: str
    figure: str
    goal: str
    reached: bool | None

    def __str__(self) -> str:
        verdict = {True: "ok  ", False: "FAIL", None: "    "}[self.reached]
        return f"{verdict} {self.model}: {self.promise}: {self.figure} (goal: {self.goal})"


def all_checks(name: str, folder: Path, rounds: int, starts: int) -> Iterator[Check]:
    """Every promise about the model, without those on time if there are no `rounds`; what cannot be measured at all is
    a promise that is not kept.
    """
    try:
        yield from checks(name, folder, rounds, starts)
    except DsccError as err:
        yield Check(name, "can be measured", str(err), "no error", False)


def checks(name: str, folder: Path, rounds: int, starts: int) -> Iterator[Check]:
    """Every promise about the model; the rest is left out once it does not compile."""
    try:
        compiled = compile_model(name, folder)
    except ContestError as err:
        yield Check(name, "compiles, dimensions symbolic", str(err), "compiles", False)
        return
    yield symbolic(name, compiled)
    yield native(name, compiled)
    if name == TIMED_COMPILE:
        yield Check(
            name,
            "compile, whole command, empty caches",
            f"{compiled.wall_s:.1f} s",
            f"< {COMPILE_S:.0f} s",
            compiled.wall_s < COMPILE_S,
        )
    yield size(name, compiled)
    yield from agreement(name, compiled)
    if not rounds:
        return
    results = by_engine(contest(contestants(name, ENGINES, compiled.path, [1]), name, rounds=rounds), 1)
    if set(ENGINES) <= results.keys():
        yield speed(name, results)
        yield memory(name, results)
        yield from loading(name, fresh_starts(name, ENGINES, compiled.path, starts, 1))


def symbolic(name: str, compiled: Compiled) -> Check:
    """Whether every dimension that is symbolic in the registry is so in the artifact."""
    found = {spec.name: spec.shape for spec in Artifact.open(compiled.path).manifest.inputs}
    dims = models.lookup(name).dims
    fixed = [
        f"{key}: {'x'.join(map(str, found.get(key, ())))}"
        for key, shape in dims.items()
        if [isinstance(d, str) for d in shape] != [isinstance(d, str) for d in found.get(key, ())]
    ]
    shapes = "; ".join("x".join(map(str, shape)) for shape in dict.fromkeys(found.values()))
    figure = f"{compiled.wall_s:.1f} s, {compiled.size_bytes / 1e6:.1f} MB, {shapes}"
    return Check(name, "compiles, dimensions symbolic", figure, "none fixed", not fixed)


def native(name: str, compiled: Compiled) -> Check:
    """Whether all of it is compiled."""
    regions = len(Artifact.open(compiled.path).manifest.fallback)
    return Check(name, "regions that another engine runs", str(regions), "0", regions == 0)


def size(name: str, compiled: Compiled) -> Check:
    """The artifact over its weights as they are stored in it."""
    weights = float(Artifact.open(compiled.path).manifest.summary["weight_bytes"])
    goal = GROWTH * weights + FRAME_BYTES
    figure = f"{compiled.size_bytes / 1e6:.2f} MB for {weights / 1e6:.2f} MB"
    return Check(name, "size of the artifact", figure, f"<= {goal / 1e6:.2f} MB", compiled.size_bytes <= goal)


def agreement(name: str, compiled: Compiled) -> Iterator[Check]:
    """Whether one artifact serves all shapes, and how far its outputs are from the reference."""
    shapes = models.lookup(name).shapes
    served, mine, theirs = 0, 0.0, 0.0
    failure = ""
    for shape in range(len(shapes)):
        results = contest(contestants(name, ENGINES, compiled.path, [1]), name, shape)
        failure = failure or next((r.error for r in results if r.error), "")
        if any(result.error for result in results):
            continue
        served += 1
        ours, peer = (result.outputs for result in results)
        if name in models.INTEGER:
            truth = evaluate(name, shape)
            mine, theirs = max(mine, largest_error(ours, truth)), max(theirs, largest_error(peer, truth))
        else:
            mine = max(mine, largest_error(ours, peer))
    wanted = f"{len(shapes)} shapes"
    yield Check(name, "one artifact, three shapes", failure or f"{served} shapes", wanted, served == len(shapes))
    if served:
        goal = theirs if name in models.INTEGER else TOLERANCE
        other = "the reference evaluator" if name in models.INTEGER else "onnxruntime"
        yield Check(name, f"error from {other}", f"{mine:.1e}", f"<= {goal:.1e}", mine <= goal)


def evaluate(name: str, shape: int) -> list[np.ndarray]:
    """The outputs of onnx's reference evaluator, which knows the operators of quantization from opset 19 on."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    path, model = models.fetch(name), models.lookup(name)
    proto = onnx.load(path)
    version = next(each.version for each in proto.opset_import if not each.domain)
    if any(node.op_type == "DequantizeLinear" for node in proto.graph.node) and version < 19:
        proto = onnx.version_converter.convert_version(proto, 19)
    feeds = models.make_inputs(path, model, model.shapes[shape])
    evaluator = ReferenceEvaluator(proto, new_ops=references.OPERATORS)
    return [np.asarray(value) for value in evaluator.run(None, feeds)]


def speed(name: str, results: Mapping[str, Result]) -> Check:
    """Time per run over onnxruntime's, at one thread."""
    ours, peer = (results[engine] for engine in ENGINES)
    wall, cpu = ratio(ours, peer, 0), ratio(ours, peer, 1)
    figure = (
        f"{wall.median:.2f} ({wall.low:.2f} to {wall.high:.2f}), CPU {cpu.median:.2f};"
        f" {ours.median_ms:.2f} and {peer.median_ms:.2f} ms"
    )
    if name in models.INTEGER:
        return Check(name, "time over onnxruntime's, one thread", figure, "reported", None)
    return Check(name, "time over onnxruntime's, one thread", figure, f"<= {MOST_TIMES}", wall.median <= MOST_TIMES)


def memory(name: str, results: Mapping[str, Result]) -> Check:
    """Peak memory of the whole process."""
    ours, peer = (results[engine].peak_bytes / 1e6 for engine in ENGINES)
    goal = MEMORY * peer
    return Check(name, "peak memory", f"{ours:.0f} MB", f"<= {goal:.0f} MB", ours <= goal)


def loading(name: str, starts: Mapping[str, Sequence[Result]]) -> Iterator[Check]:
    """From a new process to the first result."""
    for promise, keys, share in (
        ("load and first run", ("load_ms", "first_ms"), 1.0),
        ("the same with imports", ("import_ms", "load_ms", "first_ms"), LOAD),
    ):
        ours, peer = (
            statistics.median(sum(getattr(start, key) for key in keys) for start in starts[engine])
            for engine in ENGINES
        )
        goal = share * peer
        yield Check(name, promise, f"{ours:.0f} ms", f"<= {goal:.0f} ms", ours <= goal)


def render(found: Sequence[Check]) -> str:
    """All checks as a table, and how many are reached."""
    words = {True: "yes", False: "NO", None: "-"}
    rows = [[c.model, c.promise, c.figure, c.goal, words[c.reached]] for c in found]
    judged = [c for c in found if c.reached is not None]
    count = f"{sum(c.reached is True for c in judged)} of {len(judged)} reached."
    return "\n\n".join([METHOD, report.table(["model", "promise", "measured", "goal", "reached"], rows), count])


def chosen(text: str) -> list[str]:
    """Names of models, from a list with commas or the name of a group."""
    exports = [model.name for model in models.registry().values() if model.export]
    return {"further": list(models.FURTHER), "exports": exports}.get(text) or text.split(",")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure everything that dscc promises about real models.")
    parser.add_argument(
        "--models",
        type=chosen,
        default=list(models.CORE),
        help="names with commas; or 'further': those that came after the rules; or 'exports': networks of PyTorch",
    )
    parser.add_argument("--rounds", type=int, default=15, help="turns of a fifth of a second; 0 times nothing")
    parser.add_argument("--starts", type=int, default=7, help="new processes that loading is measured in")
    parser.add_argument("--save", action="store_true", help="write RESULTS.md and results.json")
    args = parser.parse_args(argv)
    started, place = time.time(), report.machine()
    found: list[Check] = []
    with tempfile.TemporaryDirectory(prefix="dscc-acceptance-") as folder:
        for name in args.models:
            for check in all_checks(name, Path(folder), args.rounds, args.starts):
                print(check, flush=True)
                found.append(check)
    print()
    data = {"checks": [asdict(check) for check in found]}
    report.conclude("acceptance", "Promises", started, place, render(found), data, args.save)
    return 1 if any(check.reached is False for check in found) else 0


if __name__ == "__main__":
    sys.exit(main())
