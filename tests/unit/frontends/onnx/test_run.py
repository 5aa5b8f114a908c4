"""Models with computed shapes, sorting and whole numbers, compiled by all of dscc, against onnx's evaluator."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

import dscc
from dscc.errors import InputError
from dscc.evaluator import trusted
from dscc.profile import profile

from .conftest import build, noise

N = helper.make_node
MATRIX = {"x": ("f", ("n", "m"))}
X = noise(4, 6)
LSTM = {"w": (3, 1, 4), "W": (1, 8, 4), "R": (1, 8, 2)}


def compare(model: onnx.ModelProto, feeds: Sequence[Mapping[str, Any]]) -> None:
    module = dscc.compile(model, jobs=1).load()
    for feed in feeds:
        for got, want in zip(module.run(None, feed), ReferenceEvaluator(model).run(None, dict(feed)), strict=True):
            assert (got.dtype, got.shape) == (want.dtype, want.shape)
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def lists(**given: Sequence[int]) -> dict[str, Any]:
    return {name: np.array(values) for name, values in given.items()}


def test_a_computed_shape_may_leave_a_dimension_open_and_keep_others() -> None:
    model = build([N("Reshape", ["x", "s"], ["y"])], {**MATRIX, "s": ("i", (3,))})
    compare(model, [{"x": X, "s": np.array(s)} for s in ([2, -1, 3], [0, 3, -1], [0, 0, 1], [2, 3, 4])])


def test_a_computed_shape_that_does_not_fit_is_one_line() -> None:
    model = build([N("Reshape", ["x", "s"], ["y"])], {**MATRIX, "s": ("i", (2,))})
    module = dscc.compile(model, jobs=1).load()
    for shape in ([5, 5], [5, -1], [-1, -1], [-3, -8]):
        with pytest.raises(InputError, match=re.escape("'s' (2,)")) as caught:
            module.run(None, {"x": X, "s": np.array(shape)})
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("node", ["MaxPool", "AveragePool", "Conv"])
def test_an_input_smaller_than_a_window_is_one_line(node: str) -> None:
    inputs = {"x": ("f", ("n", 2, "h", "w")), **({"k": ("f", (2, 2, 3, 3))} if node == "Conv" else {})}
    made = N(node, list(inputs), ["y"], kernel_shape=[3, 3], strides=[2, 2])
    module = dscc.compile(build([made], inputs), jobs=1).load()
    weight = {"k": noise(2, 2, 3, 3)} if node == "Conv" else {}
    assert module.run(None, {"x": noise(1, 2, 3, 4), **weight})[0].shape == (1, 2, 1, 1)
    with pytest.raises(InputError, match=re.escape("'x' (1, 2, 2, 4)")) as caught:
        module.run(None, {"x": noise(1, 2, 2, 4), **weight})
    assert "\n" not in str(caught.value)


def test_computed_bounds_of_a_slice_may_be_negative() -> None:
    bounds = dict.fromkeys("abcd", ("i", (2,)))
    compare(
        build([N("Slice", ["x", "a", "b", "c", "d"], ["y"])], {**MATRIX, **bounds}),
        [
            {"x": X, **lists(a=[1, -3], b=[3, -1], c=[0, 1], d=[1, 1])},
            {"x": X, **lists(a=[-1, 2], b=[-9, 99], c=[-2, -1], d=[-1, 2])},
            {"x": X, **lists(a=[3, 5], b=[0, 0], c=[1, 0], d=[-2, -1])},
            {"x": X, **lists(a=[2, 0], b=[1, 99], c=[0, 1], d=[1, 3])},
        ],
    )


def test_bounds_of_open_length_are_as_many_as_the_axes() -> None:
    model = build(
        [N("Slice", ["x", "a", "b", "axes"], ["y"])],
        {**MATRIX, "a": ("i", ("k",)), "b": ("i", ("l",))},
        {"axes": np.array([1, 0])},
    )
    compare(model, [{"x": X, **lists(a=[1, -3], b=[3, -1])}, {"x": X, **lists(a=[-9, 2], b=[99, 1])}])
    with pytest.raises(InputError):
        dscc.compile(model).load().run(None, {"x": X, **lists(a=[1], b=[3])})


def test_computed_bounds_of_a_range_may_be_negative() -> None:
    model = build([N("Range", ["a", "b", "c"], ["y"])], dict.fromkeys("abc", ("i", ())))
    feeds = [(0, 5, 2), (-3, 4, 3), (5, -7, -3), (0, -1, 1)]
    compare(model, [dict(zip("abc", map(np.array, feed), strict=True)) for feed in feeds])


def test_a_range_of_computed_floats_feeds_arithmetic() -> None:
    nodes = [N("Range", ["a", "b", "c"], ["r"]), N("Mul", ["r", "r"], ["s"]), N("Cos", ["s"], ["y"])]
    feeds = [dict(zip("abc", map(np.float32, feed), strict=True)) for feed in [(0, 5, 2), (1, -3, -0.5)]]
    compare(build(nodes, dict.fromkeys("abc", ("f", ()))), [{k: np.array(v) for k, v in f.items()} for f in feeds])


@pytest.mark.parametrize("op", ["ReduceMax", "ReduceMin"])
def test_extremes_of_rows_of_infinities(op: str) -> None:
    x = noise(3, 20)
    x[1] = -np.inf
    compare(build([N(op, ["x", "a"], ["y"])], MATRIX, {"a": np.array([1])}), [{"x": x}, {"x": -x}])


@pytest.mark.parametrize("mode", ["constant", "edge"])
def test_computed_pads_may_crop(mode: str) -> None:
    model = build([N("Pad", ["x", "p"], ["y"], mode=mode)], {**MATRIX, "p": ("i", (4,))})
    module = dscc.compile(model, jobs=1).load()
    [got] = module.run(None, {"x": X, "p": np.array([-1, 2, 2, -3])})
    want = np.pad(X[1:, :3], [(0, 2), (2, 0)], mode=mode)  # type: ignore[call-overload]
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("attributes", [{}, {"largest": 0}, {"axis": 0}], ids=str)
def test_top_k(attributes: dict[str, int]) -> None:
    model = build([N("TopK", ["x", "k"], ["v", "i"], **attributes)], MATRIX, {"k": np.array([3])})
    compare(model, [{"x": X}, {"x": noise(5, 40)}])


@pytest.mark.parametrize("attributes", [{}, {"reverse": 1}, {"exclusive": 1, "reverse": 1}], ids=str)
def test_running_sums(attributes: dict[str, int]) -> None:
    nodes = [N("CumSum", ["x", "a"], ["y"], **attributes), N("CumSum", ["y", "b"], ["z"])]
    compare(build(nodes, MATRIX, {"a": np.array(0), "b": np.array(-1)}), [{"x": X}, {"x": noise(5, 40)}])


@pytest.mark.parametrize("op", ["Div", "Mod"])
def test_division_by_zero_does_not_trap(op: str) -> None:
    module = dscc.compile(build([N(op, ["a", "b"], ["y"])], {"a": ("i", ("n",)), "b": ("i", ("n",))}), jobs=1).load()
    least = np.iinfo(np.int64).min
    a, b = np.array([7, least, 9, -9, 5, least] * 4), np.array([0, -1, 2, 2, -3, 0] * 4)
    [got] = module.run(None, {"a": a, "b": b})
    assert got[:6].tolist() == ([0, least, 4, -4, -1, 0] if op == "Div" else [0, 0, 1, 1, -1, 0])


def test_nearest_between_two_pixels_rounds_as_the_standard_says() -> None:
    """Coordinates that are halves in exact arithmetic: 23 * 30 / 92."""
    at = {"mode": "nearest", "coordinate_transformation_mode": "align_corners"}
    model = build([N("Resize", ["x", "", "s"], ["y"], **at)], {"x": ("f", (1, 2, 31))}, {"s": np.float32([1, 1, 3])})
    compare(model, [{"x": noise(1, 2, 31)}])


@pytest.mark.parametrize("op", ["CumSum", "TopK", "Softmax", "ReduceSum", "Concat", "Transpose"])
def test_a_tensor_without_elements(op: str) -> None:
    inputs = {"CumSum": ["x", "a"], "TopK": ["x", "k"], "ReduceSum": ["x", "a"], "Concat": ["x", "x"]}.get(op, ["x"])
    attributes = {"axis": 1} if op in ("Concat", "TopK", "Softmax") else {}
    outputs = ["y", "z"] if op == "TopK" else ["y"]
    model = build(
        [N(op, inputs, outputs, **attributes)], {"x": ("f", (3, 0, 4))},
        {k: v for k, v in {"a": np.array(-1 if op == "CumSum" else [-1]), "k": np.array([0])}.items() if k in inputs},
    )  # fmt: skip
    compare(model, [{"x": noise(3, 0, 4)}])


def test_quotients_are_rounded_as_quotients() -> None:
    """7.5 and 7.4999995 are a step apart: no product with a reciprocal where a quantization follows."""
    z = np.int8(3)
    model = build(
        [N("QuantizeLinear", ["x", "s", "z"], ["y"])], {"x": ("f", ("n", 16))}, {"s": np.float32(0.03), "z": z}
    )
    x = (np.arange(-4000, 4000, dtype=np.float32) / 64).reshape(-1, 16)
    compare(model, [{"x": x}])
    nodes = [N("Div", ["x", "s"], ["q"]), N("Floor", ["q"], ["y"])]
    compare(build(nodes, {"x": ("f", ("n", 16))}, {"s": np.float32(5)}), [{"x": np.round(x)}])


@pytest.mark.parametrize(
    ("nodes", "shapes"),
    [
        ([N("GlobalMaxPool", ["w"], ["p"])], {"w": (2, 3, 5)}),
        ([N("LpPool", ["w"], ["p"], kernel_shape=[3], strides=[3], ceil_mode=1)], {"w": (1, 2, 7)}),
        ([N("AveragePool", ["w"], ["p"], kernel_shape=[3], strides=[3], ceil_mode=1)], {"w": (1, 2, 7)}),
        ([N("LRN", ["w"], ["p"], size=3, alpha=1.0)], {"w": (2, 5, 1, 1)}),
        ([N("ConvTranspose", ["w", "k", "b"], ["p"], group=2)], {"w": (1, 2, 3), "k": (2, 1, 2), "b": (2,)}),
        ([N("LSTM", ["w", "W", "R"], ["", "p"], hidden_size=2, input_forget=1)], LSTM),
        ([N("LSTM", ["w", "W", "R"], ["", "p"], hidden_size=2, activations=["Relu", "Relu", "Tanh"])], LSTM),
    ],
)
def test_constants_that_the_evaluator_misreads_are_not_folded_by_it(
    nodes: list[onnx.NodeProto], shapes: dict[str, tuple[int, ...]]
) -> None:
    """Against onnxruntime: the evaluator is what would be wrong."""
    weights = {name: noise(*shape) for name, shape in shapes.items()}
    model = build([*nodes, N("Add", ["p", "x"], ["y"])], {"x": ("f", (1,))}, weights)
    feeds = {"x": np.ones(1, np.float32)}
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    [want] = session.run(None, feeds)
    [got] = dscc.compile(model, jobs=1).load().run(None, feeds)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_codes_of_a_range_around_zero_are_exact() -> None:
    """The zero point is a half rounded to even there: the last bit of the scale decides, and with it every code."""
    nodes = [N("Neg", ["x"], ["n"]), N("Concat", ["x", "n"], ["c"], axis=0)]
    model = build([*nodes, N("DynamicQuantizeLinear", ["c"], ["q", "s", "z"])], {"x": ("f", ("n",))})
    module = dscc.compile(model, jobs=1).load()
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for count in range(1, 21):
        feeds = {"x": noise(count)}
        for got, want in zip(module.run(None, feeds), session.run(None, feeds), strict=True):
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("axis", [None, 0, 2, -2])
@pytest.mark.parametrize("opset", [11, 13])
def test_hardmax_takes_the_rest_for_one_axis_before_opset_13(opset: int, axis: int | None) -> None:
    """Against onnxruntime: onnx's evaluator always takes one axis."""
    given = {} if axis is None else {"axis": axis}
    model = build([N("Hardmax", ["x"], ["y"], **given)], {"x": ("f", ("a", "b", "c"))}, opset=opset)
    feeds = {"x": np.round(noise(2, 3, 5))}
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    [want] = session.run(None, feeds)
    [got] = dscc.compile(model, jobs=1, fallback=False).load().run(None, feeds)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    ("shape", "size"),
    [((2, 40, 3, 5), 17), ((2, 40, 3), 41), ((2, 5, 3, 3), 2**31), (("n", "c", "h", "w"), 19), (("n", "c"), 4)],
)
def test_neighbouring_channels(shape: tuple[int | str, ...], size: int) -> None:
    """Against the definition: the evaluator misreads it. An altered file had a size of 2**31."""
    module = dscc.compile(build([N("LRN", ["x"], ["y"], size=size, alpha=0.5, beta=0.6)], {"x": ("f", shape)})).load(1)
    x = noise(*(dim if isinstance(dim, int) else 7 + at for at, dim in enumerate(shape)))
    before = (size - 1) // 2
    ends = [(max(0, c - before), c + size - before) for c in range(x.shape[1])]
    sums = np.stack([(x[:, begin:end] ** 2).sum(1) for begin, end in ends], 1)
    np.testing.assert_allclose(module.run(None, {"x": x})[0], x / (1 + 0.5 / size * sums) ** 0.6, rtol=1e-5, atol=1e-6)


def test_the_sixth_of_a_hard_swish_is_single_for_doubles_too() -> None:
    """Near -3 its last bits are all that is left."""
    nodes = [N("Cast", ["x"], ["d"], to=onnx.TensorProto.DOUBLE), N("HardSwish", ["d"], ["y"])]
    narrow = np.linspace(-3, -2.999, 9, dtype=np.float32)
    [got] = dscc.compile(build(nodes, {"x": ("f", ("n",))}), jobs=1).load().run(None, {"x": narrow})
    x = narrow.astype(np.float64)
    np.testing.assert_allclose(got, x * np.maximum(0, np.float64(np.float32(1 / 6)) * x + 0.5), rtol=1e-9, atol=1e-16)


def test_a_constant_batch_normalization_before_opset_14() -> None:
    """Against the definition: the evaluator, which is not asked, mixes the mean of the batch into what it is given."""
    weights = {name: np.abs(noise(3)) + 0.5 for name in ("s", "b", "m", "v")} | {"w": noise(2, 3, 4)}
    nodes = [N("BatchNormalization", ["w", "s", "b", "m", "v"], ["n"]), N("Add", ["n", "x"], ["y"])]
    model = build(nodes, {"x": ("f", (1,))}, weights, opset=11)
    [got] = dscc.compile(model, jobs=1).load().run(None, {"x": np.zeros(1, np.float32)})
    s, b, m, v = (weights[name].reshape(1, 3, 1) for name in ("s", "b", "m", "v"))
    np.testing.assert_allclose(got, (weights["w"] - m) / np.sqrt(v + 1e-5) * s + b, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="wrong at BatchNormalization 'n': it mixes the mean"):
        trusted(model)


def test_weights_that_are_standardised_become_constants() -> None:
    """As in NFNets, by BatchNormalization over a weight: packed like any other, and nothing is left to normalise."""
    w, gain = noise(6, 4, 3, 3), np.abs(noise(6)) + 0.5
    constants = {"w": w, "s": gain, "m": np.zeros(6, np.float32), "v": np.ones(6, np.float32)}
    nodes = [
        N("Reshape", ["w", "rows"], ["flat"]),
        N("BatchNormalization", ["flat", "s", "m", "m", "v"], ["even", "", ""], training_mode=1, epsilon=1e-3),
        N("Reshape", ["even", "kernel"], ["k"]),
        N("Conv", ["x", "k"], ["y"]),
    ]
    model = build(nodes, {"x": ("f", ("n", 4, 5, 7))}, {**lists(rows=[1, 6, 36], kernel=[6, 4, 3, 3]), **constants})
    artifact, x = dscc.compile(model, jobs=1), noise(2, 4, 5, 7)
    mean, variance = (f(w, axis=(1, 2, 3), keepdims=True) for f in (np.mean, np.var))
    even = (w - mean) / np.sqrt(variance + 1e-3) * gain.reshape(6, 1, 1, 1)
    want = sum(
        np.einsum("nchw,oc->nohw", x[:, :, a : a + 3, b : b + 5], even[:, :, a, b]) for a in range(3) for b in range(3)
    )
    np.testing.assert_allclose(artifact.load().run(None, {"x": x})[0], want, rtol=1e-4, atol=1e-4)
    assert not any("variance" in row.kernel for row in profile(artifact, {"x": x}, 1, 1).rows)


def test_what_a_concatenation_is_added_to_may_be_cut_to_its_length() -> None:
    """`n - 1 + 1` rows beside the first n of eight: TVM's passes recursed without end."""
    nodes = [
        N("Slice", ["x", "one", "end", "one"], ["later"]),
        N("Pad", ["later", "pads"], ["next"]),
        N("Concat", ["next", "x"], ["both"], axis=2),
        N("Shape", ["x"], ["n"], start=1, end=2),
        N("Slice", ["table", "zero", "n", "zero"], ["places"]),
        N("Add", ["both", "places"], ["y"]),
    ]
    constants = lists(one=[1], zero=[0], end=[2**62], pads=[0, 0, 0, 0, 1, 0])
    model = build(nodes, {"x": ("f", ("b", "n", 4))}, {**constants, "table": noise(8, 8)})
    compare(model, [{"x": noise(*shape)} for shape in ((2, 5, 4), (1, 8, 4), (3, 1, 4))])
    with pytest.raises(InputError):
        dscc.compile(model, jobs=1).load().run(None, {"x": noise(1, 9, 4)})
