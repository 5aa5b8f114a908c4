"""Products, activations and normalisations of the `com.microsoft` domain, against onnxruntime or NumPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import dscc

from .contrib import Array, Given, compare, model, random, same

X = random(2, 5, 6)
OPEN = {"x": ("n", "s", 6)}


@pytest.mark.parametrize(
    ("op", "attributes", "bias"),
    [
        ("Gelu", {}, False),
        ("FastGelu", {}, False),
        ("FastGelu", {}, True),
        ("BiasGelu", {}, True),
        ("QuickGelu", {}, False),
        ("QuickGelu", {"alpha": 1.0}, False),
        ("ScaledSiLU", {"alpha": 0.7}, False),
        ("ScaledSiLU", {}, True),
    ],
)
def test_activations(op: str, attributes: dict[str, Any], bias: bool) -> None:
    shift = None if not bias else random() if op == "ScaledSiLU" else random(6)
    feed: Given = {"x": X, "b": shift}
    compare(model(op, feed, OPEN, ["b"], **attributes), feed, {**feed, "x": random(1, 3, 6)}, tolerance=1e-4)


@pytest.mark.parametrize(("a", "b"), [((3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5)), ((2, 2, 3, 4), (4, 5)), ((4,), (4, 5))])
@pytest.mark.parametrize("turned", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_fused_matmul(a: tuple[int, ...], b: tuple[int, ...], turned: tuple[int, int]) -> None:
    left, right = random(*a), random(*b)
    feed = {
        "a": left.swapaxes(-1, -2).copy() if turned[0] and left.ndim > 1 else left,
        "b": right.swapaxes(-1, -2).copy() if turned[1] else right,
    }
    compare(model("FusedMatMul", feed, transA=turned[0], transB=turned[1], alpha=0.25), feed)


@pytest.mark.parametrize("turned", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_fused_matmul_with_the_batch_behind_the_rows(turned: tuple[int, int]) -> None:
    feed = {"a": random(3, 2, 4).swapaxes(0, 2).copy() if turned[0] else random(3, 2, 4), "b": random(4, 2, 5)}
    if turned[1]:
        feed["b"] = feed["b"].swapaxes(0, 2).copy()
    flags = {"transBatchA": 1, "transBatchB": 1, "transA": turned[0], "transB": turned[1]}
    compare(model("FusedMatMul", feed, {"a": tuple("xyz"), "b": tuple("uvw")}, ["b"], **flags), feed)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("Relu", {}),
        ("Tanh", {}),
        ("Sigmoid", {}),
        ("LeakyRelu", {"activation_alpha": 0.3}),
        ("Elu", {"activation_alpha": 0.5}),
        ("HardSigmoid", {"activation_alpha": 0.3, "activation_beta": 0.4}),
        ("Selu", {"activation_alpha": 1.2, "activation_gamma": 1.1}),
    ],
)
def test_fused_gemm(name: str, parameters: dict[str, float]) -> None:
    feed = {"a": random(7, 4), "b": random(5, 4), "c": random(5)}
    made = model("FusedGemm", feed, {"a": ("n", 4)}, ["b", "c"], transB=1, alpha=0.5, activation=name, **parameters)
    compare(made, feed)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        (None, None),
        ("Relu", None),
        ("LeakyRelu", [0.2]),
        ("Clip", [0.0, 0.5]),
        ("HardSigmoid", [0.25, 0.4]),
        ("Sigmoid", None),
    ],
)
def test_fused_conv(name: str | None, parameters: list[float] | None) -> None:
    feed: Given = {"x": random(1, 4, 7, 6), "w": random(8, 2, 3, 3), "b": random(8), "z": random(1, 8, 7, 6)}
    more = {"activation": name} if name else {}
    more |= {"activation_params": parameters} if parameters else {}
    given = {"group": 2, "pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}
    shapes = {"x": ("n", 4, "h", "w"), "z": ("n", 8, "h", "w")}
    compare(model("FusedConv", feed, shapes, ["w", "b"], **given, **more), feed)
    alone = {**feed, "z": None, "b": None}
    compare(model("FusedConv", alone, shapes, ["w"], **given, **more), alone)


def test_an_unknown_activation_is_one_line() -> None:
    feed = {"a": random(2, 2), "b": random(2, 2)}
    with pytest.raises(dscc.DsccError, match="unknown activation 'Cubic'; supported: Clip, QuickGelu, Relu"):
        dscc.compile(model("FusedGemm", feed, activation="Cubic"))


@pytest.mark.parametrize("op", ["SkipLayerNormalization", "SkipSimplifiedLayerNormalization"])
@pytest.mark.parametrize("given", ["", "b", "s", "bs"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_skip_layer_norm(op: str, given: str, dtype: Any) -> None:
    feed: dict[str, Array | None] = {name: random(2, 5, 24, dtype=dtype, seed=ord(name)) for name in "xk"}
    feed["g"] = random(24, dtype=dtype)
    if op == "SkipLayerNormalization":
        feed["b"] = random(24, dtype=dtype, seed=1) if "b" in given else None
    elif "b" in given:
        pytest.skip("it has no beta")
    feed["s"] = random(24, dtype=dtype, seed=2) if "s" in given else None
    made = model(op, feed, dict.fromkeys("xk", ("n", "s", 24)), ["g", "b", "s"], ("y0", "", "", "sum"), epsilon=1e-3)
    compare(made, feed, tolerance=4e-3 if dtype == np.float16 else 1e-5)


def test_layer_norm_of_double() -> None:
    feed = {"x": X.astype(np.float64), "g": random(6, dtype=np.float64), "b": random(6, dtype=np.float64, seed=1)}
    compare(model("LayerNormalization", feed, OPEN, ["g", "b"], domain=""), feed, tolerance=1e-6)


@pytest.mark.parametrize("skip", [(1, 5, 8), (5, 8)])
def test_a_skip_is_repeated_over_the_batch(skip: tuple[int, ...]) -> None:
    feed = {"x": random(3, 5, 8), "k": random(*skip), "g": random(8), "b": random(8)}
    compare(model("SkipLayerNormalization", feed, {"x": ("n", 5, 8)}, ["g", "b"]), feed)


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_simplified_layer_norm(axis: int, dtype: Any) -> None:
    shape = (6,) if axis == -1 else (5, 6)
    feed = {"x": X.astype(dtype), "g": random(*shape, dtype=dtype)}
    made = model("SimplifiedLayerNormalization", feed, {"x": ("n", 5, 6)}, ["g"], domain="", axis=axis)
    compare(made, feed, tolerance=4e-3 if dtype == np.float16 else 1e-5)


@pytest.mark.parametrize(("mask", "positions", "segments"), [(0, 0, 1), (1, 0, 0), (1, 1, 1), (0, 1, 0)])
def test_embed_layer_norm(mask: int, positions: int, segments: int) -> None:
    rng = np.random.default_rng(0)
    feed: Given = {
        "ids": rng.integers(0, 20, (3, 4)).astype(np.int32),
        "seg": rng.integers(0, 2, (3, 4)).astype(np.int32) if segments else None,
        "w": random(20, 8),
        "p": random(9, 8),
        "t": random(2, 8) if segments else None,
        "g": random(8),
        "b": random(8),
        "m": np.array([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]], np.int32) if mask else None,
        "q": rng.integers(0, 9, (1, 4)).astype(np.int32) if positions else None,
    }
    shapes = {"ids": ("n", "s"), "seg": ("n", "s"), "m": ("n", "s"), "q": (1, "s")}
    made = model("EmbedLayerNormalization", feed, shapes, list("wptgb"), ("y", "count", "sum"))
    compare(made, feed)


@pytest.mark.parametrize("activation", ["silu", "sigmoid"])
def test_gated_rms_norm(activation: str) -> None:
    feed = {"x": random(2, 3, 12), "w": random(4), "z": random(2, 3, 12, seed=1)}
    compare(model("GatedRMSNorm", feed, {"x": ("n", "s", 12), "z": ("n", "s", 12)}, ["w"], activation=activation), feed)


@pytest.mark.parametrize("scale", [None, (12,), (3, 4), (4,)])
def test_branchwise_rms_norm(scale: tuple[int, ...] | None) -> None:
    feed: Given = {"x": random(2, 12), "s": None if scale is None else random(*scale)}
    compare(model("BranchwiseRMSNorm", feed, {"x": ("n", 12)}, ["s"], num_branches=3), feed)


def test_gated_add() -> None:
    feed = {"a": random(2, 3, 4), "b": random(2, 3, 4, seed=1), "g": random(2, 3, 1)}
    compare(model("GatedAdd", feed, {k: ("n", "s", 1 if k == "g" else 4) for k in feed}), feed)


# onnxruntime has no CPU kernel for the following ones.


def check(want: Array, op: str, feed: Given, outputs: int = 1, **attributes: Any) -> None:
    names = ["y", "total"][:outputs]
    module = dscc.compile(model(op, feed, outputs=names, **attributes), jobs=1).load()
    results = module.run(None, {name: value for name, value in feed.items() if value is not None})
    same(results[0], want, 1e-5)


def gelu(x: Array) -> Array:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / np.sqrt(2))).astype(x.dtype)


def test_sums_without_a_kernel_in_onnxruntime() -> None:
    b = random(6)
    check(X + b + X, "BiasAdd", {"x": X, "b": b, "s": X})
    check(X + b + X, "BiasDropout", {"x": X, "b": b, "r": X})
    left, right = np.split(X + b, 2, axis=-1)
    check(left * gelu(right), "BiasSplitGelu", {"x": X, "b": b})


@pytest.mark.parametrize("inner", [0, 1])
def test_bias_softmax(inner: int) -> None:
    x, b = random(2, 3, 4, 5), random(2, 5) if inner else random(4, 5)
    exponent = np.exp(x + (b[:, None, None] if inner else b))
    want = exponent / exponent.sum(-1, keepdims=True)
    check(want, "BiasSoftmax", {"x": x, "b": b}, axis=3, is_inner_broadcast=inner)


@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("skip", [False, True])
def test_group_norm(last: int, skip: bool) -> None:
    x, g, b = random(2, 6, 3, 4), random(6), random(6, seed=1)
    more = {"k": random(2, 6), "s": random(6, seed=2)} if skip else {}
    total = x + (more["k"][:, :, None, None] + more["s"][:, None, None] if skip else 0)
    groups = total.reshape(2, 3, -1)
    normal = (groups - groups.mean(-1, keepdims=True)) / np.sqrt(groups.var(-1, keepdims=True) + 1e-5)
    want = normal.reshape(x.shape) * g[:, None, None] + b[:, None, None]
    want = want / (1 + np.exp(-want))
    turned = (lambda v: v.transpose(0, 2, 3, 1).copy()) if last else (lambda v: v)
    feed = {"x": turned(x), "g": g, "b": b, **more}
    op = "SkipGroupNorm" if skip else "GroupNorm"
    check(turned(want), op, feed, 2 if skip else 1, groups=3, activation=1, channels_last=last)


def test_nhwc_conv() -> None:
    feed = {"x": random(1, 4, 5, 6), "w": random(8, 4, 3, 3), "b": random(8)}
    first = model("FusedConv", feed, pads=[1, 1, 1, 1], activation="Relu")
    want = dscc.compile(first, jobs=1).load().run(None, feed)[0]
    moved = {**feed, "x": feed["x"].transpose(0, 2, 3, 1).copy(), "z": np.zeros((1, 5, 6, 8), np.float32)}
    check(want.transpose(0, 2, 3, 1), "NhwcFusedConv", moved, pads=[1, 1, 1, 1], activation="Relu")
