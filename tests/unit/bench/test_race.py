"""The race: turns, statistics, and contestants that fail."""

import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from dscc.bench import Contestant, Result, check_engine, race
from dscc.bench.child import Child, EngineError
from dscc.bench.race import _turns
from dscc.errors import InputError


@pytest.fixture
def model(tmp_path: Path) -> Path:
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Exp", ["x"], ["y"])], "g", infos[:1], infos[1:])
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    return path


def test_a_race(model: Path) -> None:
    pytest.importorskip("onnxruntime")
    said: list[str] = []
    contestants = [Contestant("onnxruntime", model, 1), Contestant("onnxruntime", model, 2)]
    results = race(contestants, {"x": np.zeros(2, "float32")}, rounds=2, progress=said.append)
    assert [result.contestant for result in results] == contestants
    for result in results:
        assert not result.error
        assert len(result.wall_ms) == len(result.cpu_ms) >= 2
        assert 0 < result.spread_ms[0] <= result.median_ms <= result.spread_ms[1]
        assert min(result.load_ms, result.import_ms, result.first_ms) > 0
        assert 1e6 < result.before_bytes < result.peak_bytes < 1e9
    assert said[-1] == "round 2 of 2"


def test_who_fails_does_not_stop_the_others(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    broken = tmp_path / "broken.onnx"
    broken.write_text("hello")
    contestants = [Contestant("onnxruntime", broken, 1), Contestant("onnxruntime", model, 1)]
    bad, good = race(contestants, {"x": np.zeros(2, "float32")}, rounds=1)
    assert bad.error.startswith("onnxruntime: ") and not bad.wall_ms
    assert good.wall_ms and not good.error


def test_engines_that_are_not_there(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="unknown engine 'onnxrntime'; did you mean 'onnxruntime'"):
        race([Contestant("onnxrntime", model, 1)], {})
    with pytest.raises(InputError, match=r"engine 'inductor' runs '.pt2' files, and the model is a '.onnx' file"):
        check_engine("inductor", reads=".onnx")
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="engine 'openvino' is not installed; run 'pip install openvino'"):
        race([Contestant("openvino", model, 1)], {})


def test_a_process_that_dies_is_an_error_of_its_engine(model: Path, tmp_path: Path) -> None:
    with Child(Contestant("onnxruntime", model, 1), tmp_path / "no-feeds.npz") as child:
        with pytest.raises(EngineError, match="onnxruntime"):
            child.ask("load")


def test_statistics() -> None:
    result = Result(Contestant("dscc", Path(), 1), wall_ms=[1, 2, 3, 4, 100], cpu_ms=[1, 1, 2, 3, 4])
    assert (result.median_ms, result.median_cpu_ms) == (3, 2)
    assert result.spread_ms[0] < 3 < result.spread_ms[1]
    assert Result(Contestant("dscc", Path(), 1), wall_ms=[7]).spread_ms == (7, 7)


def test_what_is_compiled_ahead_is_kept_and_what_is_refused_is_remembered(model: Path, tmp_path: Path) -> None:
    feeds = {"x": np.array([0.0, 1.0], "float32")}
    cache = tmp_path / "ahead"
    contestant = Contestant("tvm", model, 1)
    (result,) = race([contestant], feeds, rounds=1, cache=cache)
    assert not result.error
    np.testing.assert_allclose(result.outputs[0], np.exp(feeds["x"]), rtol=1e-5)
    (made,) = cache.iterdir()
    before = made.stat().st_mtime_ns
    race([contestant], feeds, rounds=0, cache=cache)
    assert [path.stat().st_mtime_ns for path in cache.iterdir()] == [before]

    broken = tmp_path / "broken.onnx"
    broken.write_text("hello")
    (result,) = race([Contestant("tvm", broken, 1)], feeds, rounds=1, cache=cache)
    (refusal,) = cache.glob("*.refused")
    assert result.error == refusal.read_text()
    assert result.error.startswith("tvm: ")


def test_slow_engines_take_part_in_fewer_rounds() -> None:
    assert [_turns(once, 200.0, 15) for once in (1.0, 400.0, 1000.0, 2900.0, 1e6)] == [15, 15, 6, 2, 1]


def test_who_waits_is_stopped(model: Path, tmp_path: Path) -> None:
    feeds = tmp_path / "feeds.npz"
    np.savez(feeds, x=np.zeros(2, "float32"))
    with Child(Contestant("onnxruntime", model, 2), feeds) as child:
        child.ask("load")
        deadline = time.monotonic() + 10  # a signal is not delivered at once
        while "State:\tT" not in (status := Path(f"/proc/{child.pid}/status").read_text()):
            assert time.monotonic() < deadline, status
            time.sleep(0.01)
        assert child.ask("run 1")["wall_ms"]
