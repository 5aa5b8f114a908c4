"""GroupQueryAttention, rotary embeddings and relative biases, against onnxruntime or NumPy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import dscc

from .contrib import Array, Given, model, random, reference, same

HEADS, GROUPS, SIZE, MOST = 4, 2, 16, 32
ANGLES = np.outer(np.arange(MOST), 1 / 100 ** (np.arange(SIZE // 2) / (SIZE // 2)))
COS, SIN = np.cos(ANGLES).astype(np.float32), np.sin(ANGLES).astype(np.float32)
SHAPES: dict[str, tuple[Any, ...]] = {
    "q": ("n", "s", HEADS * SIZE),
    "k": ("n", "s", GROUPS * SIZE),
    "v": ("n", "s", GROUPS * SIZE),
    "pk": ("n", GROUPS, "room", SIZE),
    "pv": ("n", GROUPS, "room", SIZE),
    "len": ("n",),
    "total": (),
    "pos": ("n", "s"),
    "a": (1, HEADS, "s", "t"),
}


def feed(lengths: list[int], s: int, room: int, packed: bool = False, dtype: Any = np.float32) -> dict[str, Any]:
    """Sequences of `lengths` keys with the `s` new ones, and caches of `room`."""
    n, total = len(lengths), max(lengths)
    q, k, v = (random(n, s, h * SIZE, seed=i, dtype=dtype) for i, h in enumerate((HEADS, GROUPS, GROUPS)))
    caches = [random(n, GROUPS, room, SIZE, seed=i, dtype=dtype) for i in (5, 6)]
    return {
        "q": np.concatenate([q, k, v], 2) if packed else q,
        "k": None if packed else k,
        "v": None if packed else v,
        "pk": caches[0] if room else None,
        "pv": caches[1] if room else None,
        "len": np.array(lengths, np.int32) - 1,
        "total": np.array(total, np.int32),
        "cos": COS.astype(dtype),
        "sin": SIN.astype(dtype),
        "pos": None,
        "a": None,
        "sink": None,
    }


def check(feeds: list[dict[str, Any]], tolerance: float = 2e-5, outputs: int = 3, **attributes: Any) -> None:
    """One artifact for all feeds; only what belongs to sequences is compared: onnxruntime leaves the rest open."""
    names = ("y", "k1", "v1", "qk")[:outputs]
    given: Given = feeds[0]
    shapes: Mapping[str, Any] = {**SHAPES, "q": ("n", "s", feeds[0]["q"].shape[2])}
    weights = ["cos", "sin", "sink"]
    more = {"num_heads": HEADS, "kv_num_heads": GROUPS, **attributes}
    made = model("GroupQueryAttention", given, shapes, weights, names, **more)
    module = dscc.compile(made, jobs=1).load()
    for each in feeds:
        present = {info.name: each[info.name] for info in made.graph.input}
        got, want = module.run(None, present), reference(made, present)
        for b, last in enumerate(each["len"]):
            start = max(last + 1 - each["q"].shape[1], 0)
            rows = slice(0, min(each["q"].shape[1], last + 1 - start))
            same(got[0][b, rows], want[0][b, rows], tolerance)
            for mine, theirs in zip(got[1:3], want[1:3], strict=True):
                assert mine.shape == theirs.shape
                same(mine[b, :, : last + 1], theirs[b, :, : last + 1], tolerance)
            for mine, theirs in zip(got[3:], want[3:], strict=True):
                assert mine.shape == theirs.shape
                for i in range(rows.stop):
                    seen = slice(0, start + i + 1)
                    same(mine[b, :, i, seen], theirs[b, :, i, seen], tolerance)


PROMPT, PADDED, NEXT, SHARED = ([6, 6], 6, 6), ([6, 4], 6, 8), ([7, 5], 1, 8), ([5, 9], 1, 8)


@pytest.mark.parametrize("rotary", [0, 1])
@pytest.mark.parametrize("packed", [False, True])
def test_prompts_and_single_tokens(rotary: int, packed: bool) -> None:
    check([feed(*case, packed=packed) for case in (PROMPT, PADDED, NEXT, SHARED)], do_rotary=rotary)


def test_a_prompt_without_a_cache() -> None:
    check([feed([5, 5], 5, 0), feed([3, 2], 3, 0)], do_rotary=1, rotary_interleaved=1)


def test_a_prompt_that_goes_on() -> None:
    check([feed([9], 4, 5), feed([9], 4, 12)], do_rotary=1, scale=0.3)


@pytest.mark.parametrize("window", [1, 3, 4])
def test_a_window(window: int) -> None:
    check([feed(*case) for case in (PROMPT, NEXT)], local_window_size=window)


@pytest.mark.parametrize(
    ("attributes", "sink"),
    [({"softcap": 2.0}, False), ({"smooth_softmax": 1}, False), ({}, True), ({"softcap": 5.0}, True)],
)
def test_softcap_and_sinks(attributes: dict[str, Any], sink: bool) -> None:
    feeds = [feed(*case) for case in (PROMPT, NEXT)]
    if sink:
        feeds = [{**each, "sink": random(HEADS)} for each in feeds]
    check(feeds, **attributes)


@pytest.mark.parametrize("keep", [1, 2])
def test_scores_are_an_output(keep: int) -> None:
    check([feed([5, 5], 5, 0), feed([6, 6], 1, 5)][:1], outputs=4, qk_output=keep)
    check([feed([6, 6], 1, 5)], outputs=4, qk_output=keep)


def test_positions_and_a_bias_of_scores_may_be_given() -> None:
    first, then = feed([5, 5], 5, 0), feed([7], 1, 6)
    first |= {"pos": np.tile(np.arange(5), (2, 1)), "a": random(1, HEADS, 5, 5)}
    then |= {"pos": np.array([[6]]), "a": random(1, HEADS, 1, 7)}
    check([first], do_rotary=1)
    check([then], do_rotary=1)


def test_half_precision() -> None:
    check([feed(*case, dtype=np.float16) for case in (PROMPT, NEXT)], tolerance=4e-3, do_rotary=1)


def test_a_quantized_cache_is_refused_in_one_line() -> None:
    given = feed([5, 5], 5, 4)
    made = model("GroupQueryAttention", given, SHAPES, num_heads=HEADS, kv_num_heads=GROUPS, k_quant_type="PER_TENSOR")
    with pytest.raises(dscc.DsccError, match="the cache is quantized, which is not supported"):
        dscc.compile(made)


def run(op: str, given: Given, shapes: Mapping[str, Any], **attributes: Any) -> tuple[Array, Array]:
    made = model(op, given, shapes, **attributes)
    present = {info.name: given[info.name] for info in made.graph.input}
    got = dscc.compile(made, jobs=1).load().run(None, present)
    return got[0], reference(made, {k: v for k, v in present.items() if v is not None})[0]


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("form", ["flat", "heads", "offset", "partial"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_rotary_embedding(form: str, interleaved: int, dtype: Any) -> None:
    x = random(2, 3, 5, SIZE) if form == "heads" else random(2, 5, 3 * SIZE)
    width = 4 if form == "partial" else SIZE // 2
    given = {
        "x": x.astype(dtype),
        "p": np.array([7]) if form == "offset" else np.random.default_rng(0).integers(0, MOST, (2, 5)),
        "c": COS[:, :width].astype(dtype),
        "s": SIN[:, :width].astype(dtype),
    }
    more = {"num_heads": 3, "rotary_embedding_dim": 8} if form == "partial" else {}
    shapes = {
        "x": ("n", 3, "s", SIZE) if form == "heads" else ("n", "s", 3 * SIZE),
        "p": (1,) if form == "offset" else ("n", "s"),
    }
    same(*run("RotaryEmbedding", given, shapes, interleaved=interleaved, **more), 2e-3 if dtype == np.float16 else 1e-6)


@pytest.mark.parametrize("both", [0, 1])
def test_relative_position_bias(both: int) -> None:
    """As transformers' T5 computes its buckets."""
    table, q, k = random(32, 3), 40, 50
    distance = np.arange(k)[None, :] - np.arange(q)[:, None]
    buckets, base = (16, 16 * (distance > 0)) if both else (32, 0)
    size = np.abs(distance) if both else -np.minimum(distance, 0)
    exact = buckets // 2
    with np.errstate(divide="ignore"):
        far = exact + np.log(size / exact) / math.log(20 / exact) * (buckets - exact)
    bucket = base + np.where(size < exact, size, np.minimum(np.nan_to_num(far, neginf=0).astype(int), buckets - 1))
    given = {"t": table, "q": np.array([q]), "k": np.array([k])}
    made = model("RelativePositionBias", given, weights=["t"], is_bidirectional=both, max_distance=20)
    got = dscc.compile(made, jobs=1).load().run(None, {"q": given["q"], "k": given["k"]})[0]
    same(got, table[bucket].transpose(2, 0, 1)[None], 1e-6)


def test_gated_relative_position_bias() -> None:
    n, s, heads, size, wide = 2, 3, 2, 4, 6
    given = {
        "q": random(n, s, heads * size),
        "b": random(heads * size),
        "r": random(1, heads, s, s),
        "w": random(size, wide),
        "c": random(wide),
        "e": random(1, heads, 1, 1),
    }
    rows = (given["q"] + given["b"]).reshape(n, s, heads, size).transpose(0, 2, 1, 3)
    gates = 1 / (1 + np.exp(-(rows @ given["w"] + given["c"]).reshape(n, heads, s, 2, wide // 2).sum(-1)))
    want = (gates[..., :1] * (gates[..., 1:] * given["e"] - 1) + 2) * given["r"]
    made = model("GatedRelativePositionBias", given, {"q": ("n", "s", heads * size)}, num_heads=heads)
    same(dscc.compile(made, jobs=1).load().run(None, given)[0], want, 1e-5)
