"""Which values of a function get a place in its arena, and how long each of them has it."""

from __future__ import annotations

import numpy as np
import onnx
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

import dscc
from dscc import memory


@I.ir_module
class Module:
    @T.prim_func(private=True)
    def kernel(x: T.handle, y: T.handle):
        T.evaluate(0)

    @R.function
    def main(x: R.Tensor(("n",), "float32"), w: R.Tensor((4,), "float32")):
        cls = Module
        n = T.int64()
        seen = R.builtin.alloc_tensor(R.shape([n]), R.dtype("float32"), 0)
        cls.kernel(x, seen)
        view = R.reshape(seen, R.shape([n, 1]))
        short = R.builtin.alloc_tensor(R.shape([n, 2]), R.dtype("float32"), 0)
        cls.kernel(w, short)
        cls.kernel(view, short)
        both = (view, w)
        returned = R.builtin.alloc_tensor(R.shape([n]), R.dtype("float32"), 0)
        cls.kernel(both[0], returned)
        kept = R.reshape(returned, R.shape([1, n]))
        return kept


def test_a_view_and_a_tuple_keep_what_they_are_of() -> None:
    lives = {var.name: (life.first, life.last) for var, life in memory._lives(Module["main"]).items()}
    assert set(lives) == {"seen", "short"}, "what is returned outlives the call"
    assert lives["seen"][0] < lives["short"][0] < lives["short"][1] < lives["seen"][1]


def test_sizes_that_depend_on_values_get_memory_of_their_own() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21]> g (float[n] x) => (float[m] y) {
    a = Abs(x) i = NonZero(a) s = Squeeze(i, axis) g = Gather(x, s)
    c = CumSum(g, zero) d = CumSum(c, zero) y = Exp(d) }"""
    text = text.replace("=> (float[m] y)", "=> (float[m] y) <int64 zero = {0}, int64[1] axis = {0}>")
    module = dscc.compile(onnx.parser.parse_model(text)).load()
    for values in ([1, 0, 2, 3], [0, 5, 0, 0, 1, 1], [1, 2]):
        x = np.array(values, np.float32) / 10
        expected = np.exp(np.cumsum(np.cumsum(x[x != 0])))
        np.testing.assert_allclose(module.run(None, {"x": x})[0], expected, rtol=1e-6)


def test_every_size_is_planned_anew() -> None:
    """A chain in which neighbours differ in size, and the first value is read again at the end."""
    text = """<ir_version: 10, opset_import: ["" : 21]> g
    (float[n, 8] x, float[8, 24] w, float[24, 8] v) => (float[n, 8] y) {
    a = MatMul(x, w) b = MatMul(a, v) c = MatMul(b, w) d = MatMul(c, v)
    e = MatMul(d, w) f = Add(e, a) y = MatMul(f, v) }"""
    module = dscc.compile(onnx.parser.parse_model(text)).load()
    rng = np.random.default_rng(0)
    w, v = (rng.standard_normal(shape).astype(np.float32) / 5 for shape in ((8, 24), (24, 8)))
    for rows in (1, 5, 200, 3, 5, 1000, *range(20, 40), 1):
        x = rng.standard_normal((rows, 8)).astype(np.float32)
        a = x @ w
        expected = (a @ v @ w @ v @ w + a) @ v
        np.testing.assert_allclose(module.run(None, {"x": x, "w": w, "v": v})[0], expected, rtol=1e-4, atol=1e-5)


def test_a_branch_keeps_what_it_reads() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21]> g (float[n] x, bool c) => (float[n] y) {
    a = Exp(x) s = CumSum(a, zero) r = CumSum(x, zero) m = Mul(r, r) q = CumSum(m, zero)
    t = If(c) <then_branch = f () => (float[n] u) { u = Identity(s) },
               else_branch = h () => (float[n] u) { u = CumSum(q, zero) }>
    y = Add(t, q) }""".replace("=> (float[n] y)", "=> (float[n] y) <int64 zero = {0}>")
    module = dscc.compile(onnx.parser.parse_model(text)).load()
    for n in (3, 50, 7):
        x = np.linspace(-1, 1, n, dtype=np.float32)
        q = np.cumsum(np.cumsum(x) ** 2)
        for condition, t in ((True, np.cumsum(np.exp(x))), (False, np.cumsum(q))):
            found = module.run(None, {"x": x, "c": np.array(condition)})[0]
            np.testing.assert_allclose(found, t + q, rtol=1e-5, atol=1e-5)
