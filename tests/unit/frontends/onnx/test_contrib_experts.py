"""Mixtures of experts of the `com.microsoft` domain, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dscc

from .contrib import Array, compare, model, random

TOKENS, EXPERTS, HIDDEN, INNER = 5, 4, 32, 64


@pytest.mark.parametrize(
    ("activation", "more"),
    [
        ("relu", {}),
        ("gelu", {"normalize_routing_weights": 1}),
        ("silu", {"k": 2}),
        ("identity", {"k": 2, "normalize_routing_weights": 1}),
        ("swiglu", {"k": 2, "swiglu_fusion": 1}),
        ("swiglu", {"swiglu_fusion": 1, "swiglu_limit": 0.5, "activation_alpha": 1.7, "activation_beta": 1.0}),
    ],
)
@pytest.mark.parametrize("bias", [False, True])
def test_moe(activation: str, more: dict[str, Any], bias: bool) -> None:
    wide = INNER * (2 if activation == "swiglu" else 1)
    feed = {
        "x": random(1, TOKENS, HIDDEN),
        "r": random(TOKENS, EXPERTS),
        "w1": random(EXPERTS, wide, HIDDEN) / 6,
        "b1": random(EXPERTS, wide) if bias else None,
        "w2": random(EXPERTS, HIDDEN, INNER) / 8,
        "b2": random(EXPERTS, HIDDEN) if bias else None,
    }
    shapes = {"x": (1, "s", HIDDEN), "r": ("s", EXPERTS)}
    made = model("MoE", feed, shapes, ["w1", "b1", "w2", "b2"], activation_type=activation, **more)
    compare(made, feed, {**feed, "x": random(1, 1, HIDDEN), "r": random(1, EXPERTS)}, tolerance=2e-5)


def silu(x: Array) -> Array:
    return x / (1 + np.exp(-x))


@pytest.mark.parametrize("fusion", [0, 2])
def test_moe_with_gates_apart(fusion: int) -> None:
    """onnxruntime's CPU kernel takes neither a third matrix nor halves that are not interleaved."""
    gate, up = (random(EXPERTS, INNER, HIDDEN, seed=seed) / 6 for seed in range(2))
    feed = {
        "x": random(TOKENS, HIDDEN),
        "r": random(TOKENS, EXPERTS),
        "w1": np.concatenate([gate, up], 1) if fusion else gate,
        "b1": None,
        "w2": random(EXPERTS, HIDDEN, INNER) / 8,
        "b2": None,
        "w3": None if fusion else up,
    }
    power = np.exp(feed["r"])
    shares = power / power.sum(-1, keepdims=True)
    want = np.zeros((TOKENS, HIDDEN), np.float32)
    for token in range(TOKENS):
        for expert in np.argsort(-shares[token])[:2]:
            hidden = silu(gate[expert] @ feed["x"][token]) * (up[expert] @ feed["x"][token])
            want[token] += shares[token, expert] * (feed["w2"][expert] @ hidden)
    made = model("MoE", feed, {}, ["w1", "w2", "w3"], activation_type="swiglu", swiglu_fusion=fusion, k=2)
    got = dscc.compile(made, jobs=1).load().run(None, {"x": feed["x"], "r": feed["r"]})[0]
    np.testing.assert_allclose(got, want, atol=1e-4)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("block", [0, 16])
@pytest.mark.parametrize("zeros", [False, True])
def test_quantized_moe(bits: int, block: int, zeros: bool) -> None:
    def weight(name: str, columns: int, depth: int) -> dict[str, Array | None]:
        blocks = depth // block if block else 1
        shape = (EXPERTS, columns, blocks) if block else (EXPERTS, columns)
        packed = (EXPERTS, columns, -(-blocks * bits // 8)) if block else (EXPERTS, columns * bits // 8)
        return {
            name: random(EXPERTS, columns, depth * bits // 8, dtype=np.uint8),
            f"{name}s": np.abs(random(*shape)) / 2**bits / 4,
            f"{name}b": random(EXPERTS, columns),
            f"{name}z": random(*packed, dtype=np.uint8) if zeros else None,
        }

    first, second = weight("u", 2 * INNER, HIDDEN), weight("v", HIDDEN, INNER)
    feed = {"x": random(TOKENS, HIDDEN), "r": random(TOKENS, EXPERTS)}
    feed |= {name: first[name] for name in ("u", "us", "ub")} | {name: second[name] for name in ("v", "vs", "vb")}
    feed |= {"w3": None, "w3s": None, "w3b": None, "uz": first["uz"], "vz": second["vz"]}
    shapes = {"x": ("s", HIDDEN), "r": ("s", EXPERTS)}
    more = {"k": 2, "activation_type": "swiglu", "swiglu_fusion": 1, "expert_weight_bits": bits}
    more |= {"block_size": block} if block else {}
    made = model("QMoE", feed, shapes, [name for name in feed if name not in "xr"], **more)
    compare(made, feed, tolerance=2e-2 if bits == 8 and block else 1e-4)  # onnxruntime rounds x to 8 bits there


@pytest.mark.parametrize("normalize", [0, 1])
def test_quantized_moe_with_weights_of_its_own(normalize: int) -> None:
    feed: dict[str, Array | None] = {"x": random(TOKENS, HIDDEN), "r": random(TOKENS, EXPERTS)}
    feed |= {"u": random(EXPERTS, INNER, HIDDEN // 2, dtype=np.uint8), "us": random(EXPERTS, INNER) / 64, "ub": None}
    feed |= {"v": random(EXPERTS, HIDDEN, INNER // 2, dtype=np.uint8), "vs": random(EXPERTS, HIDDEN) / 64}
    feed |= dict.fromkeys(["vb", "w3", "w3s", "w3b", "uz", "vz", "wz"])
    feed["own"] = np.abs(random(TOKENS, EXPERTS, seed=3))
    made = model("QMoE", feed, {}, ["u", "us", "v", "vs"], k=2, normalize_routing_weights=normalize)
    compare(made, feed, tolerance=1e-4)


def test_the_sparse_mixer_is_refused_in_one_line() -> None:
    feed = {"x": random(2, 8), "r": random(2, 2), "w1": random(2, 8, 8), "b1": None, "w2": random(2, 8, 8)}
    with pytest.raises(dscc.DsccError, match="use_sparse_mixer is 1, which is not supported"):
        dscc.compile(model("MoE", feed, {}, ["w1", "w2"], use_sparse_mixer=1))
