"""Operators, by number, against onnx's reference evaluator.

Dimensions are symbolic, and one compilation serves several shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import helper

import dscc

from .conftest import build, noise

N = helper.make_node
IMAGE = {"x": ("f", ("n", 4, "h", "w"))}
IMAGES = [{"x": noise(1, 4, 5, 6)}, {"x": noise(2, 4, 8, 4)}]
ROWS = {"x": ("f", ("n", "m"))}
SOME_ROWS = [{"x": noise(2, 3)}, {"x": noise(4, 7)}]


def _conv(**attributes: Any) -> Any:
    return N("Conv", ["x", "w", "b"], ["y"], kernel_shape=[3, 3], **attributes)


@pytest.mark.parametrize(
    "attributes",
    [
        {"pads": [1, 1, 1, 1]},
        {"pads": [0, 1, 2, 0], "strides": [2, 1]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
        {"auto_pad": "VALID"},
        {"dilations": [2, 1], "pads": [2, 2, 2, 2]},
    ],
    ids=str,
)
def test_convolution(agree: Callable[..., Any], attributes: dict[str, Any]) -> None:
    agree(build([_conv(**attributes)], IMAGE, {"w": noise(6, 4, 3, 3), "b": noise(6)}), *IMAGES, tolerance=1e-4)


def test_convolution_of_as_many_channels_as_the_weight_has(agree: Callable[..., Any]) -> None:
    inputs = {"x": ("f", ("n", "c", "h", "w")), "p": ("i", (8,))}
    weights = {"w": noise(6, 4, 3, 3), "b": noise(6)}
    agree(build([_conv(strides=[2, 2])], {"x": inputs["x"]}, weights), *IMAGES, tolerance=1e-4)
    model = build([N("Pad", ["x", "p"], ["q"]), N("Conv", ["q", "w", "b"], ["y"], strides=[2, 2])], inputs, weights)
    pads = np.array([0, 0, 0, 0, 0, 0, 3, 1])
    agree(model, *({**image, "p": pads} for image in IMAGES), tolerance=1e-4)
    functions = dscc.compile(model).manifest.kernels["functions"]
    assert [kernel["rule"] for name, kernel in functions.items() if "conv" in name] == ["conv"]


def test_grouped_convolution(agree: Callable[..., Any]) -> None:
    agree(build([_conv(group=4)], IMAGE, {"w": noise(8, 1, 3, 3), "b": noise(8)}), *IMAGES, tolerance=1e-4)


def test_convolution_over_one_and_three_dimensions(agree: Callable[..., Any]) -> None:
    for rank in (1, 3):
        inputs = {"x": ("f", ("n", 2, *(f"d{i}" for i in range(rank))))}
        model = build([N("Conv", ["x", "w"], ["y"], pads=[1] * (2 * rank))], inputs, {"w": noise(3, 2, *[3] * rank)})
        agree(model, {"x": noise(1, 2, *[4] * rank)}, {"x": noise(2, 2, *[5] * rank)}, tolerance=1e-4)


@pytest.mark.parametrize(
    "attributes",
    [
        {"strides": [2, 2]},
        {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]},
        {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
        {"dilations": [2, 1]},
    ],
    ids=str,
)
def test_transposed_convolution(agree: Callable[..., Any], attributes: dict[str, Any]) -> None:
    weights = {"w": noise(4, 6, 3, 3), "b": noise(6)}
    agree(build([N("ConvTranspose", ["x", "w", "b"], ["y"], **attributes)], IMAGE, weights), *IMAGES, tolerance=1e-4)


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize(
    "attributes",
    [
        {"kernel_shape": [2, 2], "strides": [2, 2]},
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1},
        {"kernel_shape": [3, 2], "auto_pad": "SAME_UPPER", "strides": [2, 1]},
    ],
    ids=str,
)
def test_pool(agree: Callable[..., Any], op: str, attributes: dict[str, Any]) -> None:
    agree(build([N(op, ["x"], ["y"], **attributes)], IMAGE), *IMAGES)


# onnx's evaluator has no mean of what a window sees that reaches beyond the data: 20 x 20 is for MaxPool only
@pytest.mark.parametrize(("op", "kernel"), [("MaxPool", [20, 20]), ("AveragePool", [7, 5]), ("AveragePool", [7, 4])])
def test_pool_over_everything(agree: Callable[..., Any], op: str, kernel: list[int]) -> None:
    node = N(op, ["x"], ["y"], kernel_shape=kernel, strides=[20, 20], ceil_mode=1)
    agree(build([node], {"x": ("f", ("n", 3, 7, 5))}), {"x": noise(2, 3, 7, 5)}, {"x": noise(1, 3, 7, 5)})


def test_average_pool_that_counts_padding(agree: Callable[..., Any]) -> None:
    node = N("AveragePool", ["x"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)
    agree(build([node], IMAGE), *IMAGES)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("coordinates", ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"])
def test_resize(agree: Callable[..., Any], mode: str, coordinates: str) -> None:
    node = N("Resize", ["x", "", "s"], ["y"], mode=mode, coordinate_transformation_mode=coordinates)
    agree(build([node], IMAGE, {"s": np.float32([1, 1, 2, 1.5])}), *IMAGES, tolerance=1e-4)


def test_resize_to_the_size_of_another_tensor(agree: Callable[..., Any]) -> None:
    nodes = [
        N("Shape", ["like"], ["s"], start=2),
        N("Shape", ["x"], ["front"], end=2),
        N("Concat", ["front", "s"], ["sizes"], axis=0),
        N("Resize", ["x", "", "", "sizes"], ["y"], mode="linear"),
    ]
    model = build(nodes, {**IMAGE, "like": ("f", (1, 1, "a", "b"))})
    agree(model, *({**image, "like": noise(1, 1, 7, 9)} for image in IMAGES), tolerance=1e-4)


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
def test_pad(agree: Callable[..., Any], mode: str) -> None:
    model = build([N("Pad", ["x", "p"], ["y"], mode=mode)], ROWS, {"p": np.array([1, 0, 0, 2])})
    agree(model, {"x": noise(2, 3)}, {"x": noise(5, 4)})


@pytest.mark.parametrize(
    ("node", "weights"),
    [
        (N("LayerNormalization", ["x", "s", "b"], ["y"]), {"s": noise(4), "b": noise(4)}),
        (N("InstanceNormalization", ["i", "s", "b"], ["y"]), {"s": noise(4), "b": noise(4)}),
        (N("GroupNormalization", ["i", "s2", "b2"], ["y"], num_groups=2), {"s2": noise(2), "b2": noise(2)}),
        (N("BatchNormalization", ["i", "s", "b", "m", "v"], ["y"]), {k: abs(noise(4)) for k in "sbmv"}),
        (N("LpNormalization", ["x"], ["y"]), {}),
    ],
    ids=lambda value: getattr(value, "op_type", ""),
)
def test_normalisation(agree: Callable[..., Any], node: Any, weights: dict[str, Any]) -> None:
    image = "i" in node.input
    inputs = {"i": ("f", ("n", 4, "h", 5))} if image else {"x": ("f", ("n", "m", 4))}
    feeds = [{"i": noise(n, 4, h, 5)} if image else {"x": noise(n, h, 4)} for n, h in ((1, 3), (3, 6))]
    agree(build([node], inputs, weights), *feeds, tolerance=1e-4)


@pytest.mark.parametrize(
    "op", ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSumExp"]
)
def test_reduction(agree: Callable[..., Any], op: str) -> None:
    for keep in (0, 1):
        agree(build([N(op, ["x", "a"], ["y"], keepdims=keep)], ROWS, {"a": np.array([-1])}), *SOME_ROWS, tolerance=1e-4)
    agree(build([N(op, ["x"], ["y"])], ROWS), *SOME_ROWS, tolerance=1e-4)


@pytest.mark.parametrize("op", ["ArgMax", "ArgMin"])
@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("keep", [0, 1])
def test_index_of_an_extreme(agree: Callable[..., Any], op: str, last: int, axis: int, keep: int) -> None:
    feed = {"x": np.float32([[1, 3, 3, 0, 0], [2, 2, 2, 2, 2]])}
    agree(build([N(op, ["x"], ["y"], axis=axis, keepdims=keep, select_last_index=last)], ROWS), feed, *SOME_ROWS)


def test_top_k(agree: Callable[..., Any]) -> None:
    agree(build([N("TopK", ["x", "k"], ["v", "i"])], ROWS, {"k": np.array([3])}), *SOME_ROWS)


@pytest.mark.parametrize(
    ("left", "right"), [(("n", 3), (3, 4)), (("b", 1, "n", 3), ("h", 3, 2)), ((3,), ("b", 3, 2)), (("b", "n", 3), (3,))]
)
def test_matrix_product(agree: Callable[..., Any], left: Any, right: Any) -> None:
    sizes = {"b": 2, "n": 5, "h": 3}
    shapes = [[sizes.get(dim, dim) for dim in shape] for shape in (left, right)]
    model = build([N("MatMul", ["a", "b"], ["y"])], {"a": ("f", left), "b": ("f", right)})
    agree(model, {"a": noise(*shapes[0]), "b": noise(*shapes[1])})


@pytest.mark.parametrize("attributes", [{}, {"transA": 1, "alpha": 0.5}, {"transB": 1, "beta": 2.0}], ids=str)
def test_gemm(agree: Callable[..., Any], attributes: dict[str, Any]) -> None:
    rows = (3, "n") if attributes.get("transA") else ("n", 3)
    weights = {"b": noise(4, 3) if attributes.get("transB") else noise(3, 4), "c": noise(4)}
    model = build([N("Gemm", ["a", "b", "c"], ["y"], **attributes)], {"a": ("f", rows)}, weights)
    agree(model, {"a": noise(*(5 if dim == "n" else dim for dim in rows))})


@pytest.mark.parametrize("equation", ["bij,bjk->bik", "bhid,bhjd->bhij", "ij,kj->i", "...i,ij->...j", "ii->i"])
def test_einsum(agree: Callable[..., Any], equation: str) -> None:
    sizes = {"b": 2, "h": 3, "i": 4, "j": 5, "k": 6, "d": 4}
    terms = equation.split("->")[0].replace("...", "bh").split(",")
    inputs = {f"x{n}": ("f", [sizes[c] for c in term]) for n, term in enumerate(terms)}
    model = build([N("Einsum", list(inputs), ["y"], equation=equation)], inputs)
    agree(model, {name: noise(*shape) for name, (_, shape) in inputs.items()}, tolerance=1e-4)


INDICES = np.array([[0, -1], [1, 0]])


@pytest.mark.parametrize("axis", [0, 1])
def test_gather(agree: Callable[..., Any], axis: int) -> None:
    agree(build([N("Gather", ["x", "i"], ["y"], axis=axis)], ROWS, {"i": INDICES}), *SOME_ROWS)
    model = build([N("Gather", ["x", "i"], ["y"], axis=axis)], {**ROWS, "i": ("i", ("a", 2))})
    agree(model, *({**rows, "i": INDICES} for rows in SOME_ROWS))
    agree(build([N("Gather", ["x", "i"], ["y"], axis=axis)], ROWS, {"i": np.array(-1)}), *SOME_ROWS)


def test_gather_and_scatter(agree: Callable[..., Any]) -> None:
    x = {"x": ("f", ("n", 2))}
    feeds = [{"x": noise(2, 2)}, {"x": noise(3, 2)}]
    agree(build([N("GatherElements", ["x", "i"], ["y"])], x, {"i": INDICES}), *feeds)
    agree(build([N("GatherND", ["x", "i"], ["y"])], x, {"i": INDICES}), *feeds)
    agree(build([N("ScatterND", ["x", "i", "u"], ["y"])], x, {"i": INDICES[:, :1], "u": noise(2, 2)}), *feeds)
    unique = np.array([[0, 1], [1, 0]])
    agree(build([N("ScatterElements", ["x", "i", "u"], ["y"])], x, {"i": unique, "u": noise(2, 2)}), *feeds)


def test_one_hot(agree: Callable[..., Any]) -> None:
    weights = {"d": np.array(4), "v": np.float32([0, 2])}
    feed = {"i": np.array([[0, 3], [-1, 1], [2, 2]])}
    agree(build([N("OneHot", ["i", "d", "v"], ["y"], axis=1)], {"i": ("i", ("n", 2))}, weights), feed)


@pytest.mark.parametrize(
    "node",
    [
        N("HardSigmoid", ["x"], ["y"]),
        N("HardSwish", ["x"], ["y"]),
        N("Gelu", ["x"], ["y"]),
        N("Gelu", ["x"], ["y"], approximate="tanh"),
        N("LeakyRelu", ["x"], ["y"], alpha=0.2),
        N("Elu", ["x"], ["y"]),
        N("Selu", ["x"], ["y"]),
        N("Softplus", ["x"], ["y"]),
        N("Mish", ["x"], ["y"]),
        N("Softmax", ["x"], ["y"], axis=0),
        N("LogSoftmax", ["x"], ["y"]),
        N("Erf", ["x"], ["y"]),
        N("Round", ["x"], ["y"]),
        N("Reciprocal", ["x"], ["y"]),
        N("Clip", ["x", "low", ""], ["y"]),
        N("PRelu", ["x", "low"], ["y"]),
        N("Mod", ["x", "low"], ["y"], fmod=1),
        N("Pow", ["x", "two"], ["y"]),
        N("Trilu", ["x"], ["y"], upper=0),
        N("CumSum", ["x", "axis"], ["y"], reverse=1, exclusive=1),
        N("Tile", ["x", "times"], ["y"]),
        N("Transpose", ["x"], ["y"]),
        N("Where", ["c", "x", "low"], ["y"]),
    ],
    ids=lambda node: node.op_type,
)
def test_elementwise(agree: Callable[..., Any], node: Any) -> None:
    weights = {"low": np.float32(-0.5), "two": np.float32(2), "c": np.array(True)}
    weights |= {"axis": np.array(1), "times": np.array([2, 1])}
    used = {name: value for name, value in weights.items() if name in node.input}
    agree(build([node], ROWS, used), *SOME_ROWS, tolerance=1e-4)


def test_split(agree: Callable[..., Any]) -> None:
    agree(build([N("Split", ["x"], ["a", "b"], axis=1, num_outputs=2)], ROWS), *SOME_ROWS)
    sizes = {"s": np.array([2, 3])}
    agree(build([N("Split", ["x", "s"], ["a", "b"])], {"x": ("f", (5, "m"))}, sizes), {"x": noise(5, 3)})


def test_integer_division_truncates(agree: Callable[..., Any]) -> None:
    inputs = {"a": ("i", ("n",)), "b": ("i", ("n",))}
    feed = {"a": np.array([7, -7, 7, -7]), "b": np.array([2, 2, -2, -2])}
    agree(build([N("Div", ["a", "b"], ["y"])], inputs), feed)
    agree(build([N("Mod", ["a", "b"], ["y"])], inputs), feed)


@pytest.mark.parametrize("per_axis", [False, True])
def test_quantize(agree: Callable[..., Any], per_axis: bool) -> None:
    """There and back: per tensor, or per column."""
    scale = np.float32([0.1, 0.2, 0.05]) if per_axis else np.float32(0.1)
    zero = np.uint8([3, 128, 7]) if per_axis else np.uint8(100)
    nodes = [
        N("QuantizeLinear", ["x", "s", "z"], ["q"], axis=1),
        N("DequantizeLinear", ["q", "s", "z"], ["y"], axis=1),
    ]
    agree(build(nodes, {"x": ("f", ("n", 3))}, {"s": scale, "z": zero}), {"x": noise(4, 3)}, {"x": 20 * noise(2, 3)})


def test_dynamically_quantized_product(agree: Callable[..., Any]) -> None:
    nodes = [
        N("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        N("MatMulInteger", ["q", "w", "z"], ["p"]),
        N("Cast", ["p"], ["f"], to=1),
        N("Mul", ["f", "s"], ["y"]),
    ]
    weights = {"w": np.arange(-6, 6, dtype=np.int8).reshape(3, 4)}
    agree(build(nodes, {"x": ("f", ("n", 3))}, weights), {"x": noise(4, 3)}, {"x": noise(1, 3)}, tolerance=1e-4)


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_a_loss_that_the_standard_defines(agree: Callable[..., Any], reduction: str) -> None:
    """Its body calls another function with the attributes of the first."""
    node = N("SoftmaxCrossEntropyLoss", ["x", "label"], ["y"], reduction=reduction)
    model = build([node], {"x": ("f", (3, 5)), "label": ("i", (3,))}, opset=13)
    agree(model, {"x": noise(3, 5), "label": np.array([0, 4, 2])})
