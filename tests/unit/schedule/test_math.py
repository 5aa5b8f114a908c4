"""Vectorised elementary functions: accuracy against float64 over the whole range, IEEE edges, no call left."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tvm
from tvm import te, tirx

from dscc.schedule.code import Code
from dscc.schedule.math import vector_call, vector_math

TARGET = tvm.target.Target("llvm")

UNARY = {
    "exp": (tirx.exp, np.exp, np.linspace(-86, 88, 40001)),
    "exp2": (tirx.exp2, np.exp2, np.linspace(-125, 127, 40001)),
    "log": (tirx.log, np.log, np.concatenate([np.logspace(-37, 38, 40001), np.linspace(0.5, 2, 10001)])),
    "log2": (tirx.log2, np.log2, np.logspace(-37, 38, 40001)),
    "log10": (tirx.log10, np.log10, np.logspace(-37, 38, 40001)),
    "log1p": (tirx.log1p, np.log1p, np.concatenate([np.logspace(-20, 30, 40001), np.linspace(-0.99, 1, 10001)])),
    "sigmoid": (tirx.sigmoid, lambda x: 1 / (1 + np.exp(-x)), np.linspace(-80, 80, 40001)),
    "tanh": (tirx.tanh, np.tanh, np.concatenate([np.linspace(-12, 12, 40001), np.logspace(-30, 0, 10001)])),
    "sinh": (tirx.sinh, np.sinh, np.concatenate([np.linspace(-88, 88, 40001), np.logspace(-30, 0, 10001)])),
    "cosh": (tirx.cosh, np.cosh, np.linspace(-88, 88, 40001)),
    "erf": (tirx.erf, np.vectorize(math.erf), np.concatenate([np.linspace(-6, 6, 20001), np.logspace(-30, 0, 5001)])),
}
EDGES = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-42, -1e-42, 200.0, -200.0], "float32")


def build(operator, dtype="float32", arity=1):
    n = te.var("n", "int64")
    inputs = [te.placeholder((n,), dtype, name=f"x{i}") for i in range(arity)]
    out = te.compute((n,), lambda i: operator(*(x[i] for x in inputs)), name="out")
    schedule = tvm.s_tir.Schedule(te.create_prim_func([*inputs, out]))
    (i,) = schedule.get_loops("out")
    schedule.parallel(i)
    func = vector_math(schedule.mod["main"]).with_attr("global_symbol", "main")
    return tvm.compile(tvm.IRModule({"main": func}), target=TARGET)


def run(library, *arrays):
    out = tvm.runtime.tensor(np.empty_like(arrays[0]))
    library["main"](*(tvm.runtime.tensor(a) for a in arrays), out)
    return out.numpy()


@pytest.mark.parametrize("name", UNARY)
def test_unary_matches_float64(name):
    operator, reference, points = UNARY[name]
    library = build(operator)
    x = points.astype("float32")
    got = run(library, x).astype("float64")
    with np.errstate(all="ignore"):
        want = reference(x.astype("float64"))
    error = np.abs(got - want) / np.maximum(np.abs(want), 1e-37)
    assert error.max() < 5e-7, (x[error.argmax()], error.max())
    with np.errstate(all="ignore"):
        edges = reference(EDGES.astype("float64")).astype("float32")
    np.testing.assert_allclose(run(library, EDGES), edges, rtol=5e-7, atol=1e-42)


@pytest.mark.parametrize("operator", [tirx.erf, tirx.tanh, tirx.sigmoid], ids=["erf", "tanh", "sigmoid"])
def test_bounds_are_kept(operator):
    """1 + 2**-23 for an erf made the scale of quantized values larger."""
    found = run(build(operator), np.linspace(-20, 20, 400001).astype("float32"))
    assert found.max() == 1
    assert found.min() >= (-1 if operator is not tirx.sigmoid else 0)


@pytest.mark.parametrize(("operator", "reference"), [(tirx.sin, np.sin), (tirx.cos, np.cos)], ids=["sin", "cos"])
def test_sine_and_cosine(operator, reference):
    x = np.concatenate([np.linspace(-20, 20, 20001), np.linspace(-1e6, 1e6, 20001)]).astype("float32")
    got = run(build(operator), x)
    assert np.abs(got - reference(x.astype("float64"))).max() < 2e-7


def test_power():
    rng = np.random.default_rng(1)
    x = np.exp(rng.uniform(-20, 20, 20000)).astype("float32")
    y = rng.uniform(-4, 4, 20000).astype("float32")
    library = build(tirx.pow, arity=2)
    want = x.astype("float64") ** y.astype("float64")
    assert (np.abs(run(library, x, y) - want) / want).max() < 5e-7
    edge = np.array([0, 1, -1, 2, -2, -8, np.inf, -np.inf, np.nan], "float32")
    base, power = (a.ravel() for a in np.meshgrid(edge, np.array([0, 1, 2, 3, -1, -2, 0.5, -0.5, 1.5], "float32")))
    with np.errstate(all="ignore"):
        want = base.astype("float64") ** power
    np.testing.assert_allclose(run(library, base.copy(), power.copy()), want, rtol=5e-7)


def test_float16_goes_through_float32():
    x = np.linspace(-8, 8, 1001).astype("float16")
    got = run(build(tirx.exp, "float16"), x)
    np.testing.assert_array_equal(got, np.exp(x.astype("float32")).astype("float16"))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("missing", [tirx.isnan, lambda x: tirx.NE(x, x), lambda x: tirx.Not(tirx.EQ(x, x))])
def test_what_is_no_number_is_found(dtype, missing):
    """TVM 0.27 takes `x != x` for false."""
    data, out = (tirx.decl_buffer((16,), dtype, name) for name in ("x", "y"))
    code = Code()
    with code.loop(16, "lane", "vectorized") as lane:
        x = tirx.BufferLoad(data, [lane])
        code.add(tirx.BufferStore(out, tirx.Select(missing(x), tirx.const(7, dtype), x), [lane]))
    func = vector_math(tirx.PrimFunc([data, out], code.stmt())).with_attr("global_symbol", "main")
    library = tvm.compile(tvm.IRModule({"main": func}), target=TARGET)
    edges = [0, -0.0, np.inf, -np.inf, np.nan, -np.nan, 1, np.finfo(dtype).smallest_subnormal]
    given = np.array([*edges, *[np.nan] * 3, *[2] * 5], dtype)
    np.testing.assert_array_equal(run(library, given), np.where(np.isnan(given), given.dtype.type(7), given))


def test_no_call_is_left_but_float64_keeps_libm():
    def source(dtype):
        return build(tirx.exp, dtype).mod.inspect_source("ll")

    assert "llvm.exp" not in source("float32")
    assert "llvm.exp" in source("float64")


def test_what_is_rounded_gets_no_name() -> None:
    """Where a scalar is computed once and used twice, TVM repeats its value: a name in it would be bound twice."""
    x = tirx.Var("x", "float32")
    rounded = vector_call(tirx.nearbyint(x * tirx.const(2.0, "float32")))
    assert not isinstance(rounded, tirx.Let)
    inside = vector_call(tirx.nearbyint(vector_call(tirx.sigmoid(x))))
    assert isinstance(inside, tirx.Let)


def test_rounding_under_a_cast_stays_in_vectors():
    data, out = (tirx.decl_buffer((16,), "float32", name) for name in ("x", "y"))
    code = Code()
    with code.loop(16, "lane", "vectorized") as lane:
        steps = tirx.nearbyint(tirx.BufferLoad(data, [lane]) / 0.5) + 5.0
        byte = tirx.min(tirx.max(steps, tirx.const(0.0, "float32")), tirx.const(255.0, "float32")).astype("uint8")
        centred = (byte.astype("int32") - 5).astype("float32")
        code.add(tirx.BufferStore(out, tirx.sigmoid(centred) * centred, [lane]))
    func = vector_math(tirx.PrimFunc([data, out], code.stmt())).with_attr("global_symbol", "main")
    library = tvm.compile(tvm.IRModule({"main": func}), target=TARGET)
    assert "@llvm.nearbyint.v16f32" in library.mod.inspect_source("ll")
    x = np.linspace(-4, 4, 16, dtype="float32")
    steps = np.clip(np.rint(x / np.float32(0.5)) + 5, 0, 255) - 5
    np.testing.assert_allclose(run(library, x), steps / (1 + np.exp(-steps)), rtol=1e-6, atol=1e-6)
