"""Functions that LLVM or TVM lack in some type: accuracy in float64 and float32, edges, vectors and scalars."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tvm
from tvm import te, tirx

from dscc.schedule.math import vector_math

TARGET = tvm.target.Target("llvm")
WIDE = np.concatenate([np.linspace(-20, 20, 4001), np.logspace(-12, 12, 2001), -np.logspace(-12, 12, 2001)])
UNIT = np.concatenate([np.linspace(-1, 1, 4001), np.logspace(-12, 0, 2001)])

FUNCTIONS = {
    "asin": (tirx.asin, np.arcsin, UNIT),
    "acos": (tirx.acos, np.arccos, UNIT),
    "atan": (tirx.atan, np.arctan, WIDE),
    "tan": (tirx.tan, np.tan, np.linspace(-1.5, 1.5, 4001)),
    "sinh": (tirx.sinh, np.sinh, np.linspace(-80, 80, 4001)),
    "cosh": (tirx.cosh, np.cosh, np.linspace(-80, 80, 4001)),
    "asinh": (tirx.asinh, np.arcsinh, WIDE),
    "tanh": (tirx.tanh, np.tanh, WIDE),
    "acosh": (tirx.acosh, np.arccosh, 1 + np.abs(WIDE)),
    "atanh": (tirx.atanh, np.arctanh, UNIT * 0.999),
    "log1p": (tirx.log1p, np.log1p, np.abs(WIDE)),
    "erf": (tirx.erf, np.vectorize(math.erf), np.linspace(-7, 7, 4001)),
}
EDGES = np.array([0.0, 1.0, -1.0, 2.0, -3.0, 1e30, -1e30, np.inf, -np.inf, np.nan])


def run(operator, x, lanes):
    n = len(x)
    data = te.placeholder((n,), x.dtype.name, name="x")
    out = te.compute((n,), lambda i: operator(data[i]), name="out")
    schedule = tvm.s_tir.Schedule(te.create_prim_func([data, out]))
    (i,) = schedule.get_loops("out")
    if lanes > 1:
        schedule.vectorize(schedule.split(i, [None, lanes])[1])
    func = vector_math(schedule.mod["main"]).with_attr("global_symbol", "main")
    library = tvm.compile(tvm.IRModule({"main": func}), target=TARGET)
    result = tvm.runtime.tensor(np.empty_like(x))
    library["main"](tvm.runtime.tensor(x), result)
    return result.numpy()


@pytest.mark.parametrize("lanes", [1, 4])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_float64(name, lanes):
    operator, reference, points = FUNCTIONS[name]
    x = np.concatenate([points, EDGES])
    x = x[: len(x) // 4 * 4]
    got = run(operator, x, lanes)
    with np.errstate(all="ignore"):
        want = reference(x)
    np.testing.assert_allclose(got, want, rtol=1e-13)


@pytest.mark.parametrize("name", ["asin", "acos", "atan", "tan", "asinh", "acosh", "atanh"])
def test_float32_in_vectors(name):
    operator, reference, points = FUNCTIONS[name]
    x = points[: len(points) // 4 * 4].astype(np.float32)
    np.testing.assert_allclose(run(operator, x, 4), reference(x.astype(np.float64)), rtol=1e-6, atol=1e-7)
