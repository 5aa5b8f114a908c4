"""The last rule: numbers over odd and symbolic sizes, and that it takes what it does not know."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import te, tirx, topi

from dscc.schedule.decisions import Decisions
from dscc.schedule.machine import Machine
from dscc.schedule.math import vector_math
from dscc.schedule.rules.fallback import Fallback

MACHINE = Machine(512, 32, 32 * 1024, 1024 * 1024, True)
N = te.var("n", "int64")
M = te.var("m", "int64")


def placeholder(shape, dtype="float32", name="x"):
    return te.placeholder([tirx.const(d, "int64") if isinstance(d, int) else d for d in shape], dtype, name=name)


def build(*tensors):
    func = te.create_prim_func(tensors)
    scheduled = Fallback().apply(func, frozenset(), MACHINE, Decisions()).func
    module = tvm.IRModule({"main": vector_math(scheduled).with_attr("global_symbol", "main")})
    return tvm.compile(module, target=tvm.target.Target({"kind": "llvm", "mcpu": "x86-64-v3"}))


def run(library, shape, *arrays, dtype="float32"):
    out = tvm.runtime.tensor(np.full(shape, 7, dtype))
    library["main"](*(tvm.runtime.tensor(np.ascontiguousarray(a)) for a in arrays), out)
    return out.numpy()


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


SIZES = [1, 3, 15, 16, 17, 31, 64, 65, 1000]


@pytest.fixture(scope="module")
def chain():
    x, y = placeholder((N, M), name="x"), placeholder((N, M), name="y")
    return build(x, y, topi.nn.relu(topi.add(topi.multiply(x, y), x)))


@pytest.mark.parametrize("m", SIZES)
@pytest.mark.parametrize("n", [1, 7])
def test_elementwise_symbolic(chain, n, m):
    x, y = normal(n, m), normal(n, m, seed=1)
    np.testing.assert_allclose(run(chain, (n, m), x, y), np.maximum(x * y + x, 0), rtol=1e-5, atol=1e-6)


def test_elementwise_over_several_tasks(chain):
    x, y = normal(37, 1001), normal(37, 1001, seed=1)
    np.testing.assert_allclose(run(chain, x.shape, x, y), np.maximum(x * y + x, 0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("c", [1, 3, 8, 17, 32, 40])
def test_broadcast(c):
    x = placeholder((N, M, 5, c), name="x")
    scale = placeholder((N, 1, 1, c), name="scale")
    bias = placeholder((c,), name="bias")
    library = build(x, scale, bias, topi.add(topi.multiply(x, scale), bias))
    for n, m in [(1, 1), (2, 7)]:
        a, s, b = normal(n, m, 5, c), normal(n, 1, 1, c, seed=1), normal(c, seed=2)
        np.testing.assert_allclose(run(library, a.shape, a, s, b), a * s + b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_concatenation(axis):
    shapes = [[3, 5, 19], [3, 5, 19], [3, 5, 19]]
    for i, s in enumerate(shapes):
        s[axis] = [4, 1, 33][i]
    inputs = [placeholder(s, name=f"x{i}") for i, s in enumerate(shapes)]
    out = topi.concatenate(inputs, axis)
    arrays = [normal(*s, seed=i) for i, s in enumerate(shapes)]
    want = np.concatenate(arrays, axis)
    np.testing.assert_array_equal(run(build(*inputs, out), want.shape, *arrays), want)


def test_symbolic_concatenation():
    x, y = placeholder((2, N, 5), name="x"), placeholder((2, M, 5), name="y")
    library = build(x, y, topi.concatenate([x, y], 1))
    for n, m in [(1, 1), (3, 20), (40, 2)]:
        a, b = normal(2, n, 5), normal(2, m, 5, seed=1)
        np.testing.assert_array_equal(run(library, (2, n + m, 5), a, b), np.concatenate([a, b], 1))


def test_pad_is_cut_into_copies():
    x = placeholder((1, N, M, 7), name="x")
    library = build(x, topi.nn.pad(x, (0, 1, 2, 0), (0, 2, 1, 0), 0.5))
    for n, m in [(1, 1), (5, 9)]:
        a = normal(1, n, m, 7)
        want = np.pad(a, ((0, 0), (1, 2), (2, 1), (0, 0)), constant_values=0.5)
        np.testing.assert_array_equal(run(library, want.shape, a), want)


@pytest.mark.parametrize("step", [1, 2, -1])
def test_slice(step):
    x = placeholder((6, 40), name="x")
    begin, end = (3, 37) if step > 0 else (37, 3)
    library = build(x, topi.strided_slice(x, [2, begin], [6, end], [1, step], [0, 1]))
    a = normal(6, 40)
    want = a[2:, begin:end:step]
    np.testing.assert_array_equal(run(library, want.shape, a), want)


def test_gather_of_rows():
    x = placeholder((N, 40), name="x")
    rows = placeholder((M,), "int64", name="rows")
    a, r = normal(9, 40), np.array([3, 0, 8, 8], "int64")
    np.testing.assert_array_equal(run(build(x, rows, topi.take(x, rows, 0)), (4, 40), a, r), a[r])


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("operator", [topi.sum, topi.max, topi.prod])
def test_reductions(axis, operator):
    x = placeholder((N, M, 33), name="x")
    library = build(x, operator(x, axis))
    reference = {topi.sum: np.sum, topi.max: np.max, topi.prod: np.prod}[operator]
    for n, m in [(1, 1), (5, 70)]:
        a = normal(n, m, 33)
        want = reference(a, axis)
        np.testing.assert_allclose(run(library, want.shape, a), want, rtol=1e-4, atol=1e-4)


def test_several_reductions():
    x = placeholder((N, M), name="x")
    library = build(x, topi.nn.softmax(x, 1))
    a = normal(5, 19)
    e = np.exp(a - a.max(1, keepdims=True))
    np.testing.assert_allclose(run(library, a.shape, a), e / e.sum(1, keepdims=True), rtol=1e-5)


def test_convolution_with_padding():
    x, w = placeholder((1, N, N, 5), name="x"), placeholder((3, 3, 5, 20), name="w")
    library = build(x, w, topi.nn.relu(topi.nn.conv2d_nhwc(x, w, 1, 1, 1)))
    a, b = normal(1, 6, 6, 5), normal(3, 3, 5, 20, seed=1)
    padded = np.pad(a, ((0, 0), (1, 1), (1, 1), (0, 0)))
    want = sum(padded[:, i : i + 6, j : j + 6] @ b[i, j] for i in range(3) for j in range(3))
    np.testing.assert_allclose(run(library, want.shape, a, b), np.maximum(want, 0), rtol=1e-4, atol=1e-4)


def test_statements_that_are_no_formulas_stay():
    x = placeholder((N, 9), name="x")
    library = build(x, topi.add(topi.cumsum(topi.multiply(x, x), axis=1), x))
    a = normal(4, 9)
    np.testing.assert_allclose(run(library, a.shape, a), np.cumsum(a * a, 1) + a, rtol=1e-5)


def test_integers_and_booleans():
    x = placeholder((N,), "int64", name="x")
    library = build(x, topi.greater(x, tirx.const(3, "int64")))
    a = np.arange(37)
    np.testing.assert_array_equal(run(library, a.shape, a, dtype="bool"), a > 3)
