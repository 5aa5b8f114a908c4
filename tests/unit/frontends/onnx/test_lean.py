"""Large weights are left in the model file: what is parsed is the rest, and their content is mapped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from dscc.errors import FrontendError
from dscc.frontends.onnx import load as loading
from dscc.frontends.onnx.lean import Irregular, lean
from dscc.frontends.onnx.values import tensor_array

from .conftest import build, load, noise

LARGE = noise(700, 500)
WEIGHTS = {"small": noise(500), "large": LARGE, "half": LARGE.astype(np.float16)[:, :400], "many": noise(300, 1000)}


def model() -> onnx.ModelProto:
    nodes = [helper.make_node("MatMul", ["x", "large"], ["y"]), helper.make_node("Add", ["y", "small"], ["z"])]
    return build(nodes, {"x": ("f", ("n", 700))}, WEIGHTS)


def test_what_is_parsed_and_what_is_not() -> None:
    text = model().SerializeToString()
    found = lean(memoryview(text))
    assert sorted(found.weights) == [1, 3]
    assert len(found.text) < len(text) - LARGE.nbytes - WEIGHTS["many"].nbytes
    for index, (start, end) in found.weights.items():
        assert text[start:end] == list(WEIGHTS.values())[index].tobytes()
    rest = onnx.ModelProto.FromString(found.text)
    whole = model()
    for index in found.weights:
        assert not rest.graph.initializer[index].HasField("raw_data")
        whole.graph.initializer[index].ClearField("raw_data")
    assert rest == whole


def test_a_loaded_model(tmp_path: Path) -> None:
    onnx.save(model(), tmp_path / "m.onnx")
    found = loading.load(tmp_path / "m.onnx")
    arrays = [tensor_array(tensor, "it") for tensor in found.graph.initializer]
    for array, want in zip(arrays, WEIGHTS.values(), strict=True):
        assert np.array_equal(array, want)
    assert not arrays[1].flags.owndata
    assert load(tmp_path / "m.onnx").script() == load(model()).script()


def test_a_large_weight_of_another_size_than_it_says(tmp_path: Path) -> None:
    damaged = model()
    damaged.graph.initializer[1].dims[0] = 701
    (tmp_path / "m.onnx").write_bytes(damaged.SerializeToString())
    with pytest.raises(FrontendError, match=r"weight 'large' is damaged: it has 1400000 bytes, but its shape \[701,"):
        load(tmp_path / "m.onnx")


@pytest.mark.parametrize("cut", [1, 5, 100, 1000, 500_000, 1_399_000])
def test_truncated(cut: int, tmp_path: Path) -> None:
    text = model().SerializeToString()[:-cut]
    with pytest.raises(Irregular):
        lean(memoryview(text))
    (tmp_path / "m.onnx").write_bytes(text)
    with pytest.raises(FrontendError, match="is not ONNX, or is truncated"):
        load(tmp_path / "m.onnx")


@pytest.mark.parametrize("text", [b"\xff" * 20, b"\x3b", b"\x38\x01", b"\x3a\x7f"])
def test_what_is_no_model(text: bytes) -> None:
    """A number without an end, a group, a graph that is a number, a length past the end."""
    with pytest.raises(Irregular):
        lean(memoryview(text))


def test_content_given_twice_is_left_to_protobuf() -> None:
    """The last one counts; which one that is, is for protobuf to know."""
    tensor = onnx.numpy_helper.from_array(LARGE, "large").SerializeToString()
    twice = tensor + onnx.TensorProto(raw_data=LARGE[::-1].tobytes()).SerializeToString()
    graph = b"\x2a" + _varint(len(twice)) + twice
    text = b"\x3a" + _varint(len(graph)) + graph
    found = lean(memoryview(text))
    assert not found.weights and found.text == text


def _varint(value: int) -> bytes:
    parts = []
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])
