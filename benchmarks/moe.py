"""Mixtures of experts against onnxruntime, and against what the machine can do: `python -m benchmarks.moe`.

Small models in the forms that exporters write, the same file for both engines, in turns; the operator itself on experts
that no cache holds: many tokens against one dense product with the same operations, one token against the bandwidth of
the memory, and the bytes of weights that a run touches against those of the chosen experts. What was measured is kept
until the compiler, an engine or the machine has changed, as benchmarks/race.py does it: an interrupted run goes on.
With --save the page is written.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from benchmarks import models, report
from benchmarks.contest import Ratio, ratio
from benchmarks.mixtures import FORMS, MODELS, Sizes, dense, layer, small
from benchmarks.race import entry, key, thread_counts
from benchmarks.standing import Entry
from dscc import targets
from dscc.artifact.store import write
from dscc.bench import Contestant, peaks, race

TOKENS = (1, 16, 128, 512)
LARGE = Sizes(experts=8, top=2, hidden=1024, inner=3584)  # 44 MB an expert
GOALS = {("grouped", 16): 1.5, ("grouped", 128): 1.5, ("grouped", 1): 1.5, ("batched", 16): 5.0, ("batched", 128): 5.0}
GOALS |= {("dense", tokens): 3.0 for tokens in (1, 16, 128)}
MOST_OVER_DENSE, MOST_READ, LEAST_BANDWIDTH = 1.2, 1.1, 0.75


@dataclass
class Row:
    """One comparison on the same rows, with the same number of threads."""

    what: str
    tokens: int
    threads: int
    ours: Entry
    theirs: Entry

    @property
    def ratio(self) -> Ratio:
        """Our time over theirs."""
        return ratio(self.ours, self.theirs, 0)


@dataclass
class Reading:
    """One token through experts that lie in memory.

    Attributes:
        bits: of a weight.
        touched: bytes of weights that a run touched over those of the chosen experts.
        bandwidth: those of the chosen experts over time, as a share of what this machine reads.
    """

    bits: int
    threads: int
    ms: float
    touched: float
    bandwidth: float


class Bench:
    """Measures one comparison after the other.

    Attributes:
        folder: keeps models, artifacts, and what was measured.
    """

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.folder = models.cache_folder() / "moe" / key(args)
        self.folder.mkdir(parents=True, exist_ok=True)

    def compiled(self, name: str, make: Callable[[], onnx.ModelProto]) -> tuple[Path, Path]:
        """The model file, and the artifact that the command makes of it."""
        file, artifact = self.folder / f"{name}.onnx", self.folder / f"{name}.dscc"
        if not artifact.exists():
            progress(f"compile {name}")
            file.unlink(missing_ok=True)
            (self.folder / f"{name}.data").unlink(missing_ok=True)
            onnx.save(make(), file, save_as_external_data=True, location=f"{name}.data", size_threshold=1024)
            command = [sys.executable, "-m", "dscc.cli", "compile", str(file), "-O3", "-o", str(artifact)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return file, artifact

    def race(self, name: str, entrants: Sequence[Contestant], tokens: int, hidden: int) -> list[Entry]:
        """What the contestants showed, or what they did the last time: errors are those from the last engine."""
        path = self.folder / f"{name}-{tokens}-{entrants[0].threads}.json"
        if self.args.again or not path.exists():
            progress(f"{name}, {tokens} tokens, {entrants[0].threads} threads")
            x = np.random.default_rng(tokens).standard_normal((tokens, hidden)).astype(np.float32)
            results = race(entrants, {"x": x}, self.args.rounds, turn_ms=self.args.turn_ms)
            for result in results:
                if result.error:
                    raise SystemExit(f"{name}: {result.contestant.engine}: {result.error}")
            peers = entrants[0].engine != entrants[-1].engine
            made = [asdict(entry(result, results[-1].outputs if peers else None)) for result in results]
            write(path, [json.dumps(made).encode()])
        return [Entry(**fields) for fields in json.loads(path.read_text())]

    def forms(self) -> Iterator[Row]:
        """Every model in every form against onnxruntime."""
        for name, form in product(self.args.models, self.args.forms):
            file, artifact = self.compiled(f"{name}-{form}", partial(small, name, form))
            for tokens, threads in product(self.args.tokens, self.args.threads):
                entrants = [Contestant("dscc", artifact, threads), Contestant("onnxruntime", file, threads)]
                ours, theirs = self.race(f"{name}-{form}", entrants, tokens, MODELS[name].hidden)
                yield Row(f"{name} {form}", tokens, threads, ours, theirs)

    def over_dense(self) -> Iterator[Row]:
        """The layer over a product with the same number of operations."""
        _, experts = self.compiled("layer-32", partial(layer, LARGE, 32))
        _, one = self.compiled("dense", partial(dense, LARGE))
        for threads in self.args.threads:
            entrants = [Contestant("dscc", experts, threads), Contestant("dscc", one, threads)]
            yield Row("dense", 512, threads, *self.race("over-dense", entrants, 512, LARGE.hidden))

    def reading(self) -> Iterator[Reading]:
        """One token, for every width of weights."""
        for bits in (32, 16, 8, 4):
            _, artifact = self.compiled(f"layer-{bits}", partial(layer, LARGE, bits))
            chosen = LARGE.top * LARGE.bytes(bits)
            for threads in self.args.threads:
                (ours,) = self.race(f"layer-{bits}", [Contestant("dscc", artifact, threads)], 1, LARGE.hidden)
                share = chosen / ours.wall_ms * 1e3 / self.roof(threads)
                yield Reading(bits, threads, ours.wall_ms, touched(artifact, LARGE.hidden) / chosen, share)

    def roof(self, threads: int) -> float:
        """Bytes that this machine reads in a second."""
        path = self.folder / f"roof-{threads}.json"
        if self.args.again or not path.exists():
            write(path, [json.dumps(peaks.measure(targets.resolve(None), threads).bytes).encode()])
        return float(json.loads(path.read_text()))


def touched(artifact: Path, hidden: int) -> int:
    """Bytes of the artifact's file that one run with one token reads, in whole pages, in a process of its own.

    The kernel marks pages as referenced when the processor does; the marks of the first run are cleared.
    """
    done = subprocess.run(
        [sys.executable, "-c", _TOUCH, str(artifact), str(hidden)], check=True, capture_output=True, text=True
    )
    return int(done.stdout)


_TOUCH = """
import ctypes, re, sys
import numpy as np
import dscc.runtime
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # no huge pages: one that is touched would count as a whole
path, hidden = sys.argv[1], int(sys.argv[2])
module = dscc.runtime.load(path, threads=1)
x = np.random.default_rng(1).standard_normal((1, hidden)).astype(np.float32)
module.run(None, {"x": x})
others = np.ones(64 << 20, np.uint8)
open("/proc/self/clear_refs", "w").write("1")
others[::4096].sum()  # the processor remembers the pages that it used last, and does not mark those again
module.run(None, {"x": x})
maps = re.split(r"\\n(?=[0-9a-f]+-[0-9a-f]+ )", open("/proc/self/smaps").read())
print(sum(int(re.search(r"Referenced:\\s+(\\d+)", part)[1]) * 1024 for part in maps if path in part.splitlines()[0]))
"""


def progress(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Mixtures of experts against onnxruntime and against the machine.")
    names = lambda text: text.split(",")  # noqa: E731
    parser.add_argument("--models", type=names, default=list(MODELS))
    parser.add_argument("--forms", type=names, default=list(FORMS))
    parser.add_argument("--tokens", type=lambda text: [int(word) for word in text.split(",")], default=list(TOKENS))
    parser.add_argument("--parts", type=names, default=["forms", "dense", "reading"], help="as in forms,dense,reading")
    parser.add_argument("--threads", type=thread_counts, default=thread_counts("1,all"), help="as in 1,all")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--turn-ms", type=float, default=60.0)
    parser.add_argument("--again", action="store_true", help="measure also what was measured")
    parser.add_argument("--save", action="store_true", help="write RESULTS.md and results.json")
    return parser.parse_args(argv, argparse.Namespace(engines=["dscc", "onnxruntime"], compiled=None))


def _verdict(good: bool) -> str:
    return "yes" if good else "no"


def page(found: Mapping[str, Sequence[Any]]) -> str:
    """The body of the section."""
    parts = []
    if found.get("forms"):
        cells = []
        for row in found["forms"]:
            goal = GOALS.get((row.what.split()[1], row.tokens))
            speed = [1 / x for x in (row.ratio.median, row.ratio.high, row.ratio.low)]
            cells.append(
                [
                    row.what,
                    str(row.tokens),
                    str(row.threads),
                    f"{row.ours.wall_ms:.3f}",
                    f"{row.theirs.wall_ms:.3f}",
                    f"{speed[0]:.2f} ({speed[1]:.2f} to {speed[2]:.2f})",
                    f"{goal:g}" if goal else "-",
                    _verdict(speed[0] >= goal) if goal else "-",
                    f"{row.ours.error:.1e}",
                ]
            )
        heads = [
            "model, form",
            "tokens",
            "threads",
            "dscc ms",
            "onnxruntime ms",
            "times as fast",
            "goal",
            "reached",
            "error",
        ]
        parts.append("\n".join(["### Against onnxruntime on the same file", "", report.table(heads, cells)]))
    if found.get("dense"):
        cells = [
            [
                str(row.threads),
                f"{row.ours.wall_ms:.1f}",
                f"{row.theirs.wall_ms:.1f}",
                f"{row.ratio.median:.2f} ({row.ratio.low:.2f} to {row.ratio.high:.2f})",
                f"{MOST_OVER_DENSE}",
                _verdict(row.ratio.median <= MOST_OVER_DENSE),
            ]
            for row in found["dense"]
        ]
        heads = ["threads", "mixture ms", "dense product ms", "ratio", "goal", "reached"]
        parts.append(
            "\n".join(
                ["### 512 tokens over one dense product with the same operations", "", report.table(heads, cells)]
            )
        )
    if found.get("reading"):
        cells = [
            [
                str(row.bits),
                str(row.threads),
                f"{row.ms:.2f}",
                f"{row.touched:.3f}",
                _verdict(row.touched <= MOST_READ),
                f"{100 * row.bandwidth:.0f}%",
                _verdict(row.bandwidth >= LEAST_BANDWIDTH),
            ]
            for row in found["reading"]
        ]
        heads = [
            "bits",
            "threads",
            "ms",
            "bytes read",
            f"<= {MOST_READ}",
            "bandwidth",
            f">= {100 * LEAST_BANDWIDTH:.0f}%",
        ]
        parts.append("\n".join(["### One token, experts in memory", "", report.table(heads, cells)]))
    return "\n\n".join([_INTRODUCTION, *parts])


_INTRODUCTION = f"""\
One layer: a router, {", ".join(MODELS)} in small, weights random, tokens symbolic, compiled
with -O3. Ratios are medians (quartiles) of neighbouring turns. Errors are relative to onnxruntime's largest output.
Below that the layer is com.microsoft's operator with {LARGE.experts} experts of {LARGE.bytes(32) / 1e6:.0f} MB in
float32, {LARGE.top} for a token. Bytes read are the pages of weights that the processor marked in one run, over the
weights of the chosen experts with their scales; bandwidth is those over the time of the whole model, as a share of what
a loop that only reads reaches."""


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    started, place = time.time(), report.machine()
    bench = Bench(args)
    parts: dict[str, Callable[[], Iterator[Any]]] = {
        "forms": bench.forms,
        "dense": bench.over_dense,
        "reading": bench.reading,
    }
    found = {name: list(parts[name]()) for name in args.parts}
    data = {name: [asdict(row) for row in rows] for name, rows in found.items()}
    report.conclude("moe", "Mixtures of experts", started, place, page(found), data, args.save)
    return 0


if __name__ == "__main__":
    sys.exit(main())
