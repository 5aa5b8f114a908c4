"""Mixtures of experts: the reference definition and the kernel, against NumPy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tvm
from tvm.ir import Var

from dscc import kernel_pipeline
from dscc.schedule.base import Packing
from dscc.schedule.decisions import Decisions
from dscc.schedule.experts import formula
from dscc.schedule.experts.define import define
from dscc.schedule.experts.mixture import ENTER, SILU_GATE, Mixture, Storage
from dscc.schedule.math import vector_math
from dscc.schedule.rules.experts import Experts

from .conftest import MACHINES

Array = Any
BIASED = formula.text(
    (lambda p, b, s: (p + b) * s)(*(names := [Var(n, "float32") for n in ("p", "b", "share")])),
    dict(zip(names, ("p", "b", "share"), strict=True)),
)
PLAIN = '["Max", ["const", 0.0, "float32"], ["Add", "p0", "b0"]]'
BASE = Mixture(5, 2, 40, 24, 36, 2, ("x", "ids", "shares", "w1", "w2"))
CASES = {
    "gated": BASE,
    "plain and biased": dataclasses.replace(
        BASE, parts=1, operands=("x", "ids", "shares", "w1", "b1", "w2", "b2"), middle=PLAIN, leave=BIASED
    ),
    "odd sizes": dataclasses.replace(BASE, experts=3, top=1, hidden=19, inner=21, out=37),
    "narrow": dataclasses.replace(BASE, hidden=5, inner=3, out=2),
    "whole vectors": dataclasses.replace(BASE, hidden=64, inner=64, out=64),
    "long": dataclasses.replace(BASE, hidden=384, inner=32, out=32),
    "halves": dataclasses.replace(BASE, first=Storage(16), second=Storage(16)),
    "upper halves": dataclasses.replace(BASE, first=Storage(16, brain=True), second=Storage(16, brain=True)),
    "share at the entrance": dataclasses.replace(BASE, enter='["Mul", "x", "share"]', leave='"p"'),
    "some of the experts": dataclasses.replace(BASE, experts=2, begin=1, after=2),
    "capacity": dataclasses.replace(BASE, capacity=0.8),
}
for bits in (8, 4, 2):
    coded = ("x", "ids", "shares", "w1", "s1", "w2", "s2")
    CASES[f"{bits} bits"] = dataclasses.replace(
        BASE, operands=coded, first=Storage(bits, zero=2 ** (bits - 1)), second=Storage(bits, zero=2 ** (bits - 1))
    )
    CASES[f"{bits} bits in blocks with zeros"] = dataclasses.replace(
        BASE, operands=(*coded, "z1", "z2"), first=Storage(bits, 16), second=Storage(bits, 16)
    )
for bits in (4, 2):  # codes in words of 16 bits and of 8
    CASES[f"{bits} bits in short blocks"] = dataclasses.replace(
        BASE, operands=coded, first=Storage(bits, 4, 2), second=Storage(bits, 4, 1)
    )


def draw(m: Mixture, tokens: int, seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    made: dict[str, Array] = {}
    total = m.begin + m.experts + m.after
    for name, (shape, dtype) in m.shapes(tokens).items():
        if name == "ids":
            made[name] = np.argsort(rng.random((tokens, total)), axis=1)[:, : m.top].astype(np.int64)
        elif dtype == "uint8":
            made[name] = rng.integers(0, 256, shape, dtype=np.uint8)
        elif name[0] == "z":
            made[name] = rng.integers(0, 2**m.first.bits, shape).astype(np.float32)
        elif name[0] == "s" and name != "shares":
            made[name] = (rng.random(shape) / 2**m.first.bits).astype(dtype)
        elif dtype == "uint16":
            made[name] = (rng.standard_normal(shape) / 4).astype(ml_dtypes.bfloat16).view(np.uint16)
        else:
            made[name] = (rng.standard_normal(shape) / (4 if name[0] in "wb" else 1)).astype(dtype)
    return {name: made[name] for name in m.operands}


def matrix(given: Mapping[str, Array], number: int, storage: Storage, depth: int) -> Array:
    stored = given[f"w{number}"]
    if not storage.coded:
        return (stored.view(ml_dtypes.bfloat16) if storage.brain else stored).astype(np.float64)
    shifts = np.arange(storage.per, dtype=np.uint8) * np.uint8(storage.bits)
    codes = (stored[..., None] >> shifts) & np.uint8(2**storage.bits - 1)
    codes = codes.reshape(*stored.shape[:2], -1)[..., :depth].astype(np.float64)
    spread = np.arange(depth) // (storage.block or depth)
    zero = given[f"z{number}"][..., spread] if f"z{number}" in given else storage.zero
    return (codes - zero) * given[f"s{number}"][..., spread]


def expected(m: Mixture, given: Mapping[str, Array]) -> Array:
    first, second = matrix(given, 1, m.first, m.hidden), matrix(given, 2, m.second, m.inner)
    tokens = len(given["x"])
    out, taken = np.zeros((tokens, m.out)), np.zeros(m.experts, int)
    limit = tokens * m.top if m.capacity is None else np.ceil(tokens * m.top * m.capacity / m.experts)
    for t in range(tokens):
        for j in range(m.top):
            e, share = given["ids"][t, j] - m.begin, float(given["shares"][t, j])
            if not 0 <= e < m.experts:
                continue
            taken[e] += 1
            if taken[e] > limit:
                continue
            x = given["x"][t].astype(np.float64) * (share if m.enter != ENTER else 1.0)
            p = first[e] @ x + (given["b1"][e] if "b1" in given else 0)
            if m.middle == SILU_GATE:
                gate, up = p[: m.inner], p[m.inner :]
                hidden = gate / (1 + np.exp(-gate)) * up
            else:
                hidden = np.maximum(p, 0)
            y = second[e] @ hidden + (given["b2"][e] if "b2" in given else 0)
            out[t] += y * (1.0 if m.leave == '"p"' else share)
    return out


def build(func: Any, packings: Mapping[int, Packing], pipeline: str) -> Callable[..., Array]:
    func = func.with_attrs({"global_symbol": "kernel", "tirx.is_scheduled": True})
    library = tvm.tirx.build(
        tvm.IRModule({"kernel": func}), tvm.target.Target({"kind": "llvm", "mcpu": "x86-64-v3"}), pipeline
    )

    def run(given: Mapping[str, Array], out: int) -> Array:
        packed = [packings[i].pack(a) if i in packings else a for i, a in enumerate(given.values())]
        y = tvm.runtime.tensor(np.full((len(given["x"]), out), np.nan, np.float32))
        library["kernel"](*(tvm.runtime.tensor(a) for a in packed), y)
        return y.numpy()

    return run


@cache
def reference(case: str) -> Callable[..., Array]:
    return build(define(CASES[case]), {}, kernel_pipeline.NAME)


@cache
def kernel(case: str, machine: str) -> Callable[..., Array]:
    func = define(CASES[case])
    weights = frozenset(i for i, name in enumerate(CASES[case].operands) if name[0] in "wszb")
    plan = Experts().apply(func, weights, MACHINES[machine], Decisions())
    assert plan is not None and plan.packings
    return build(vector_math(plan.func), plan.packings, kernel_pipeline.NAME)


def check(m: Mixture, run: Callable[..., Array], given: Mapping[str, Array]) -> None:
    want = expected(m, given)
    got = run(given, m.out)
    np.testing.assert_allclose(got, want, atol=1e-5 * max(1.0, float(np.abs(want).max(initial=0))), rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_the_reference_definition(case: str) -> None:
    for tokens in (0, 1, 7):
        check(CASES[case], reference(case), draw(CASES[case], tokens, tokens))


@pytest.mark.parametrize("case", CASES)
def test_the_kernel(case: str) -> None:
    for tokens in (0, 1, 2, 7, 33, 100):
        check(CASES[case], kernel(case, "avx2"), draw(CASES[case], tokens, tokens))


def test_all_tokens_choose_the_same_experts_and_some_get_none() -> None:
    given = draw(BASE, 50)
    given["ids"] = np.tile(np.array([[3, 1]]), (50, 1))
    check(BASE, kernel("gated", "avx2"), given)


def test_ids_outside_count_for_nothing() -> None:
    given = draw(BASE, 9)
    given["ids"][2:4] = [[-1, 7], [4, 1 << 40]]
    check(BASE, kernel("gated", "avx2"), given)


def test_weights_that_are_computed_leave_the_function_as_it_is() -> None:
    func = define(BASE)
    plan = Experts().apply(func, frozenset(), MACHINES["avx2"], Decisions())
    assert plan is not None and plan.func is func


def test_blocks_that_end_within_a_byte_leave_the_function_as_it_is() -> None:
    func = define(dataclasses.replace(BASE, operands=coded, first=Storage(4, 3), second=Storage(4, 3)))
    plan = Experts().apply(func, frozenset(range(3, 7)), MACHINES["avx2"], Decisions())
    assert plan is not None and plan.func is func


@pytest.mark.parametrize("case", ["gated", "long", "4 bits in blocks with zeros"])
def test_every_number_of_rows_has_its_tile(case: str) -> None:
    for tokens in range(1, 30):
        given = draw(CASES[case], tokens, tokens)
        given["ids"][:] = [[2, 4]]  # all rows belong to the same experts
        check(CASES[case], kernel(case, "avx2"), given)


def test_text_says_everything() -> None:
    for mixture in CASES.values():
        assert Mixture.of(mixture.text()) == mixture
