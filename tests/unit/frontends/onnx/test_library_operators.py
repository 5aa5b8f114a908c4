"""Operators that functions in C compute, and others that read where the data says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import helper

import dscc
from dscc.errors import InputError

from .conftest import build, noise

N = helper.make_node
RNG = np.random.default_rng(5)


def _onnxruntime(model: Any) -> Callable[..., list[Any]]:
    copy = type(model)()
    copy.CopyFrom(model)
    copy.ir_version = 10
    session = onnxruntime.InferenceSession(copy.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda **feeds: session.run(None, feeds)


@pytest.mark.parametrize("centred", [0, 1])
def test_boxes_that_overlap_are_dropped(same: Callable[..., Any], centred: int) -> None:
    inputs = {
        "b": ("f", ("n", "k", 4)),
        "s": ("f", ("n", 3, "k")),
        "m": ("i", (1,)),
        "t": ("f", (1,)),
        "l": ("f", (1,)),
    }
    model = build([N("NonMaxSuppression", list(inputs), ["y"], center_point_box=centred)], inputs)
    feeds = [
        {
            "b": RNG.random((n, k, 4), np.float32),
            "s": RNG.random((n, 3, k), np.float32),
            "m": np.array([most]),
            "t": np.array([0.3], np.float32),
            "l": np.array([0.2], np.float32),
        }
        for n, k, most in ((1, 40, 5), (2, 7, 100), (1, 1, 0))
    ]
    # Some scores are equal, of either sign or both zeros; boxes are far from each other, as those of several classes
    # are, tall or wide, as large as all others together, as small as nothing, or turned inside out.
    for k, apart, most, overlap in ((700, (0, 0), 900, 0.4), (333, (500, 0), 99, 0), (90, (0, 9e18), 50, 0.1)):
        place = RNG.random((2, k, 2)) * 10 + RNG.integers(0, 9, (2, k, 1)) * np.array(apart)
        size = RNG.choice([-2.0, 0.0, 1e-20, 0.5, 3.0, 4000.0], (2, k, 2), p=[0.1, 0.1, 0.1, 0.3, 0.3, 0.1])
        boxes = np.concatenate([place, size if centred else place + size], -1)
        scores = RNG.integers(-3, 9, (2, 3, k)).astype("f") * np.float32(0.1)
        scores[:, :, ::5] *= np.float32(-0.0)
        feed = {"b": boxes.astype("f"), "s": scores, "m": np.array([most])}
        feeds += [feed | {"t": np.array([overlap], "f"), "l": np.array([least], "f")} for least in (-0.2, 0.25)]
    same(model, *feeds, want=_onnxruntime(model))


@pytest.mark.parametrize("attributes", [{}, {"mode": "max"}, {"sampling_ratio": 2}], ids=str)
@pytest.mark.parametrize("place", ["half_pixel", "output_half_pixel"])
def test_regions(same: Callable[..., Any], attributes: dict[str, Any], place: str) -> None:
    inputs = {"x": ("f", ("n", 2, "h", "w")), "r": ("f", ("k", 4)), "i": ("i", ("k",))}
    node = N(
        "RoiAlign",
        list(inputs),
        ["y"],
        output_height=3,
        output_width=2,
        spatial_scale=0.5,
        coordinate_transformation_mode=place,
        **attributes,
    )
    model = build([node], inputs)
    corners = np.array([[0, 0, 9, 12], [3, 2, 8, 8], [5, 5, 30, 40]], np.float32)
    feed = {"x": noise(2, 2, 7, 9), "r": corners, "i": np.array([0, 1, 1])}
    same(model, feed, want=_onnxruntime(model))
    if not attributes and place == "half_pixel":
        with pytest.raises(InputError):
            dscc.compile(model).load().run(None, feed | {"i": np.array([0, 1, 2])})


def test_maxima_of_regions(same: Callable[..., Any]) -> None:
    inputs = {"x": ("f", ("n", 2, "h", "w")), "r": ("f", ("k", 5))}
    model = build([N("MaxRoiPool", list(inputs), ["y"], pooled_shape=[2, 3], spatial_scale=0.5)], inputs)
    corners = np.array([[0, 0, 0, 9, 12], [1, 3, 2, 8, 8], [1, 5, 5, 30, 40]], np.float32)
    same(model, {"x": noise(2, 2, 7, 9), "r": corners}, want=_onnxruntime(model))


@pytest.mark.parametrize("attributes", [{}, {"sorted": 0}, {"axis": 1}, {"axis": -1, "sorted": 0}], ids=str)
@pytest.mark.parametrize("kind", ["f", "i"])
def test_distinct_elements(same: Callable[..., Any], attributes: dict[str, Any], kind: str) -> None:
    outputs = ["y", "first", "inverse", "counts"]
    model = build([N("Unique", ["x"], outputs, **attributes)], {"x": (kind, ("n", "m"))}, outputs=outputs)
    feeds = [RNG.integers(-2, 2, shape).astype("f4" if kind == "f" else "i8") for shape in ((5, 7), (2, 1), (2, 30))]
    same(model, *({"x": x} for x in feeds), want=_onnxruntime(model))


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("corners", [0, 1])
def test_images_at_points(agree: Callable[..., Any], mode: str, padding: str, corners: int) -> None:
    node = N("GridSample", ["x", "g"], ["y"], mode=mode, padding_mode=padding, align_corners=corners)
    model = build([node], {"x": ("f", ("n", 3, "h", "w")), "g": ("f", ("n", "p", "q", 2))}, opset=22)
    model.ir_version = 10
    feeds = [
        {"x": noise(n, 3, h, w), "g": RNG.uniform(-1.7, 1.7, (n, 2, 5, 2)).astype(np.float32)}
        for n, h, w in ((1, 4, 6), (2, 3, 2))
    ]
    agree(model, *feeds, tolerance=1e-4)


def test_volumes_at_points(same: Callable[..., Any]) -> None:
    model = build(
        [N("GridSample", ["x", "g"], ["y"])],
        {"x": ("f", ("n", 2, "d", "h", "w")), "g": ("f", ("n", 2, 2, 3, 3))},
        opset=22,
    )
    same(model, {"x": noise(1, 2, 3, 4, 5), "g": RNG.uniform(-1.2, 1.2, (1, 2, 2, 3, 3)).astype(np.float32)})


@pytest.mark.parametrize("attributes", [{}, {"group": 2, "offset_group": 2, "strides": [2, 1], "pads": [1, 0, 1, 1]}])
def test_deformed_convolution(same: Callable[..., Any], attributes: dict[str, Any]) -> None:
    groups, parts = attributes.get("group", 1), attributes.get("offset_group", 1)
    out = (3, 5) if attributes else (4, 4)
    shapes = {"x": (2, 4, 5, 5), "o": (2, parts * 8, *out), "m": (2, parts * 4, *out)}
    inputs: Any = {name: ("f", ("n", *shape[1:])) for name, shape in shapes.items()}
    model = build(
        [N("DeformConv", ["x", "w", "o", "b", "m"], ["y"], kernel_shape=[2, 2], **attributes)],
        inputs,
        {"w": noise(6, 4 // groups, 2, 2), "b": noise(6)},
        opset=22,
    )
    same(model, {name: noise(*shape) for name, shape in shapes.items()}, tolerance=1e-4)


def test_columns_back_to_images(same: Callable[..., Any]) -> None:
    node = N("Col2Im", ["x", "s", "k"], ["y"], strides=[2, 1], pads=[1, 0, 0, 1], dilations=[1, 2])
    model = build([node], {"x": ("f", ("n", "c", "l")), "s": ("i", (2,)), "k": ("i", (2,))})
    same(model, {"x": noise(2, 12, 15), "s": np.array([6, 6]), "k": np.array([2, 2])[:2]})


@pytest.mark.parametrize("mode", ["linear", "circular"])
def test_caches_are_written(same: Callable[..., Any], mode: str) -> None:
    inputs = {"p": ("f", ("n", 2, "t", 3)), "u": ("f", ("n", 2, "s", 3)), "w": ("i", ("n",))}
    model = build([N("TensorScatter", list(inputs), ["y"], mode=mode)], inputs, opset=24)
    first = np.array([0, 4 if mode == "circular" else 3])
    same(model, {"p": noise(2, 2, 5, 3), "u": noise(2, 2, 2, 3), "w": first})


@pytest.mark.parametrize("length", [1, 8, 30, 67, 129, 1031])
@pytest.mark.parametrize("inverse", [0, 1])
def test_fourier_transforms(same: Callable[..., Any], length: int, inverse: int) -> None:
    inputs = {"x": ("f", ("n", "l", "m", 2)), "k": ("i", ()), "a": ("i", ())}
    model = build([N("DFT", list(inputs), ["y"], inverse=inverse)], inputs)
    x = noise(2, length, 3, 2)

    def want(x: Any, k: Any, a: Any) -> list[Any]:
        found = (np.fft.ifft if inverse else np.fft.fft)(x[..., 0] + 1j * x[..., 1].astype(np.float64), int(k), int(a))
        return [np.stack([found.real, found.imag], -1).astype(np.float32)]

    feeds = [{"x": x, "k": np.array(k), "a": np.array(1)} for k in (length, length + 3, max(length - 2, 1))]
    same(model, *feeds, want=want, tolerance=1e-4)


def test_a_half_says_all_of_a_real_signal(same: Callable[..., Any]) -> None:
    forth = N("DFT", ["x", "", "a"], ["f"], onesided=1)
    back = N("DFT", ["f", "n", "a"], ["y"], onesided=1, inverse=1)
    weights = {"a": np.array(1)}
    for length in (9, 10):
        x = noise(2, length, 1)
        dynamic = {"x": ("f", ("b", "n", 1)), "n": ("i", ())}
        model = build([forth, back], dynamic, weights)
        same(model, {"x": x, "n": np.array(length)}, want=lambda x, n: [x])
        model = build([forth, back], {"x": ("f", (2, length, 1))}, weights | {"n": np.array(length)})
        same(model, {"x": x}, want=lambda x: [x])


@pytest.mark.parametrize("half", [0, 1])
def test_short_time_transforms(same: Callable[..., Any], half: int) -> None:
    weights = {"step": np.array(3), "window": np.hanning(8).astype(np.float32)}
    model = build([N("STFT", ["x", "step", "window"], ["y"], onesided=half)], {"x": ("f", ("n", "l", 1))}, weights)
    same(model, {"x": noise(2, 20, 1)}, {"x": noise(1, 31, 1)})


@pytest.mark.parametrize("op", ["HannWindow", "HammingWindow", "BlackmanWindow"])
@pytest.mark.parametrize("periodic", [0, 1])
def test_windows(same: Callable[..., Any], op: str, periodic: int) -> None:
    model = build([N(op, ["n"], ["y"], periodic=periodic)], {"n": ("i", ())})
    same(model, {"n": np.array(10)}, {"n": np.array(7)}, tolerance=1e-6)


def test_mel_weights(same: Callable[..., Any]) -> None:
    inputs = {"m": ("i", ()), "n": ("i", ()), "r": ("i", ()), "l": ("f", ()), "h": ("f", ())}
    model = build([N("MelWeightMatrix", list(inputs), ["y"])], inputs)
    numbers = {"m": np.array(8), "n": np.array(16), "r": np.array(8192)}
    same(model, numbers | {"l": np.array(0, np.float32), "h": np.array(8192 / 2, np.float32)})


def test_determinants(same: Callable[..., Any]) -> None:
    model = build([N("Det", ["x"], ["y"])], {"x": ("f", ("a", "b", "n", "n"))})
    singular = np.ones((1, 2, 3, 3), np.float32)
    same(model, {"x": noise(2, 3, 5, 5)}, {"x": noise(1, 2, 1, 1)}, {"x": singular}, tolerance=1e-4)


@pytest.mark.parametrize("rule", ["linear", "gated", "delta", "gated_delta"])
def test_attention_by_a_state(same: Callable[..., Any], rule: str) -> None:
    sizes = {"q": 16, "k": 8, "v": 6, "s": None, "g": 2, "b": 2}
    gated, delta = "gated" in rule, "delta" in rule
    names = ["q", "k", "v", "s", "g" if gated else "", "b" if delta else ""]
    inputs: Any = {n: ("f", ("n", "t", sizes[n]) if n != "s" else ("n", 2, 4, 3)) for n in names if n}
    node = N("LinearAttention", names, ["y", "z"], q_num_heads=4, kv_num_heads=2, update_rule=rule)
    model = build([node], inputs, opset=27, outputs=["y", "z"])
    for steps in (1, 5):
        shapes = {n: (2, steps, sizes[n]) if n != "s" else (2, 2, 4, 3) for n in inputs}
        same(model, {n: noise(*shape) * 0.3 for n, shape in shapes.items()})


def test_seeded_numbers_are_those_of_the_reference(same: Callable[..., Any]) -> None:
    nodes = [
        N("RandomUniform", [], ["u"], shape=[3, 400], low=-1.0, high=3.0, seed=7.0),
        N("RandomNormalLike", ["x"], ["g"], mean=1.0, scale=2.0, seed=3.0),
        N("Bernoulli", ["p"], ["c"], seed=2.0),
    ]
    model = build(nodes, {"x": ("f", ("n",)), "p": ("f", ("n",))}, outputs=["u", "g", "c"])
    same(model, {"x": noise(700), "p": RNG.random(700, np.float32)})


def test_numbers_without_a_seed_differ_and_are_spread_evenly() -> None:
    nodes = [
        N("RandomUniform", [], ["a"], shape=[20000]),
        N("RandomUniform", [], ["b"], shape=[20000]),
        N("RandomNormal", [], ["g"], shape=[20000]),
        N("Multinomial", ["w"], ["m"], sample_size=20000),
    ]
    chances = np.array([[0.1, 0.2, 0.7], [0.5, 0.5, 0]])
    model = build(nodes, {"w": ("f", (2, 3))}, outputs=["a", "b", "g", "m"])
    module = dscc.compile(model).load()
    with np.errstate(divide="ignore"):
        feed = {"w": np.log(chances).astype(np.float32)}
    first, second = (module.run(None, feed) for _ in range(2))
    for a, b in ((first[0], first[1]), (first[0], second[0]), (first[2], second[2])):
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.05
    assert abs(first[0].mean() - 0.5) < 0.02 and abs(first[0].var() - 1 / 12) < 0.01
    assert abs(first[2].mean()) < 0.05 and abs(first[2].std() - 1) < 0.05
    for row, chance in zip(first[3], chances, strict=True):
        np.testing.assert_allclose(np.bincount(row, minlength=3) / row.size, chance, atol=0.02)


def test_elements_are_dropped_only_while_training(same: Callable[..., Any]) -> None:
    node = N("Dropout", ["x", "r", "t"], ["y", "m"], seed=4)
    model = build([node], {"x": ("f", ("n",)), "r": ("f", ()), "t": ("b", ())}, outputs=["y", "m"])
    x, ratio = noise(500), np.array(0.3, np.float32)
    (_, (y, kept)) = same(
        model,
        {"x": x, "r": ratio, "t": np.array(False)},
        {"x": x, "r": ratio, "t": np.array(True)},
    )
    assert 0.6 < kept.mean() < 0.8
    np.testing.assert_allclose(y[kept], x[kept] / 0.7, rtol=1e-5)


def test_the_elements_that_are_not_zero(same: Callable[..., Any]) -> None:
    model = build([N("NonZero", ["x"], ["y"])], {"x": ("f", ("n", 3, "m"))})
    feeds = [{"x": RNG.integers(0, 2, shape).astype(np.float32)} for shape in ((2, 3, 4), (5, 3, 1), (1, 3, 7))]
    same(model, *feeds, {"x": np.zeros((2, 3, 2), np.float32)})


def test_all_of_them_at_once(same: Callable[..., Any]) -> None:
    same(build([N("NonZero", ["x"], ["y"])], {"x": ("b", (2, 3))}), {"x": np.array([[1, 0, 1], [0, 0, 1]], bool)})
