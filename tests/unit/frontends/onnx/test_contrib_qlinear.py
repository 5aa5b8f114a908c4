"""Quantized operators of the `com.microsoft` domain, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dscc

from .contrib import Given, compare, model, random, same

KINDS = pytest.mark.parametrize("kind", [np.uint8, np.int8])
OFF = 0.02  # the share of results that may differ by one: rounding ties and onnxruntime's tables


def scale(value: float) -> Any:
    return np.array(value, np.float32)


def zero(kind: Any, value: int = 3) -> Any:
    return np.array(value, kind)


def quantized(kind: Any, *shape: int, seed: int = 0) -> Any:
    return random(*shape, dtype=kind, seed=seed)


@KINDS
@pytest.mark.parametrize("op", ["QLinearAdd", "QLinearMul"])
@pytest.mark.parametrize("shape", [(3, 1, 5), (5,), ()])
def test_binary(op: str, kind: Any, shape: tuple[int, ...]) -> None:
    feed = {
        "a": quantized(kind, 3, 4, 5),
        "as": scale(0.03),
        "az": zero(kind, 5),
        "b": quantized(kind, *shape, seed=1),
        "bs": scale(0.02),
        "bz": zero(kind),
        "cs": scale(0.05 if op == "QLinearAdd" else 0.1),
        "cz": zero(kind, 9),
    }
    made = model(
        op,
        feed,
        {"a": ("n", 4, 5), "b": ("n", *shape[1:]) if len(shape) == 3 else shape},
        ["as", "az", "bs", "bz", "cs", "cz"],
    )
    compare(made, feed, off=OFF)


def test_ties_are_rounded_after_the_zero_point_is_added() -> None:
    """Found by benchmarks.fuzz: 43.5 + 3 is 46, where QuantizeLinear's round(43.5) + 3 is 47."""
    feed = {
        "a": np.arange(256, dtype=np.uint8),
        "as": scale(1.0),
        "az": zero(np.uint8, 128),
        "b": zero(np.uint8, 121),
        "bs": scale(0.5),
        "bz": zero(np.uint8, 120),
        "cs": scale(1.0),
        "cz": zero(np.uint8, 3),
    }
    compare(model("QLinearMul", feed, {"a": ("n",)}, ["as", "az", "b", "bs", "bz", "cs", "cz"]), feed)


@KINDS
@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("QLinearLeakyRelu", {"alpha": 0.2}),
        ("QLinearSigmoid", {}),
        ("QLinearSoftmax", {"axis": -1, "opset": 13}),
        ("QLinearSoftmax", {"axis": 1, "opset": 11}),
    ],
)
def test_unary(op: str, kind: Any, attributes: dict[str, Any]) -> None:
    low = zero(kind, np.iinfo(kind).min)
    feed = {
        "x": quantized(kind, 3, 4, 6),
        "xs": scale(0.04),
        "xz": zero(kind, 5),
        "ys": scale(1 / 256 if op != "QLinearLeakyRelu" else 0.05),
        "yz": low if op != "QLinearLeakyRelu" else zero(kind, 7),
    }
    compare(model(op, feed, {"x": ("n", 4, 6)}, ["xs", "xz", "ys", "yz"], **attributes), feed, off=OFF)


@KINDS
@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("op", ["QLinearAveragePool", "QLinearGlobalAveragePool"])
def test_pools(op: str, kind: Any, last: int) -> None:
    shape = (2, 7, 6, 4) if last else (2, 4, 7, 6)
    more: dict[str, Any] = {"channels_last": last}
    if op == "QLinearAveragePool":
        more |= {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]}
    feed = {
        "x": quantized(kind, *shape),
        "xs": scale(0.04),
        "xz": zero(kind, 5),
        "ys": scale(0.03),
        "yz": zero(kind, 8),
    }
    symbols = ("n", "h", "w", 4) if last else ("n", 4, "h", "w")
    compare(model(op, feed, {"x": symbols}, ["xs", "xz", "ys", "yz"], **more), feed, off=OFF)


@KINDS
def test_concat(kind: Any) -> None:
    feed = {"ys": scale(0.05), "yz": zero(kind, 4)}
    for index, (size, step) in enumerate(((0.04, 7), (0.05, 4), (0.2, 0))):
        feed |= {f"x{index}": quantized(kind, 2, 3 + index, seed=index)}
        feed |= {f"s{index}": scale(size), f"z{index}": zero(kind, step)}
    weights = [name for name in feed if not name.startswith("x")]
    made = model("QLinearConcat", feed, {"x0": ("n", 3), "x1": ("n", 4), "x2": ("n", "m")}, weights, axis=1)
    compare(made, feed, off=OFF)


@KINDS
def test_where(kind: Any) -> None:
    feed = {
        "c": np.random.default_rng(0).random((3, 1, 4)) < 0.5,
        "x": quantized(kind, 3, 5, 4),
        "xs": scale(0.04),
        "xz": zero(kind, 5),
        "v": quantized(kind, 4, seed=1),
        "vs": scale(0.06),
        "vz": zero(kind, 2),
        "zs": scale(0.05),
        "zz": zero(kind, 1),
    }
    weights = [name for name in feed if len(name) == 2]
    compare(model("QLinearWhere", feed, {"c": ("n", 1, 4), "x": ("n", 5, 4)}, weights), feed, off=OFF)


@pytest.mark.parametrize("kinds", [(np.uint8, np.int8), (np.uint8, np.uint8), (np.int8, np.int8)])
@pytest.mark.parametrize("last", [0, 1])
def test_conv(kinds: tuple[Any, Any], last: int) -> None:
    shape = (1, 7, 6, 4) if last else (1, 4, 7, 6)
    signed = kinds[1] is np.int8
    feed = {
        "x": quantized(kinds[0], *shape),
        "xs": scale(0.04),
        "xz": zero(kinds[0], 5),
        "w": quantized(kinds[1], 6, 4, 3, 3),
        "ws": np.abs(random(6)) / 50 + np.float32(0.001) if signed else scale(0.02),
        "wz": np.zeros(6, kinds[1]) if signed else zero(kinds[1], 9),
        "ys": scale(1.5),
        "yz": zero(kinds[0], 11),
        "b": random(6, dtype=np.int32) // 2**20,
    }
    symbols = ("n", "h", "w", 4) if last else ("n", 4, "h", "w")
    weights = [name for name in feed if name != "x"]
    made = model("QLinearConv", feed, {"x": symbols}, weights, channels_last=last, pads=[1, 1, 1, 1])
    compare(made, feed, off=OFF)


@pytest.mark.parametrize("kinds", [(np.uint8, np.int8), (np.uint8, np.uint8), (np.int8, np.int8)])
@pytest.mark.parametrize(("quantize", "turned"), [(True, (0, 0)), (True, (1, 1)), (False, (0, 1))])
def test_gemm(kinds: tuple[Any, Any], quantize: bool, turned: tuple[int, int]) -> None:
    feed: Given = {
        "a": quantized(kinds[0], *((6, 5) if turned[0] else (5, 6))),
        "as": scale(0.04),
        "az": zero(kinds[0], 5),
        "b": quantized(kinds[1], *((7, 6) if turned[1] else (6, 7))),
        "bs": np.abs(random(7)) / 50 if kinds[1] is np.int8 else scale(0.02),
        "bz": quantized(kinds[1], 7) if kinds[1] is np.int8 else zero(kinds[1], 3),
        "c": random(7, dtype=np.int32) // 2**20,
        "ys": scale(0.8) if quantize else None,
        "yz": zero(kinds[0], 11) if quantize else None,
    }
    weights = [name for name in feed if name not in "ab"] + ["b"]
    symbols = {"a": (6, "n") if turned[0] else ("n", 6)}
    compare(model("QGemm", feed, symbols, weights, transA=turned[0], transB=turned[1], alpha=0.7), feed, off=OFF)


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("extras", [False, True])
@pytest.mark.parametrize("op", ["DynamicQuantizeMatMul", "MatMulIntegerToFloat"])
def test_products(op: str, kind: Any, columns: bool, extras: bool) -> None:
    dynamic = op == "DynamicQuantizeMatMul"
    b: dict[str, Any] = {
        "b": quantized(kind, 6, 7),
        "bs": np.abs(random(7)) / 50 if columns else scale(0.02),
        "bz": None if not extras else quantized(kind, 7) if columns else zero(kind),
        "bias": random(7) if extras else None,
    }
    if dynamic:
        feed = {"a": random(2, 5, 6), **b}
    else:
        feed = {"a": quantized(np.uint8, 2, 5, 6), "b": b["b"], "as": scale(0.03), "bs": b["bs"]}
        feed |= {"az": zero(np.uint8, 100) if extras else None, "bz": b["bz"], "bias": b["bias"]}
    made = model(op, feed, {"a": ("n", "s", 6)}, [name for name in feed if name != "a"])
    compare(made, feed, tolerance=1e-5)


@pytest.mark.parametrize("segments", [False, True])
def test_quantized_embed_layer_norm(segments: bool) -> None:
    rng, kind = np.random.default_rng(0), np.uint8
    tables = {"w": quantized(kind, 20, 8), "p": quantized(kind, 9, 8), "t": quantized(kind, 2, 8)}
    tables |= {"g": quantized(kind, 8), "b": quantized(kind, 8, seed=1)}
    feed: dict[str, Any] = {"ids": rng.integers(0, 20, (3, 4)).astype(np.int32)}
    feed |= {"seg": rng.integers(0, 2, (3, 4)).astype(np.int32), **tables, "m": None}
    feed |= {f"{name}s": scale(0.01 + index / 100) for index, name in enumerate(tables)}
    feed |= {f"{name}z": zero(kind, 100 + index) for index, name in enumerate(tables)}
    if not segments:
        feed |= dict.fromkeys(["seg", "t", "ts", "tz"])
    weights = [name for name in feed if name not in ("ids", "seg")]
    made = model("QEmbedLayerNormalization", feed, dict.fromkeys(["ids", "seg"], ("n", "s")), weights, ("y", "count"))
    compare(made, feed)


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.uint16, np.int16])
@pytest.mark.parametrize("axis", [None, 1])
def test_quantize_and_back(kind: Any, axis: int | None) -> None:
    many = (4,) if axis is not None else ()
    more = {"axis": axis} if axis is not None else {}
    step = np.abs(random(*many)).astype(np.float32) / 20 + np.float32(0.01)
    limits = np.iinfo(kind)
    centre = np.full(many, (int(limits.max) + int(limits.min)) // 2 + 2).astype(kind)
    real: Given = {"x": random(3, 4, 5), "s": step, "z": centre}
    compare(model("QuantizeLinear", real, {"x": ("n", 4, 5)}, ["s", "z"], **more), real)
    codes: Given = {
        "x": (random(3, 4, 5) * 3).astype(np.int64).clip(limits.min, limits.max).astype(kind),
        "s": step,
        "z": centre,
    }
    compare(model("DequantizeLinear", codes, {"x": ("n", 4, 5)}, ["s", "z"], **more), codes)


# onnxruntime has no CPU kernel for the following ones.


def test_products_and_sums_of_whole_numbers() -> None:
    a, b = quantized(np.uint8, 3, 4), quantized(np.uint8, 4, seed=1)
    feed = {"a": a, "az": zero(np.uint8), "b": b}
    got = dscc.compile(model("MulInteger", feed), jobs=1).load().run(None, feed)[0]
    same(got, (a.astype(np.int32) - 3) * b.astype(np.int32), 0)
    got = dscc.compile(model("ReduceSumInteger", {"x": a}, axes=[1], keepdims=0), jobs=1).load().run(None, {"x": a})[0]
    same(got, a.sum(1, dtype=np.uint32), 0)
    feed = {"x": a, "s": scale(0.1), "z": zero(np.uint8), "t": scale(0.1), "u": zero(np.uint8, 9)}
    made = model("QLinearReduceMean", feed, {}, ["s", "z", "t", "u"], axes=[0], keepdims=1)
    want = np.round((a - 3.0).mean(0, keepdims=True)) + 9
    same(dscc.compile(made, jobs=1).load().run(None, {"x": a})[0], want.astype(np.uint8), 0, off=0.5)
