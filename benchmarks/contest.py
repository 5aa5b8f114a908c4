"""One model through the whole house: compiled by the command, then run beside the peers on the same inputs."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import models
from benchmarks.standing import Entry
from dscc.bench import Contestant, Result, race
from dscc.bench.ahead import ENGINES
from dscc.errors import DsccError
from dscc.verify import compare

REPOSITORY = Path(__file__).parents[1]


class ContestError(DsccError):
    """A model cannot take part."""


@dataclass(frozen=True)
class Compiled:
    """What one run of `dscc compile` gave.

    Attributes:
        path: the artifact.
        wall_s: of the whole command, from process start to exit.
        peak_bytes: the most memory that the command held.
        command: as one would type it.
    """

    path: Path
    wall_s: float
    peak_bytes: int
    command: str

    @property
    def size_bytes(self) -> int:
        """Of the artifact."""
        return self.path.stat().st_size


def shape_flags(name: str) -> list[str]:
    """`--input` for what the file declares as fixed although the network takes any; nothing for other models."""
    if models.peer_file(name) == models.fetch(name):
        return []
    dims = models.lookup(name).dims
    return [f"--input={key}={','.join(str(d) for d in shape)}" for key, shape in dims.items()]


def compile_model(name: str, folder: Path, flags: Sequence[str] = (), cold: bool = True) -> Compiled:
    """Run `dscc compile` on the model in a process of its own.

    Args:
        name: of the model in the registry.
        folder: receives the artifact.
        flags: further flags of the command.
        cold: give the command an empty cache folder.
    """
    model, artifact = models.fetch(name), folder / f"{name}.dscc"
    arguments = ["compile", str(model), *shape_flags(name), *flags, "-o", str(artifact)]
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="dscc-empty-cache-") as empty:
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)} | ({"XDG_CACHE_HOME": empty} if cold else {})
        log = Path(empty) / "log"
        with log.open("w") as said:
            start = time.perf_counter()
            process = subprocess.Popen(
                [sys.executable, "-m", "dscc.cli", *arguments], stdout=said, stderr=said, env=environment
            )
            _, status, usage = os.wait4(process.pid, 0)
            wall_s = time.perf_counter() - start
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise ContestError(
                f"model '{name}': compile ended with {process.returncode}: {complaint(log.read_text(errors='replace'))}"
            )
    command = " ".join(["dscc", *(word.replace(str(folder) + "/", "") for word in arguments)])
    return Compiled(artifact, wall_s, usage.ru_maxrss * 1024, command.replace(str(model), model.name))


def complaint(said: str) -> str:
    """The line of a failed command's output that names the error: the last `SomeError: ...`, else the last line."""
    lines = [line for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"(dscc: error|[\w.]+(Error|Exception)): ", line)]
    return (errors or lines or ["nothing was said"])[-1]


def contestants(
    name: str, engines: Sequence[str], artifact: Path | None, threads: Sequence[int], shape: int = 0
) -> list[Contestant]:
    """dscc with its artifact, Inductor with the network if there is one, the others with the model file; once for every
    thread count.
    """
    files: dict[str, Path | None] = {}
    for engine in engines:
        if ENGINES[engine].takes == ".onnx":
            files[engine] = models.peer_file(name)
        else:
            files[engine] = artifact if engine == "dscc" else models.program_file(name, shape)
    return [Contestant(engine, file, count) for count in threads for engine, file in files.items() if file]


def contest(
    entrants: Sequence[Contestant],
    name: str,
    shape: int = 0,
    rounds: int = 0,
    turn_ms: float = 200.0,
    progress: Callable[[str], None] = lambda text: None,
) -> list[Result]:
    """Race on the inputs of the model's shape number `shape`."""
    model = models.lookup(name)
    feeds = models.make_inputs(models.fetch(name), model, model.shapes[shape])
    return race(entrants, feeds, rounds, progress, turn_ms, models.cache_folder() / "ahead")


def largest_error(got: Sequence[np.ndarray], want: Sequence[np.ndarray]) -> float:
    """The worst output's largest difference, relative to that output's largest reference value."""
    if len(got) != len(want):
        return float("inf")
    return max(compare(str(i), g, w).max_rel for i, (g, w) in enumerate(zip(got, want, strict=True)))


@dataclass(frozen=True)
class Ratio:
    """A contestant's time over the reference engine's, turn by turn: the median and the quartiles of the ratios."""

    median: float
    low: float
    high: float


def ratio(result: Result | Entry, base: Result | Entry, column: int) -> Ratio:
    """Of wall time (column 0) or processor time (column 1). Neighbouring turns are compared with each other."""
    others = {str(i): turn for i, turn in base.turns.items()}
    ratios = [turn[column] / others[str(i)][column] for i, turn in result.turns.items() if str(i) in others]
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return Ratio(middle, low, high)


def by_engine(results: Sequence[Result], threads: int) -> Mapping[str, Result]:
    """The results at one thread count, of the engines that could take part."""
    return {r.contestant.engine: r for r in results if r.contestant.threads == threads and not r.error}


def fresh_starts(
    name: str, engines: Sequence[str], artifact: Path | None, repeats: int, threads: int, shape: int = 0
) -> Mapping[str, list[Result]]:
    """Load and run once in a new process, `repeats` times for every engine in turn."""
    entrants = contestants(name, engines, artifact, [threads], shape)
    starts: dict[str, list[Result]] = {entrant.engine: [] for entrant in entrants}
    for _ in range(repeats):
        for entrant in entrants:
            (result,) = contest([entrant], name, shape)
            starts[entrant.engine].append(result)
    return starts
