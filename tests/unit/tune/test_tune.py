"""The tuner: what it tries, what it believes, what it keeps, and that a compilation uses it."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest

import dscc
from dscc.errors import TuneError
from dscc.tune.database import Database, Trial
from dscc.tune.kernel import Built, Kernel, build, space
from dscc.tune.measure import TOLERANCE, Measured, measure
from dscc.tune.search import Task, propose, search
from dscc.tune.workers import Builder, Failed, LocalBuilder, LocalRunner, Runner


@pytest.fixture
def database(tmp_path, found):
    return Database(tmp_path / "t.db", found[2], "this machine")


def test_a_constant_of_open_sizes_has_those_of_the_call(found):
    func, _, target = found
    sizes = ((5, 24), (24, 40), (40,), (5, 40))
    kernel = Kernel.of("fused", func, frozenset({0, 1}), sizes, target)
    assert kernel.sizes[:2] == ((5, 24), (24, 40))
    assert kernel.constants == {0, 1}


def test_roles_of_arguments(kernel):
    assert [argument.role for argument in kernel.arguments] == ["input", "constant", "constant", "output"]


def test_the_space_begins_with_the_rule_that_is_the_default(kernel):
    rules = space(kernel)
    assert next(iter(rules)) == "matmul"
    assert "fallback" in rules
    assert {"tile", "unroll"} <= set(rules["matmul"])


def test_proposals_are_new_and_never_the_default(kernel):
    task = Task(kernel, 1, 1.0)
    rng = random.Random(0)
    seen = set()
    for _ in range(6):
        for choices in propose(task, rng, 8):
            assert choices
            key = tuple(sorted(choices.items()))
            assert key not in seen
            seen.add(key)
            task.trials.append(Trial(choices, "right", 1.2))
    assert len(seen) > 20


def test_choices_change_the_code_and_not_the_result(kernel):
    default, other = build(kernel, {}), build(kernel, {"tile": space(kernel)["matmul"]["tile"][3], "unroll": 4})
    assert default.library != other.library
    result = measure(kernel, default, other, threads=1, pairs=2, limit=100.0)
    assert result.error <= 1e-6
    assert result.ratio > 0


def test_a_wrong_result_is_seen(kernel, found):
    """A library that computes relu(x @ w + 2 b) in place of relu(x @ w + b)."""
    default = build(kernel, {})
    bias = 2
    assert kernel.arguments[bias].size == (40,)

    @dataclasses.dataclass(frozen=True)
    class Doubled:
        def pack(self, weight):
            return weight * 2

    wrong = Built(default.library, {**default.packings, bias: Doubled()})
    assert measure(kernel, default, wrong, 1, 1, 100.0).error > TOLERANCE


def test_a_crash_is_a_result(kernel):
    runner = LocalRunner(1)
    default = build(kernel, {})
    try:
        with pytest.raises(Failed):
            runner.measure(kernel, default, Built(b"no library", default.packings), 1, 2.0)
        short = dataclasses.replace(kernel, arguments=kernel.arguments[:2])  # reads arguments that are not there
        with pytest.raises(Failed):
            runner.measure(short, default, default, 1, 2.0)
        assert runner.measure(kernel, default, default, 1, 100.0).error == 0.0
    finally:
        runner.close()


def test_a_candidate_that_cannot_be_built_fails_alone(kernel):
    builder = LocalBuilder(1)
    try:
        broken = dataclasses.replace(kernel, target="x86:no-such-processor")
        (failed,) = builder.build(broken, [{}])
        (built,) = builder.build(kernel, [{}])
    finally:
        builder.close()
    assert isinstance(failed, Failed)
    assert isinstance(built, Built)


class FakeBuilder(Builder):
    """Libraries that are told apart by their choices."""

    def build(self, kernel, candidates):
        return [Built(repr(sorted(choices.items())).encode(), {}) for choices in candidates]

    def close(self):
        pass


class FakeRunner(Runner):
    """unroll=2 takes 0.8 of the default's time, unroll=4 computes something else, and the rest is slower."""

    def __init__(self):
        self.measured = []

    def measure(self, kernel, default, candidate, pairs, limit):
        self.measured.append(candidate.library)
        text = candidate.library.decode()
        if "'unroll', 4" in text:
            return Measured(1.0, 0.1, 1.0)
        return Measured(0.0, 0.8 if text == "[('unroll', 2)]" else 1.5, 1.0)

    def close(self):
        pass


def run_search(task, database, runner, count):
    left = iter(range(count))
    return list(search([task], database, FakeBuilder(), runner, lambda: next(left, None) is not None))


def test_only_right_and_confirmed_candidates_are_used_and_all_are_kept(kernel, database, found):
    func, constants, _ = found
    number = database.kernel(func, constants)
    task, runner = Task(kernel, number, 2.0), FakeRunner()
    run_search(task, database, runner, 400)
    assert task.best is not None
    assert task.best.choices == {"unroll": 2}
    assert task.now_ms == pytest.approx(1.6)
    assert runner.measured.count(b"[('unroll', 2)]") == 2  # tried, and confirmed
    assert database.best(func, constants) == {"unroll": 2}
    assert {trial.state for trial in task.trials} == {"right", "wrong"}
    kept = database.trials(number, kernel.sizes)
    assert len(kept) == len(task.trials)

    again = Task(kernel, number, 2.0, kept)
    more = FakeRunner()
    run_search(again, database, more, 40)
    assert not set(more.measured) & set(runner.measured)  # it goes on where it stopped


def test_a_kernel_is_found_by_structure_in_another_process(kernel, tmp_path, found):
    func, constants, target = found
    path = tmp_path / "t.db"
    first = Database(path, target, "a machine")
    first.add(first.kernel(func, constants), kernel.sizes, Trial({"unroll": 2}, "right", 0.9, 1.0, True))
    renamed = func.with_attr("global_symbol", "other")
    assert Database(path, target, "another machine").best(renamed, constants) == {"unroll": 2}
    assert Database(path, target, "a machine").best(func, frozenset()) == {}
    assert Database(path, "x86:other", "a machine").best(func, constants) == {}


def test_an_unconfirmed_or_slower_candidate_is_not_used(kernel, database, found):
    func, constants, _ = found
    number = database.kernel(func, constants)
    database.add(number, kernel.sizes, Trial({"unroll": 2}, "right", 0.5, 1.0, False))
    database.add(number, kernel.sizes, Trial({"unroll": 4}, "right", 0.99, 1.0, True))
    assert database.best(func, constants) == {}


def test_a_compilation_uses_the_database(model, kernel, tmp_path, found):
    func, constants, target = found
    path = tmp_path / "t.db"
    database = Database(path, target, "any")
    choices = {"rule": "fallback"}
    database.add(database.kernel(func, constants), kernel.sizes, Trial(choices, "right", 0.5, 1.0, True))
    artifact = dscc.compile(model, db=path)
    assert artifact.manifest.summary["tuned_kernels"] == 1
    assert [of["rule"] for of in artifact.manifest.kernels["functions"].values()] == ["fallback"]
    x = np.random.default_rng(0).standard_normal((3, 24), "float32")
    np.testing.assert_allclose(artifact.load()(x)[0], dscc.compile(model).load()(x)[0], rtol=1e-5, atol=1e-5)


def test_files_that_are_no_database_are_refused(model, tmp_path):
    with pytest.raises(TuneError, match="does not exist"):
        dscc.compile(model, db=tmp_path / "none.db")
    (tmp_path / "text.db").write_text("not a database, " * 100)
    with pytest.raises(TuneError, match="cannot be used"):
        dscc.compile(model, db=tmp_path / "text.db")
