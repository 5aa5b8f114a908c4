"""The race: contestants take turns in rounds, so that whatever else the machine does hits all of them alike.

Each is a process of its own, and a process that is not running its turn is stopped: no thread of it can spin.
"""

from __future__ import annotations

import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from dscc.bench.ahead import ENGINES
from dscc.bench.child import Child, Contestant, EngineError
from dscc.bench.engines import Engine
from dscc.bench.prepare import prepare
from dscc.errors import InputError, unknown
from dscc.feeds import Feeds

# A turn lasts about this long, so that clocks and caches settle; a pause lets the threads of the last one fall asleep.
TURN_MS, PAUSE_S = 60.0, 0.005
# Of a slow engine's time. It gets fewer turns, since it does not decide anything: at least two, and one if it is slower
# than all turns of the others together.
_SLOW_FACTOR = 2.0
Array = np.ndarray[Any, Any]


@dataclass
class Result:
    """What was measured of one contestant, in a process of its own.

    Attributes:
        wall_ms, cpu_ms: of every run: time on the clock, and processor time of all the process's threads.
        turns: by round, the medians (wall_ms, cpu_ms) of the runs of its turn; turns of one round are neighbours in
            time, so their ratio between contestants is free of what the machine did in other minutes.
        outputs: of the given inputs, in the model's order.
        import_ms, load_ms, first_ms: importing the engine, loading the model, and the first run.
        peak_bytes: the most memory the process ever held; `before_bytes` of it before the model was loaded.
        error: why it could not take part; the rest is empty then.
    """

    contestant: Contestant
    wall_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    turns: dict[int, tuple[float, float]] = field(default_factory=dict)
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
    cache: Path | None = None,
) -> list[Result]:
    """Let the contestants run in turns and return what each showed, in their order.

    Args:
        contestants: engines with their models and thread counts.
        feeds: the inputs, the same for all.
        rounds: number of turns that each one gets; with none, it is only loaded and run.
        progress: called with a line of text as things happen.
        turn_ms: how long a turn lasts, unless a single run takes longer.
        cache: folder for what engines compile ahead of time; none is kept without it.

    Raises:
        InputError: an engine is unknown, or not installed.
    """
    for contestant in contestants:
        check_engine(contestant.engine)
    results = [Result(contestant) for contestant in contestants]
    with tempfile.TemporaryDirectory(prefix="dscc-bench-") as folder, ExitStack() as stack:
        feeds_file = Path(folder) / "feeds.npz"
        np.savez(feeds_file, **feeds)  # type: ignore[arg-type]
        running: list[tuple[Result, Child, int, int]] = []
        for result in results:
            progress(f"load {result.contestant.engine}, {result.contestant.threads} threads")
            try:
                model = prepare(result.contestant, feeds, feeds_file, cache or Path(folder))
                child = stack.enter_context(Child(replace(result.contestant, model=model), feeds_file))
                loaded = child.ask("load")
                result.import_ms, result.load_ms = loaded["import_ms"], loaded["load_ms"]
                result.first_ms, result.before_bytes = loaded["first_ms"], loaded["before_bytes"]
                # The first run warmed up; the next one tells how many fit into a turn.
                once_ms = child.ask("run 1")["wall_ms"][0] if rounds else turn_ms
            except EngineError as err:
                result.error = str(err)
                continue
            runs = max(1, round(turn_ms / max(once_ms, 1e-3)))
            running.append((result, child, runs, _turns(once_ms, turn_ms, rounds)))
        for turn in range(rounds):
            progress(f"round {turn + 1} of {rounds}")
            # Nobody is always the one who runs after the same neighbour.
            first = turn % max(len(running), 1)
            for result, child, runs, turns in running[first:] + running[:first]:
                if result.error or (turn * turns) // rounds == ((turn + 1) * turns) // rounds:
                    continue
                time.sleep(PAUSE_S)
                try:
                    measured = child.ask(f"run {runs}")
                except EngineError as err:
                    result.error = str(err)
                    continue
                result.wall_ms += measured["wall_ms"]
                result.cpu_ms += measured["cpu_ms"]
                result.turns[turn] = (statistics.median(measured["wall_ms"]), statistics.median(measured["cpu_ms"]))
        for result, child, *_ in running:
            if result.error:
                continue
            result.peak_bytes = child.ask("peak")["peak_bytes"]
            result.outputs = child.outputs(Path(folder) / "outputs.npz")
    return results


def _turns(once_ms: float, turn_ms: float, rounds: int) -> int:
    """How many of the rounds one takes part in whose run takes `once_ms`."""
    fitting = int(_SLOW_FACTOR * rounds * turn_ms / max(once_ms, 1e-3))
    return min(rounds, max(fitting, 2 if once_ms < rounds * turn_ms else 1))


def check_engine(name: str, reads: str = "") -> None:
    """Whether an engine can take part in a race, with a model file of the suffix `reads` if that is given.

    Raises:
        InputError: it is unknown, or not installed, or takes other files.
    """
    if name not in ENGINES:
        raise InputError(unknown("engine", name, ENGINES))
    engine = ENGINES[name]
    if reads and engine.takes != reads:
        raise InputError(f"engine '{name}' runs '{engine.takes}' files, and the model is a '{reads}' file")
    if not installed(engine):
        raise InputError(f"engine '{name}' is not installed; run 'pip install {engine.requirement or engine.package}'")


def installed(engine: type[Engine]) -> bool:
    """Whether its package can be imported."""
    try:
        return importlib.util.find_spec(engine.package) is not None
    except ModuleNotFoundError:  # of a parent of the package
        return False
