"""The check that an artifact carries of itself."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import dscc
from dscc import selfcheck
from dscc.artifact import Artifact
from dscc.errors import InputError


@pytest.fixture(scope="module")
def checked() -> Artifact:
    x, y, z = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in "xyz")
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Neg", ["y"], ["z"])]
    graph = helper.make_graph(nodes, "g", [x], [y, z])
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return selfcheck.record(dscc.compile(model))


def altered(artifact: Artifact, change: Callable[[dict], None]) -> Artifact:
    check = {"seed": 0, "outputs": {name: dict(of) for name, of in artifact.manifest.check["outputs"].items()}}
    change(check["outputs"])
    return artifact.with_check(check)


def test_what_was_recorded_holds(checked: Artifact, tmp_path):
    assert list(checked.manifest.check["outputs"]) == ["y", "z"]
    checked.save(tmp_path / "x.dscc")
    assert selfcheck.failures(dscc.load(tmp_path / "x.dscc", threads=1)) == {}
    assert selfcheck.failures(dscc.load(tmp_path / "x.dscc", threads=2)) == {}


def test_an_output_that_differs(checked: Artifact):
    def change(outputs: dict) -> None:
        first = outputs["z"]["samples"][0]
        outputs["z"] |= {"sha256": "0", "samples": ["-7", *outputs["z"]["samples"][1:]]}
        assert first != "-7"

    reasons = selfcheck.failures(altered(checked, change).load())
    assert list(reasons) == ["z"]
    assert reasons["z"].endswith(", expected -7")


def test_other_bits_with_the_same_values_are_no_failure(checked: Artifact):
    assert selfcheck.failures(altered(checked, lambda outputs: outputs["y"].update(sha256="0")).load()) == {}


def test_another_shape(checked: Artifact):
    change = altered(checked, lambda outputs: outputs["y"].update(sha256="0", shape=[2, 3]))
    assert selfcheck.failures(change.load()) == {"y": "shape (1, 3), expected (2, 3)"}


def test_recording_again_gives_the_same_bytes(checked: Artifact):
    assert bytes(selfcheck.record(checked).image) == bytes(checked.image)


def test_none_for_another_machine(checked: Artifact):
    other = checked._replace(manifest=checked.manifest._replace(machine="riscv64", check={}))
    assert selfcheck.record(other) is other


def test_an_artifact_without_a_check(checked: Artifact):
    with pytest.raises(InputError, match="the artifact holds no check of itself; give --against MODEL"):
        selfcheck.failures(checked.with_check({}).load())


def test_samples_of_infinities():
    digest = selfcheck._digest(np.array([np.inf, np.nan, 1.5], np.float32))
    assert digest["samples"] == ["inf", "nan", "1.5"]
    assert selfcheck._reason(np.array([np.inf, np.nan, 1.5], np.float32), digest | {"sha256": "0"}) == ""
    assert selfcheck._reason(np.array([1, np.nan, 1.5], np.float32), digest) == "value 1, expected inf"


def test_texts_of_another_engine():
    x = helper.make_tensor_value_info("x", TensorProto.INT64, ["n"])
    y = helper.make_tensor_value_info("y", TensorProto.STRING, ["n"])
    keys = {"keys_int64s": [0, 1, 2], "values_strings": ["no", "yes", "perhaps"], "default_string": "other"}
    node = helper.make_node("LabelEncoder", ["x"], ["y"], domain="ai.onnx.ml", **keys)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 3)]
    graph = helper.make_graph([node], "g", [x], [y])
    with pytest.warns(UserWarning, match="it maps strings"):
        artifact = selfcheck.record(dscc.compile(helper.make_model(graph, opset_imports=opsets, ir_version=9)))
    assert selfcheck.failures(artifact.load()) == {}
    wrong = altered(artifact, lambda outputs: outputs["y"].update(sha256="0", samples=["never"]))
    assert selfcheck.failures(wrong.load())["y"].endswith(", expected never")
