"""The race: turns, statistics, and contestants that fail."""

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from dscc.bench import Contestant, Result, race
from dscc.bench.race import Child, EngineError
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
