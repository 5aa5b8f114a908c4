"""What is wrong with a model file is said in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from dscc.errors import FrontendError
from dscc.frontends.onnx import load as loading

from .conftest import build, load

MODEL = build([helper.make_node("Add", ["x", "w"], ["y"])], {"x": ("f", ("n", 300))}, {"w": np.ones(300, np.float32)})


def test_a_path_and_a_proto_give_the_same(tmp_path: Path) -> None:
    onnx.save(MODEL, tmp_path / "m.onnx")
    assert load(tmp_path / "m.onnx").script() == load(MODEL).script()


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(FrontendError, match=r"cannot find model file '.*no\.onnx'"):
        load(tmp_path / "no.onnx")


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(FrontendError, match="is not a file"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04 a zip file, not a model", "is not ONNX"),
        (MODEL.SerializeToString()[:-100], "is not ONNX, or is truncated"),
        (onnx.ModelProto(ir_version=8).SerializeToString(), "has no graph"),
    ],
)
def test_damaged(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(FrontendError, match=message) as caught:
        load(tmp_path / "m.onnx")
    assert "\n" not in str(caught.value)


def test_size_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx.save(MODEL, tmp_path / "m.onnx")
    monkeypatch.setattr(loading, "MAX_BYTES", 100)
    with pytest.raises(FrontendError, match="allowed: 100"):
        load(tmp_path / "m.onnx")


def test_opset_newer_than_onnx(tmp_path: Path) -> None:
    model = onnx.ModelProto.FromString(MODEL.SerializeToString())
    model.opset_import[0].version = 999
    with pytest.raises(FrontendError, match="uses opset 999; supported: 1 to"):
        load(model)


def _external(folder: Path) -> onnx.ModelProto:
    model = onnx.ModelProto.FromString(MODEL.SerializeToString())
    onnx.save(model, folder / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    return onnx.load(folder / "m.onnx", load_external_data=False)


def test_external_data(tmp_path: Path) -> None:
    _external(tmp_path)
    assert load(tmp_path / "m.onnx").script() == load(MODEL).script()


def test_external_data_missing(tmp_path: Path) -> None:
    _external(tmp_path)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(FrontendError, match=r"weight 'w' .* 'weights\.bin', which is missing"):
        load(tmp_path / "m.onnx")


def test_external_data_truncated(tmp_path: Path) -> None:
    _external(tmp_path)
    (tmp_path / "weights.bin").write_bytes(b"short")
    with pytest.raises(FrontendError, match="weight 'w'"):
        load(tmp_path / "m.onnx")


@pytest.mark.parametrize("location", ["../weights.bin", "link/weights.bin"])
def test_external_data_outside_the_folder(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    proto: Any = _external(folder)
    (folder / "weights.bin").rename(tmp_path / "weights.bin")
    (folder / "link").symlink_to(tmp_path)
    for entry in proto.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    (folder / "m.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(FrontendError, match="outside the model's folder"):
        load(folder / "m.onnx")
