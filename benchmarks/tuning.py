"""What `dscc tune` gains on whole models: `python -m benchmarks.tuning --models mobilenetv2,resnet50 --minutes 10`.

Every model is compiled, tuned into a database that starts empty, compiled with it, and both artifacts are raced.
Without --save nothing is written.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import models, report
from benchmarks.contest import (
    REPOSITORY,
    ContestError,
    compile_model,
    complaint,
    contest,
    largest_error,
    ratio,
    shape_flags,
)
from dscc.artifact import Artifact
from dscc.bench import Contestant

GOAL = 1.08
METHOD = """\
Untuned over tuned, medians (quartiles) of neighbouring turns of processes at one thread, the other ones stopped. Each
model has a database of its own that starts empty, and is tuned with the sizes that it is raced with."""


@dataclass(frozen=True)
class Gain:
    """Of one model: milliseconds before and after, the ratio with its quartiles, and how far the outputs differ."""

    model: str
    untuned_ms: float
    tuned_ms: float
    gain: float
    low: float
    high: float
    error: float


def sizes(name: str, artifact: Path) -> list[str]:
    """`--dim` for every open size of the model, as its first shape has it."""
    shape = models.lookup(name).shapes[0]
    inputs = Artifact.open(artifact).manifest.inputs
    found = {d: shape[spec.name][at] for spec in inputs for at, d in enumerate(spec.shape) if isinstance(d, str)}
    return [f"--dim={dim}={size}" for dim, size in found.items()]


def measure(name: str, minutes: float, rounds: int, folder: Path) -> Gain:
    """Compile, tune, compile again, race."""
    before = compile_model(name, folder / "before").path
    database = folder / f"{name}.jsonl"
    flags = [*shape_flags(name), *sizes(name, before), f"--minutes={minutes}", f"--db={database}", "--threads=1"]
    tune = [sys.executable, "-m", "dscc.cli", "tune", str(models.fetch(name)), *flags]
    done = subprocess.run(tune, cwd=REPOSITORY, capture_output=True, text=True)
    if done.returncode != 0:
        raise ContestError(f"model '{name}': tune ended with {done.returncode}: {complaint(done.stderr)}")
    after = compile_model(name, folder / "after", [f"--db={database}"]).path
    old, new = contest([Contestant("dscc", path, 1) for path in (before, after)], name, rounds=rounds)
    found = ratio(old, new, 0)
    for result in (old, new):
        if result.error:
            raise ContestError(f"model '{name}': {result.error}")
    return Gain(
        name, old.median_ms, new.median_ms, found.median, found.low, found.high, largest_error(new.outputs, old.outputs)
    )


def render(found: Sequence[Gain], minutes: float) -> str:
    rows = [
        [
            g.model,
            f"{g.untuned_ms:.2f}",
            f"{g.tuned_ms:.2f}",
            f"{g.gain:.3f} ({g.low:.3f} to {g.high:.3f})",
            f"{g.error:.0e}",
        ]
        for g in found
    ]
    mean = statistics.geometric_mean(g.gain for g in found)
    total = f"Geometric mean of {minutes:g} minutes for each: {mean:.3f} (goal {GOAL})."
    return "\n\n".join([METHOD, report.table(["model", "untuned ms", "tuned ms", "gain", "difference"], rows), total])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure what tuning gains on whole models.")
    parser.add_argument("--models", type=lambda text: text.split(","), default=list(models.CORE), help="with commas")
    parser.add_argument("--minutes", type=float, default=10.0, help="of tuning for each model")
    parser.add_argument("--rounds", type=int, default=25, help="turns of a fifth of a second")
    parser.add_argument("--save", action="store_true", help="write RESULTS.md and results.json")
    args = parser.parse_args(argv)
    started, place = time.time(), report.machine()
    found: list[Gain] = []
    with tempfile.TemporaryDirectory(prefix="dscc-tuning-") as folder:
        for name in args.models:
            found.append(measure(name, args.minutes, args.rounds, Path(folder)))
            print(found[-1], flush=True)
    print()
    data = {"gains": [asdict(gain) for gain in found]}
    report.conclude("tuning", "Tuning", started, place, render(found, args.minutes), data, args.save)
    return 0 if statistics.geometric_mean(gain.gain for gain in found) >= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
