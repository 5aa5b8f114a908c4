"""What is wrong with a model file is said in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from dscc.errors import FrontendError
from dscc.frontends.onnx import external
from dscc.frontends.onnx import load as loading
from dscc.frontends.onnx.values import tensor_array

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


def _with(folder: Path, **entries: Any) -> Path:
    """A model whose weight's external data has these entries instead of, or beside, its own."""
    proto = _external(folder)
    tensor = proto.graph.initializer[0]
    known = {entry.key: entry.value for entry in tensor.external_data} | {k: str(v) for k, v in entries.items()}
    del tensor.external_data[:]
    for key, value in known.items():
        tensor.external_data.add(key=key, value=value)
    (folder / "m.onnx").write_bytes(proto.SerializeToString())
    return folder / "m.onnx"


@pytest.mark.parametrize(
    "location", ["../weights.bin", "link/weights.bin", "file", "a/../../weights.bin", "/etc/passwd"]
)
def test_external_data_outside_the_folder(tmp_path: Path, location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    model = _with(folder, location=location)
    (folder / "weights.bin").rename(tmp_path / "weights.bin")
    (folder / "link").symlink_to(tmp_path)
    (folder / "file").symlink_to(tmp_path / "weights.bin")
    monkeypatch.setattr(external, "_map", lambda path: pytest.fail(f"opened {path}"))
    with pytest.raises(FrontendError, match=r"weight 'w' is kept in .* outside the model's folder"):
        load(model)


def test_external_data_behind_a_hard_link(tmp_path: Path) -> None:
    model = _with(tmp_path)
    (tmp_path / "other.bin").hardlink_to(tmp_path / "weights.bin")
    with pytest.raises(FrontendError, match="a hard link"):
        load(model)


def test_external_data_in_a_link_that_stays_inside(tmp_path: Path) -> None:
    model = _with(tmp_path, location="link.bin")
    (tmp_path / "link.bin").symlink_to("weights.bin")
    assert load(model).script() == load(MODEL).script()


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"offset": 4}, r"at bytes 4 to 1204 of 'weights\.bin', which has 1200"),
        ({"offset": -4}, "the offset '-4'"),
        ({"offset": "x"}, "the offset 'x'"),
        ({"length": 4}, "has 4 bytes in 'weights.bin', but its shape .300. and type ask for 1200"),
        ({"length": 10**30}, "the length '1000"),
        ({"location": ""}, "no location is given"),
        ({"location": "."}, "is not a file"),
        ({"location": "x" * 5000}, "cannot be read: File name too long"),
        ({"location": "a\0b"}, "outside the model's folder"),
    ],
)
def test_external_data_where_it_cannot_be(tmp_path: Path, entries: dict[str, Any], message: str) -> None:
    with pytest.raises(FrontendError, match=message):
        load(_with(tmp_path, **entries))


def test_external_data_in_a_file_whose_name_is_not_utf8(tmp_path: Path) -> None:
    model = _with(tmp_path, location="WWW.bin")
    model.write_bytes(model.read_bytes().replace(b"WWW.bin", b"\xe1\xff\xfe.bin"))
    with pytest.raises(FrontendError, match=r"is kept in b'\\xe1\\xff\\xfe.bin', which is no name in UTF-8"):
        load(model)


@pytest.mark.parametrize("offset", [0, 16, 1199])
def test_external_data_that_overlaps(tmp_path: Path, offset: int) -> None:
    proto = _external(tmp_path)
    copy: Any = proto.graph.initializer.add()
    copy.CopyFrom(proto.graph.initializer[0])
    copy.name = "second"
    next(entry for entry in copy.external_data if entry.key == "offset").value = str(offset)
    (tmp_path / "weights.bin").write_bytes(bytes(2400))
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(FrontendError, match="weights may not overlap"):
        load(tmp_path / "m.onnx")


def test_external_data_of_an_attribute(tmp_path: Path) -> None:
    value = onnx.numpy_helper.from_array(np.arange(300, dtype=np.float32))
    nodes = [helper.make_node("Constant", [], ["w"], value=value), helper.make_node("Add", ["x", "w"], ["y"])]
    model = build(nodes, {"x": ("f", ("n", 300))})
    want = load(model).script()
    onnx.save(
        model,
        tmp_path / "m.onnx",
        save_as_external_data=True,
        location="w.bin",
        size_threshold=0,
        convert_attribute=True,
    )
    assert (tmp_path / "w.bin").stat().st_size == 1200
    assert load(tmp_path / "m.onnx").script() == want


def test_external_data_is_mapped(tmp_path: Path) -> None:
    """Twelve gigabytes of zeros in a sparse file, of which the model uses two small pieces."""
    proto = _external(tmp_path)
    far: Any = proto.graph.initializer.add()
    far.CopyFrom(onnx.TensorProto(name="big", data_type=1, dims=[3 * 2**30]))
    far.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", "big.bin"), ("offset", "64"), ("length", str(12 * 2**30))):
        far.external_data.add(key=key, value=value)
    with open(tmp_path / "big.bin", "wb") as file:
        file.truncate(12 * 2**30 + 64)
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    found = loading.load(tmp_path / "m.onnx")
    array = tensor_array(found.graph.initializer[1], "big")
    assert array.shape == (3 * 2**30,) and array[-1] == 0 and not array.flags.owndata
    assert load(tmp_path / "m.onnx").script() == load(MODEL).script()
