"""Fused functions taken apart: what is recognised, what is refused, and what one stored element is made of."""

from __future__ import annotations

import pytest
from tvm import te, tirx

from dscc.schedule.epilogue import Fused
from dscc.schedule.stages import loads


def product(rows, columns):
    x = te.placeholder((rows, 8), name="x")
    w = te.placeholder((8, columns), name="w")
    k = te.reduce_axis((0, 8), "k")
    return x, w, te.compute((rows, columns), lambda i, j: te.sum(x[i, k] * w[k, j], k), name="acc")


def taken_apart(tensors):
    return Fused.of(te.create_prim_func(tensors, index_dtype_override="int64"))


def stored(fused, *coords):
    """The text of the store of the element at `coords`, for an accumulator called `value`."""
    at = [tirx.Var(name, "int64") if isinstance(name, str) else tirx.IntImm("int64", name) for name in coords]
    store = fused.store(at, tirx.Var("value", "float32"))
    return store.script().strip().splitlines()[-1]


def test_elementwise_blocks_become_one_expression():
    x, w, acc = product(tirx.Var("n", "int64"), 16)
    b = te.placeholder((16,), name="b")
    biased = te.compute(acc.shape, lambda i, j: acc[i, j] + b[j], name="biased")
    out = te.compute(acc.shape, lambda i, j: te.max(biased[i, j], 0.0), name="out")
    fused = taken_apart([x, w, b, out])
    assert fused is not None
    assert stored(fused, "i", "j") == "out[i, j] = T.max(value + b[j], T.float32(0.0))"


def test_a_value_that_is_used_twice_is_computed_once():
    x, w, acc = product(4, 16)
    twice = te.compute(acc.shape, lambda i, j: acc[i, j] * 2.0, name="twice")
    out = te.compute(acc.shape, lambda i, j: twice[i, j] * te.exp(twice[i, j]), name="out")
    fused = taken_apart([x, w, out])
    assert fused is not None
    assert stored(fused, "i", "j").count("value") == 1


@pytest.mark.parametrize(
    "shape,index,want",
    [
        ((4, 2, 8), lambda a, b, c: (a, b * 8 + c), "out[i, j // T.int64(8), j % T.int64(8)] = value + T.float32(1.0)"),
        ((16, 4), lambda a, b: (b, a), "out[j, i] = value + T.float32(1.0)"),
        ((1, 4, 16), lambda a, b, c: (b, c), "out[T.int64(0), i, j] = value + T.float32(1.0)"),
    ],
)
def test_stores_that_reshape_or_permute(shape, index, want):
    x, w, acc = product(4, 16)
    out = te.compute(shape, lambda *at: acc(*index(*at)) + 1.0, name="out")
    fused = taken_apart([x, w, out])
    assert fused is not None
    assert stored(fused, "i", "j") == want


def test_an_operand_is_told_in_terms_of_parameters():
    q = te.placeholder((8, 16), "int8", name="q")
    s = te.placeholder((16,), name="s")
    x = te.placeholder((4, 8), name="x")
    w = te.compute((8, 16), lambda i, j: q[i, j].astype("float32") * s[j], name="w")
    k = te.reduce_axis((0, 8), "k")
    out = te.compute((4, 16), lambda i, j: te.sum(x[i, k] * w[k, j], k), name="out")
    fused = taken_apart([q, s, x, out])
    assert fused is not None
    (weight,) = [load for load in loads(fused.anchor.value) if load.source.name == "w"]
    assert {load.source.name for load in loads(fused.inline(weight))} == {"q", "s"}


def test_two_reductions_are_refused():
    x, w, acc = product(4, 16)
    k = te.reduce_axis((0, 16), "k")
    out = te.compute((4,), lambda i: te.sum(acc[i, k], k), name="out")
    assert taken_apart([x, w, out]) is None


def test_a_result_that_is_read_twice_at_different_places_is_refused():
    x, w, acc = product(4, 16)
    out = te.compute((4, 16), lambda i, j: acc[i, j] + acc[i, 15 - j], name="out")
    assert taken_apart([x, w, out]) is None
