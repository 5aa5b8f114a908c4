"""Race dscc against its peers: `python -m benchmarks.race --models ppocrv4_det,gpt2_124m:decode --threads 1,all`.

Every engine at every thread count is a process of its own; they take turns of a fifth of a second, the others stopped.
What was measured of a model is kept as soon as it is there, so that a race that is interrupted goes on with the next
model: a model is measured again once the compiler, an engine or the machine has changed, or with --again. With --save
the page, the numbers and the plot are written; without it nothing is, in the repository.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import models, report, standing
from benchmarks.contest import ContestError, compile_model, contest, contestants, fresh_starts, largest_error
from benchmarks.standing import BASE, Entry, Record
from dscc.artifact import Artifact
from dscc.artifact.store import write
from dscc.bench import Result
from dscc.bench.ahead import ENGINES
from dscc.bench.prepare import version
from dscc.bench.race import installed
from dscc.errors import DsccError

STARTED = ("dscc", BASE)  # whose start is timed in processes of its own


def measure(case: str, args: argparse.Namespace, folder: Path) -> Record:
    """Compile, race, profile and time the loading of one case; an engine that cannot take part is noted as absent."""
    name, shape = models.case(case)
    given = models.lookup(name).shapes[shape]
    record = Record(case, "; ".join("x".join(map(str, dims)) for dims in dict.fromkeys(given.values())))
    try:
        artifact = obtain(name, record, args.compiled or folder)
    except ContestError as err:
        artifact, record.absent["dscc"] = None, str(err)
    return raced(record, artifact, args)


def current(path: Path) -> bool:
    """Whether there is an artifact, and no source of dscc is newer."""
    return path.exists() and path.stat().st_mtime > max(source.stat().st_mtime for source in sources())


def sources() -> list[Path]:
    """What an artifact is made by."""
    root = Path(report.FOLDER).parent / "dscc"
    found = (path for path in root.rglob("*.*") if path.suffix in (".py", ".c", ".h"))
    return sorted(path for path in found if path.relative_to(root).parts[0] not in ("bench", "cli"))


def obtain(name: str, record: Record, folder: Path) -> Path:
    """The artifact of a model, a current one in the folder or a new one; the record gets what compiling took."""
    path = folder / f"{name}.dscc"
    if current(path):
        record.compiled = {"size_bytes": path.stat().st_size}
    else:
        made = compile_model(name, folder)
        keys = ("wall_s", "size_bytes", "peak_bytes", "command")
        record.compiled = {key: getattr(made, key) for key in keys}
    return path


def raced(record: Record, artifact: Path | None, args: argparse.Namespace) -> Record:
    """The record, with what was measured of everybody who takes part."""
    name, shape = models.case(record.case)
    taking, absent = able(name, args.engines)
    record.absent |= absent
    entrants = contestants(name, taking, artifact, args.threads, shape)
    results = contest(entrants, name, shape, args.rounds, args.turn_ms, progress)
    reference = next((r.outputs for r in results if r.contestant.engine == BASE and not r.error), None)
    for result in results:
        if result.error:
            record.absent[result.contestant.engine] = result.error
        else:
            record.entries.append(entry(result, reference))
    starting = [engine for engine in STARTED if engine in taking]
    for threads in args.threads:
        progress(f"starts, {threads} threads")
        for engine, starts in fresh_starts(name, starting, artifact, args.starts, threads, shape).items():
            standing.put_starts(record, engine, threads, [start for start in starts if not start.error])
        if artifact and "dscc" not in record.absent:
            progress(f"kernels, {threads} threads")
            record.kernels[threads] = kernels(artifact, name, shape, threads)
    return record


def able(name: str, engines: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The engines that can be given the model, and the reasons of the others."""
    absent = {}
    for engine in engines:
        kind = ENGINES[engine]
        if not installed(kind):
            absent[engine] = f"not installed: pip install {kind.requirement or kind.package}"
        elif kind.takes == ".pt2" and not models.lookup(name).export:
            absent[engine] = "runs torch's own programs; of this model there is only the ONNX file"
    return [engine for engine in engines if engine not in absent], absent


def entry(result: Result, reference: Sequence[np.ndarray] | None) -> Entry:
    """What a record keeps of a result."""
    return Entry(
        engine=result.contestant.engine,
        threads=result.contestant.threads,
        wall_ms=result.median_ms,
        wall_quartiles_ms=result.spread_ms,
        cpu_ms=result.median_cpu_ms,
        runs=len(result.wall_ms),
        turns={str(i): turn for i, turn in result.turns.items()},
        error=largest_error(result.outputs, reference) if reference is not None else None,
        peak_bytes=result.peak_bytes,
        import_ms=result.import_ms,
        load_ms=result.load_ms,
        first_ms=result.first_ms,
    )


def kernels(artifact: Path, name: str, shape: int, threads: int) -> list[dict[str, Any]]:
    """The profile of an artifact, kernel by kernel, the longest first."""
    from dscc.profile import by_kernel, profile

    model = models.lookup(name)
    feeds = models.make_inputs(models.fetch(name), model, model.shapes[shape])
    found = profile(Artifact.open(artifact), feeds, threads, runs=5)
    return [asdict(row) for row in by_kernel(found.rows)]


def peaks(threads: Sequence[int]) -> dict[str, dict[str, float]]:
    """What the machine can do at most, by thread count."""
    from dscc import targets
    from dscc.bench import peaks as measuring

    return {str(count): asdict(measuring.measure(targets.resolve(None), count)) for count in threads}


def progress(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def key(args: argparse.Namespace) -> str:
    """Of records that belong into one table: the same sources of dscc, engines, machine and way of measuring."""
    known = hashlib.sha256()
    for path in sources():
        known.update(path.read_bytes())
    engines = [version(ENGINES[engine]) for engine in args.engines if engine != "dscc"]
    place = report.machine()
    artifacts = str(args.compiled.resolve()) if args.compiled else ""
    how = [
        artifacts,
        engines,
        args.engines,
        args.threads,
        args.rounds,
        args.turn_ms,
        place["processor"],
        place["cores"],
    ]
    return f"{known.hexdigest()[:12]}-{hashlib.sha256(repr(how).encode()).hexdigest()[:12]}"


def kept_in(folder: Path, case: str) -> Path:
    return folder / f"{case.replace(':', '_')}.json"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command's options; `all` threads are the cores that this process may use."""
    parser = argparse.ArgumentParser(description="Race dscc against its peers.")
    every = [case for name in models.RACED for case in models.cases(name)]
    parser.add_argument("--models", type=lambda text: text.split(","), default=every)
    parser.add_argument("--engines", type=lambda text: text.split(","), default=list(ENGINES))
    parser.add_argument("--threads", type=thread_counts, default=thread_counts("1,all"), help="as in 1,all")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--turn-ms", type=float, default=200.0)
    parser.add_argument("--starts", type=int, default=5, help="new processes that loading is measured in")
    parser.add_argument(
        "--compiled", type=Path, metavar="DIR", help="race the current artifacts that are there; put others there"
    )
    parser.add_argument("--prepare", action="store_true", help="only let the engines compile that do so ahead")
    parser.add_argument("--again", action="store_true", help="measure also what was measured")
    parser.add_argument("--save", action="store_true", help="write RESULTS.md, results.json and race.png")
    return parser.parse_args(argv)


def thread_counts(text: str) -> list[int]:
    """`1,all` to numbers, without repetition."""
    cores = len(os.sched_getaffinity(0))
    return list(dict.fromkeys(cores if word == "all" else int(word) for word in text.split(",")))


def run(args: argparse.Namespace) -> tuple[list[Record], Mapping[str, Mapping[str, float]]]:
    """The records of all cases, those that are there already taken as they are, and the machine's peaks."""
    folder = models.cache_folder() / "race" / key(args)
    folder.mkdir(parents=True, exist_ok=True)
    roofs = folder / "peaks.json"
    if not roofs.exists():
        write(roofs, [json.dumps(peaks(args.threads)).encode()])
    records = []
    for case in args.models:
        models.case(case)
        path = kept_in(folder, case)
        if args.again or not path.exists():
            print(f"{case} ...", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory(prefix="dscc-race-") as made:
                try:
                    record = measure(case, args, Path(made))
                except DsccError as err:
                    record = Record(case, "", absent=dict.fromkeys(args.engines, str(err)))
            write(path, [json.dumps(asdict(record)).encode()])
        records.append(standing.read(path))
    return records, json.loads(roofs.read_text())


def prepare_all(args: argparse.Namespace) -> None:
    """Have everything compiled ahead that the race would compile; what is refused is remembered."""
    for case in args.models:
        name, shape = models.case(case)
        if args.compiled and not current(args.compiled / f"{name}.dscc"):
            compile_model(name, args.compiled)
        taking, _ = able(name, args.engines)
        for entrant in contestants(name, [e for e in taking if ENGINES[e].ahead], None, [1], shape):
            begin = time.perf_counter()
            (result,) = contest([entrant], name, shape)
            outcome = result.error or f"{result.first_ms:.1f} ms"
            print(f"{case} {entrant.engine} {time.perf_counter() - begin:.0f} s: {outcome}", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    if args.prepare:
        prepare_all(args)
        return 0
    started, place = time.time(), report.machine()
    records, roofs = run(args)
    data = {"records": [asdict(record) for record in records], "peaks": roofs}
    report.conclude("race", "Race", started, place, standing.page(records, roofs), data, args.save)
    if args.save:
        from benchmarks import plot

        plot.draw(records, report.FOLDER / "race.png")
    # Others may fail; that dscc does, or computes something else, is an error of the race.
    return 1 if any(not standing.good(record) for record in records) else 0


if __name__ == "__main__":
    sys.exit(main())
