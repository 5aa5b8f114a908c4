"""The numbers of `dscc verify`, and the search for the node that departs."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from dscc import verify
from dscc.errors import FrontendError, InputError


def test_equal_outputs() -> None:
    x = np.array([1.0, -2.0, np.nan, np.inf], "float32")
    diff = verify.compare("y", x, x.copy())
    assert (diff.max_abs, diff.max_rel, diff.max_ulp, diff.cosine, diff.reason) == (0, 0, 0, pytest.approx(1), "")
    assert diff.within(0)


def test_differences_are_relative_to_the_largest_reference_value() -> None:
    diff = verify.compare("y", np.array([10.0, 0.5], "float32"), np.array([10.0, 0.0], "float32"))
    assert diff.max_abs == pytest.approx(0.5)
    assert diff.max_rel == pytest.approx(0.05)
    assert diff.within(0.06) and not diff.within(0.04)
    assert diff.cosine == pytest.approx(100 / (10 * np.hypot(10, 0.5)))


def test_halves_may_be_off_by_some_of_their_units() -> None:
    want = np.array([1.0, 0.25])
    single, half = (verify.compare("y", (want + 1e-3).astype(kind), want.astype(kind)) for kind in ("f4", "f2"))
    assert not single.within() and half.within() and not half.within(1e-4)
    assert not verify.compare("y", (want + 1e-2).astype("f2"), want.astype("f2")).within()


def test_ulps_count_representable_numbers_also_across_zero() -> None:
    want = np.array([1.0, -1.0, 1e-45], "float32")
    got = np.array([np.nextafter(np.float32(1), np.float32(2)), -1.0, -1e-45], "float32")
    assert verify.compare("y", got, want, atol=0).max_ulp == 3  # from -1e-45 over -0.0 and 0.0 to 1e-45
    assert verify.compare("y", got, want, atol=1e-40).max_ulp == 1
    assert verify.compare("y", got, want, atol=1e-3).max_ulp == 0


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_ulps_of_other_widths(dtype: str) -> None:
    one = np.ones(1, dtype)
    assert verify.compare("y", np.nextafter(one, one * 2), one, atol=0).max_ulp == 1


@pytest.mark.parametrize(
    ("got", "want", "said"),
    [
        (np.zeros((2, 3), "float32"), np.zeros((3, 2), "float32"), "shape (2, 3), expected (3, 2)"),
        (np.zeros(2, "float32"), np.zeros(2, "float64"), "type float32, expected float64"),
        (np.array([np.nan], "float32"), np.array([1], "float32"), "infinities or NaNs are not at the same places"),
        (np.array([np.inf], "float32"), np.array([-np.inf], "float32"), "infinities or NaNs"),
        (np.array(["a"]), np.array(["b"]), "values that are no numbers differ"),
    ],
)
def test_what_cannot_be_compared_never_agrees(got: Any, want: Any, said: str) -> None:
    diff = verify.compare("y", got, want)
    assert said in diff.reason
    assert not diff.within(1e9)


def test_integers_and_empty_outputs() -> None:
    assert verify.compare("y", np.array([1, 2]), np.array([1, 4])).max_abs == 2
    assert verify.compare("y", np.zeros((0, 3), "float32"), np.zeros((0, 3), "float32")).within(0)
    zeros = np.zeros(3, "float32")
    assert verify.compare("y", zeros, zeros).cosine == 1
    assert not verify.compare("y", zeros + 1, zeros).within(1)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """x -> Exp -> Neg -> Tanh -> y, with two nodes that have a name and one that has none."""
    nodes = [
        helper.make_node("Exp", ["x"], ["a"], name="first"),
        helper.make_node("Neg", ["a"], ["b"]),
        helper.make_node("Tanh", ["b"], ["y"], name="last"),
    ]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:])
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    return path


@pytest.mark.parametrize("engine", ["onnx", "onnxruntime"])
def test_reference_engines(model: Path, engine: str) -> None:
    if engine == "onnxruntime":
        pytest.importorskip(engine)
    reference = verify.reference(model, engine)
    assert [(info.name, info.type, info.shape) for info in reference.inputs] == [("x", "tensor(float)", ["n", 2])]
    x = np.ones((3, 2), "float32")
    np.testing.assert_allclose(reference.run(["y"], {"x": x})[0], np.tanh(-np.exp(x)), rtol=1e-6)


def test_reference_refuses(tmp_path: Path) -> None:
    with pytest.raises(FrontendError, match="does not exist"):
        verify.reference(tmp_path / "none.onnx")
    bad = tmp_path / "bad.onnx"
    bad.write_text("hello")
    with pytest.raises(FrontendError, match=r"cannot read '.*bad\.onnx'"):
        verify.reference(bad)
    text = (
        '<ir_version: 10, opset_import: ["": 20]> g (float[n, 3, 5] x) => (float[n, 3, 1] y) { y = GlobalMaxPool (x) }'
    )
    misread = tmp_path / "misread.onnx"
    onnx.save(onnx.parser.parse_model(text), misread)
    with pytest.raises(
        FrontendError, match="onnx's reference evaluator is wrong at GlobalMaxPool 'y': it takes all data"
    ):
        verify.reference(misread, "onnx")


class Engine:
    """An engine that computes a model with onnx's evaluator and spoils some of its values."""

    def __init__(self, path: Path, spoil: set[str], only_alone: bool = False):
        self._reference = verify.reference(path, "onnx")
        self._spoil = spoil if not only_alone or len(self._reference.outputs) == 1 else set()

    def get_outputs(self) -> list[Any]:
        return [type("Info", (), {"name": name})() for name in self._reference.outputs]

    def run(self, names: list[str], feeds: Any) -> list[Any]:
        values = self._reference.run(names, feeds)
        return [value * 1.5 if name in self._spoil else value for name, value in zip(names, values, strict=True)]


def test_differences_name_a_missing_output(model: Path) -> None:
    module = Engine(model, set())
    module._reference = verify.Reference("other", module._reference.run, [], ["z"])
    with pytest.raises(InputError, match="the reference has no output 'z'; it has: y"):
        verify.differences(module, verify.reference(model, "onnx"), {})


def test_first_departure_is_the_first_in_the_order_of_the_graph(model: Path) -> None:
    feeds = {"x": np.ones((1, 2), "float32")}
    found = verify.first_departure(model, feeds, lambda path: Engine(path, {"b", "y"}))
    assert found is not None
    assert (found.node, found.operator, found.difference.name, found.fused) == ("b", "Neg", "b", False)
    assert verify.first_departure(model, feeds, lambda path: Engine(path, set())) is None


def test_first_departure_that_only_fusion_brings_out(model: Path) -> None:
    feeds = {"x": np.ones((1, 2), "float32")}
    found = verify.first_departure(model, feeds, lambda path: Engine(path, {"b", "y"}, only_alone=True))
    assert found is not None
    assert (found.node, found.fused) == ("b", True)


def test_onnxruntime_does_not_round_the_rows_of_products_with_few_bits(tmp_path: Path) -> None:
    """Of its own accord, or since the model gives it leave; weights in a file of their own."""
    rng = np.random.default_rng(0)
    k = n = 256
    codes = rng.integers(0, 16, (n, k)).astype(np.uint8)
    scales = (rng.random((n, k // 32)) + 0.5).astype(np.float32)
    weight = (codes.astype(np.float64) - 8) * np.repeat(scales, 32, 1)
    packed = (codes[:, ::2] | codes[:, 1::2] << 4).reshape(n, k // 32, 16)
    numbers = helper.make_tensor("c", TensorProto.INT4, (n, k), (codes.astype(np.int8) - 8).reshape(-1))
    tensors = [onnx.numpy_helper.from_array(packed, "w"), onnx.numpy_helper.from_array(scales, "s"), numbers]
    attributes = {"K": k, "N": n, "bits": 4, "block_size": 32, "accuracy_level": 4}
    nodes = [
        helper.make_node("MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", **attributes),
        helper.make_node("DequantizeLinear", ["c", "s"], ["d"], axis=1, block_size=32),
        helper.make_node("Transpose", ["d"], ["t"]),
        helper.make_node("MatMul", ["x", "t"], ["z"]),
    ]
    x = helper.make_tensor_value_info("x", 1, ["m", k])
    outputs = [helper.make_tensor_value_info(name, 1, ["m", n]) for name in "yz"]
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(helper.make_graph(nodes, "g", [x], outputs, tensors), opset_imports=opsets, ir_version=10)
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0)
    given = rng.standard_normal((3, k)).astype(np.float32)
    found = verify.reference(tmp_path / "m.onnx", "onnxruntime").run(["y", "z"], {"x": given})
    for got in found:
        want = given @ weight.T
        assert np.abs(got - want).max() < 1e-5 * np.abs(want).max()
