"""The race: contestants take turns in rounds, so that whatever else the machine does hits all of them alike."""

from __future__ import annotations

import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from dscc.bench.engines import ENGINES
from dscc.errors import DsccError, InputError, unknown
from dscc.feeds import Feeds

# A turn lasts about this long, so that clocks and caches settle; a pause lets the threads of the last one fall asleep.
TURN_MS, PAUSE_S = 60.0, 0.005
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Contestant:
    """One engine with one model at one thread count. dscc runs an artifact, the others the model file."""

    engine: str
    model: Path
    threads: int


@dataclass
class Result:
    """What was measured of one contestant, in a process of its own.

    Attributes:
        wall_ms, cpu_ms: of every run: time on the clock, and processor time of all the process's threads.
        turns: for every turn, the medians (wall_ms, cpu_ms) of its runs; turns of the same index are neighbours in
            time, so their ratio between contestants is free of what the machine did in other minutes.
        outputs: of the given inputs, in the model's order.
        import_ms, load_ms, first_ms: importing the engine, loading the model, and the first run.
        peak_bytes: the most memory the process ever held; `before_bytes` of it before the model was loaded.
        error: why it could not take part; the rest is empty then.
    """

    contestant: Contestant
    wall_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    turns: list[tuple[float, float]] = field(default_factory=list)
    outputs: list[Array] = field(default_factory=list, repr=False)
    import_ms: float = 0.0
    load_ms: float = 0.0
    first_ms: float = 0.0
    peak_bytes: int = 0
    before_bytes: int = 0
    error: str = ""

    @property
    def median_ms(self) -> float:
        """Median time on the clock."""
        return statistics.median(self.wall_ms)

    @property
    def median_cpu_ms(self) -> float:
        """Median processor time: at one thread what the work costs, whatever else runs on the machine."""
        return statistics.median(self.cpu_ms)

    @property
    def spread_ms(self) -> tuple[float, float]:
        """First and third quartile of the time on the clock."""
        if len(self.wall_ms) < 2:
            return self.wall_ms[0], self.wall_ms[0]
        low, _, high = statistics.quantiles(self.wall_ms, n=4)
        return low, high


def race(
    contestants: Sequence[Contestant],
    feeds: Feeds,
    rounds: int = 15,
    progress: Callable[[str], None] = lambda text: None,
    turn_ms: float = TURN_MS,
) -> list[Result]:
    """Let the contestants run in turns and return what each showed, in their order.

    Args:
        contestants: engines with their models and thread counts.
        feeds: the inputs, the same for all.
        rounds: number of turns that each one gets; with none, it is only loaded and run.
        progress: called with a line of text as things happen.
        turn_ms: how long a turn lasts, unless a single run takes longer.

    Raises:
        InputError: an engine is unknown, or not installed.
    """
    for contestant in contestants:
        check_engine(contestant.engine)
    results = [Result(contestant) for contestant in contestants]
    with tempfile.TemporaryDirectory(prefix="dscc-bench-") as folder, ExitStack() as stack:
        feeds_file = Path(folder) / "feeds.npz"
        np.savez(feeds_file, **feeds)  # type: ignore[arg-type]
        running: list[tuple[Result, Child, int]] = []
        for result in results:
            progress(f"load {result.contestant.engine}, {result.contestant.threads} threads")
            child = stack.enter_context(Child(result.contestant, feeds_file))
            try:
                loaded = child.ask("load")
                result.import_ms, result.load_ms = loaded["import_ms"], loaded["load_ms"]
                result.first_ms, result.before_bytes = loaded["first_ms"], loaded["before_bytes"]
                # One run to warm up, and then one that tells how many fit into a turn.
                once_ms = child.ask("run 2")["wall_ms"][1] if rounds else turn_ms
            except EngineError as err:
                result.error = str(err)
                continue
            running.append((result, child, max(1, round(turn_ms / max(once_ms, 1e-3)))))
        for turn in range(rounds):
            progress(f"round {turn + 1} of {rounds}")
            # Nobody is always the one who runs after the same neighbour.
            first = turn % max(len(running), 1)
            for result, child, runs in running[first:] + running[:first]:
                if result.error:
                    continue
                time.sleep(PAUSE_S)
                try:
                    measured = child.ask(f"run {runs}")
                except EngineError as err:
                    result.error = str(err)
                    continue
                result.wall_ms += measured["wall_ms"]
                result.cpu_ms += measured["cpu_ms"]
                result.turns.append((statistics.median(measured["wall_ms"]), statistics.median(measured["cpu_ms"])))
        for result, child, _ in running:
            if result.error:
                continue
            result.peak_bytes = child.ask("peak")["peak_bytes"]
            result.outputs = child.outputs(Path(folder) / "outputs.npz")
    return results


def check_engine(name: str) -> None:
    """Whether an engine can take part in a race.

    Raises:
        InputError: it is unknown, or not installed.
    """
    if name not in ENGINES:
        raise InputError(unknown("engine", name, ENGINES))
    package = ENGINES[name].package
    if importlib.util.find_spec(package) is None:
        raise InputError(f"engine '{name}' is not installed; run 'pip install {package}'")


class EngineError(DsccError):
    """An engine cannot take part: it failed on the model, or its process died."""


class Child:
    """One contestant's process. Leaving the context ends it."""

    def __init__(self, contestant: Contestant, feeds_file: Path):
        self._contestant = contestant
        command = [sys.executable, "-m", "dscc.bench.worker", contestant.engine, str(contestant.model)]
        command += [str(contestant.threads), str(feeds_file)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def outputs(self, file: Path) -> list[Array]:
        """Run once more, and bring the outputs over in `file`."""
        count = self.ask(f"outputs {file}")["count"]
        with np.load(file) as archive:
            return [archive[str(i)] for i in range(count)]

    def ask(self, command: str) -> dict[str, Any]:
        """Send one command and wait for its answer.

        Raises:
            EngineError: the engine failed, or its process died.
        """
        assert self._process.stdin and self._process.stdout  # both are pipes
        try:
            self._process.stdin.write(command + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise EngineError(f"the process of {self._contestant.engine} died with status {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise EngineError(f"{self._contestant.engine}: {answer['error']}")
        return answer
