"""Who is the best peer, by how much, and what the page says."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from benchmarks import models, race, standing
from benchmarks.standing import Entry, Record
from dscc.bench import Contestant, Result

PEAKS = {"1": {"flops": 100e9, "bytes": 10e9}}


def entry(engine: str, times: list[float], error: float | None = 0.0, threads: int = 1) -> Entry:
    turns = {str(i): (time, time) for i, time in enumerate(times)}
    middle = sorted(times)[len(times) // 2]
    return Entry(engine, threads, middle, (min(times), max(times)), middle, len(times), turns, error, 10**6, 1, 2, 3)


def kernel(name: str, time_ms: float, flops: int, moved: int) -> dict[str, object]:
    return {"kernel": name, "rule": "r", "calls": 1, "time_ms": time_ms, "flops": flops, "bytes": moved, "nodes": []}


@pytest.fixture
def record() -> Record:
    return Record(
        "resnet50",
        "1x3",
        [
            entry("dscc", [1.0, 2.0, 1.0]),
            entry("onnxruntime", [3.0, 6.0, 3.0]),
            entry("openvino", [2.0, 4.0, 2.0]),
            entry("tvm", [0.1, 0.1, 0.1], error=1.0),
        ],
        {"iree": "iree: no such operator"},
        {"wall_s": 2.0, "size_bytes": 10**6, "peak_bytes": 2 * 10**6},
        {1: [kernel("busy", 1.0, 90_000_000, 10), kernel("idle", 0.5, 1_000_000, 1_000_000)]},
    )


def test_the_best_peer_is_the_fastest_that_is_right(record: Record) -> None:
    peer = standing.best_peer(record, 1)
    assert peer is not None and peer.engine == "openvino"
    assert standing.lead(record, 1) == 2.0  # turn by turn, although the machine was slower in the second
    assert standing.lead(record, 2) is None


def test_an_engine_of_few_turns_is_compared_in_those(record: Record) -> None:
    record.entries[2].turns = {"1": (5.0, 5.0)}
    assert standing.lead(record, 1) == 2.5


def test_the_mean_is_geometric(record: Record) -> None:
    slow = Record("vit_s", "", [entry("dscc", [2.0]), entry("openvino", [1.0])])
    assert standing.mean_lead([record, slow], 1) == pytest.approx(1.0)


def test_dscc_has_to_be_right_and_there(record: Record) -> None:
    assert standing.good(record)
    record.entries[0].error = 0.5
    assert not standing.good(record)
    assert not standing.good(Record("resnet50", "", absent={"dscc": "does not compile"}))


def test_models_that_round_on_the_way_may_round_differently() -> None:
    for name in sorted(models.ROUNDED):
        assert standing.good(Record(name, "", [entry("dscc", [1.0], error=5e-3)]))
    assert not standing.good(Record("minilm_l6_int8", "", [entry("dscc", [1.0], error=5e-3)]))


def test_the_kernels_that_lose_most_come_first(record: Record) -> None:
    (loss, share, row), (least, high, _) = standing.losses(record.kernels[1], PEAKS["1"])
    assert row["kernel"] == "idle"
    assert (loss, share) == (pytest.approx(0.4), pytest.approx(0.2))
    assert (least, high) == (pytest.approx(0.1), pytest.approx(0.9))


def test_the_page_names_everybody(record: Record) -> None:
    text = standing.page([record], PEAKS)
    assert "geometric mean of best / ours 2.00 over 1 models, below 0.95: none; peaks 100 GFLOP/s, 10.0 GB/s" in text
    assert "wrong by 1e+00" in text
    assert "- iree, resnet50: no such operator" in text
    assert "| resnet50 | busy" in text


def test_a_record_survives_its_file(record: Record, tmp_path) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps(asdict(record)))
    again = standing.read(path)
    assert standing.page([again], PEAKS) == standing.page([record], PEAKS)


def test_starts_are_medians_and_their_sum_is_one_too(record: Record) -> None:
    model = Contestant("dscc", models.REGISTRY, 1)
    starts = [Result(model, import_ms=i, load_ms=10 * i, first_ms=100) for i in (1, 2, 9)]
    standing.put_starts(record, "dscc", 1, starts)
    assert record.entries[0].starts_ms == [2, 20, 100, 122]


def test_engines_that_cannot_be_given_a_model() -> None:
    taking, absent = race.able("magika_v3_3", ["onnxruntime", "inductor"])
    assert taking == ["onnxruntime"]
    assert set(absent) == {"inductor"}


def test_cases_of_models() -> None:
    assert models.case("gpt2_124m:decode") == ("gpt2_124m", 1)
    assert models.case("resnet50") == ("resnet50", 0)
    assert models.cases("llama_8x1024") == ["llama_8x1024:prefill", "llama_8x1024:decode"]
    with pytest.raises(models.ModelError, match="unknown case of model 'gpt2_124m' 'decod'"):
        models.case("gpt2_124m:decod")
    assert set(models.RACED) <= models.registry().keys()


def test_a_race_that_is_interrupted_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(race, "peaks", lambda threads: PEAKS)
    measured: list[str] = []

    def measure(case: str, args: object, folder: object) -> Record:
        if case == "resnet50" and not measured.count("resnet50"):
            measured.append(case)
            raise KeyboardInterrupt
        measured.append(case)
        return Record(case, "", [entry("dscc", [1.0])])

    monkeypatch.setattr(race, "measure", measure)
    args = race.parse(["--models", "vit_s,resnet50", "--threads", "1", "--engines", "dscc"])
    with pytest.raises(KeyboardInterrupt):
        race.run(args)
    records, _ = race.run(args)
    assert measured == ["vit_s", "resnet50", "resnet50"]
    assert [record.case for record in records] == ["vit_s", "resnet50"]
