"""Which candidate of which kernel to try next, until the time or the trials are used up.

The kernel that may still gain the most comes next: its time in a run, less what many trials without success make
unlikely. Its candidates are neighbours of the best one so far, one choice apart, and now and then any other.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from dscc.schedule.decisions import Choice
from dscc.tune.database import FASTER, Choices, Database, Trial
from dscc.tune.kernel import Built, Kernel, space
from dscc.tune.measure import TOLERANCE
from dscc.tune.workers import Builder, DoesNotFit, Failed, Runner

_BATCH = 8  # candidates that are built at once
_PAIRS, _CONFIRM_PAIRS, _TIME_PAIRS = 15, 60, 5
_LIMIT = 1.1  # times the default's time, from which on a candidate is not measured further
_ANYWHERE = 0.25  # of candidates are no neighbours
_TRIES = 40


@dataclass
class Task:
    """One kernel and what is known of it.

    Attributes:
        number: in the database.
        time_ms: of its calls in one run of the model, with the default.
        calls: in one run, where `time_ms` was seen on another machine than measures; 0 where it was not.
    """

    kernel: Kernel
    number: int
    time_ms: float
    trials: list[Trial] = field(default_factory=list)
    exhausted: bool = False
    calls: int = 0
    _space: dict[str, dict[str, tuple[Choice, ...]]] | None = None
    _default: Built | None = None

    @property
    def space(self) -> dict[str, dict[str, tuple[Choice, ...]]]:
        """Rules to choices to candidates; made when it is first asked for."""
        if self._space is None:
            self._space = space(self.kernel)
        return self._space

    @property
    def best(self) -> Trial | None:
        """The fastest candidate that is faster than the default and was confirmed."""
        good = [trial for trial in self.trials if trial.confirmed and trial.ratio and trial.ratio < FASTER]
        return min(good, key=lambda trial: trial.ratio or 1.0, default=None)

    @property
    def now_ms(self) -> float:
        """Its time with the best candidate."""
        return self.time_ms * ((self.best.ratio or 1.0) if self.best else 1.0)

    def promise(self) -> float:
        """What another batch may gain, in proportion: time, less and less with every trial since the last gain."""
        order = [trial.confirmed and trial is self.best for trial in self.trials]
        since = len(order) - order.index(True) if any(order) else len(order)
        return 0.0 if self.exhausted else self.now_ms / (_BATCH + since)


def propose(task: Task, rng: random.Random, count: int) -> list[Choices]:
    """Up to `count` candidates that were not tried: none if there are none."""
    rules = task.space
    usual = next(iter(rules))
    tried = {_key(trial.choices) for trial in task.trials}
    best = dict(task.best.choices) if task.best else {}
    found: dict[object, Choices] = {}
    for _ in range(count * _TRIES):
        if len(found) == count:
            break
        choices: dict[str, Choice] = dict(best)
        if rng.random() < _ANYWHERE:
            rule = rng.choice(list(rules))
            choices = {name: rng.choice(values) for name, values in rules[rule].items()}
            choices["rule"] = rule
        else:
            rule = str(choices.get("rule") or usual)
            moves = [(name, value) for name, values in rules.get(rule, {}).items() for value in values]
            moves += [("rule", other) for other in rules if other != rule]
            if not moves:
                break
            name, value = rng.choice(moves)
            choices = {"rule": value} if name == "rule" else {**choices, name: value}
        made = _plain(choices, rules, usual)
        if made and _key(made) not in tried:
            found.setdefault(_key(made), made)
    return list(found.values())


def _plain(choices: Mapping[str, Choice], rules: Mapping[str, Mapping[str, Sequence[Choice]]], usual: str) -> Choices:
    """Without what is the default anyway."""
    rule = str(choices.get("rule") or usual)
    names = rules.get(rule, {})
    kept = {name: value for name, value in choices.items() if name in names and value != names[name][0]}
    return kept if rule == usual else {**kept, "rule": rule}


def _key(choices: Choices) -> object:
    return tuple(sorted(choices.items(), key=lambda item: item[0]))


@dataclass(frozen=True)
class Step:
    """One measurement: which kernel, what was tried, how it ended."""

    task: Task
    trial: Trial


def search(
    tasks: Sequence[Task],
    database: Database,
    builder: Builder,
    runner: Runner,
    go_on: Callable[[], bool],
    seed: int = 0,
) -> Iterator[Step]:
    """Try candidates, yielding every one, while `go_on()`; what was found is in the tasks and in the database."""
    rng = random.Random(seed)
    while go_on():
        task = max(tasks, key=Task.promise, default=None)
        if task is None or task.promise() <= 0:
            return
        candidates = propose(task, rng, _BATCH)
        if not candidates:
            task.exhausted = True
            continue
        if task._default is None:
            (default,) = builder.build(task.kernel, [{}])
            if isinstance(default, Failed):
                task.exhausted = True
                continue
            task._default = default
            _time(task, default, runner)
        built = builder.build(task.kernel, candidates)
        for choices, candidate in zip(candidates, built, strict=True):
            trial = _try(task, task._default, choices, candidate, runner)
            database.add(task.number, task.kernel.sizes, trial)
            task.trials.append(trial)
            yield Step(task, trial)
            if not go_on():
                return


def _time(task: Task, default: Built, runner: Runner) -> None:
    """How long the default takes where it is measured."""
    if task.calls:
        with contextlib.suppress(Failed):  # then candidates will show it
            found = runner.measure(task.kernel, default, default, _TIME_PAIRS, float("inf"))
            task.time_ms, task.calls = found.time_ns * task.calls / 1e6, 0


def _try(task: Task, default: Built, choices: Choices, candidate: Built | Failed, runner: Runner) -> Trial:
    if isinstance(candidate, Failed):
        return Trial(choices, "refused" if isinstance(candidate, DoesNotFit) else "failed")
    if candidate.library == default.library:
        return Trial(choices, "right", 1.0)
    try:
        found = runner.measure(task.kernel, default, candidate, _PAIRS, _LIMIT)
        if found.error > TOLERANCE:
            return Trial(choices, "wrong")
        best = task.best.ratio or 1.0 if task.best else FASTER
        if found.ratio >= best:
            return Trial(choices, "right", found.ratio, found.time_ns)
        again = runner.measure(task.kernel, default, candidate, _CONFIRM_PAIRS, _LIMIT)
        return Trial(choices, "right", again.ratio, again.time_ns, again.ratio < FASTER)
    except Failed:
        return Trial(choices, "failed")
