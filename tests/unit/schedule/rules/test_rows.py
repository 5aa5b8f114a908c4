"""Row-wise kernels against NumPy, at sizes around every vector and tile."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax, te, tirx
from tvm.relax import op

from dscc.schedule.decisions import Decisions
from dscc.schedule.machine import Machine
from dscc.schedule.rules.rows import Rowwise

RULE = Rowwise()
RNG = np.random.default_rng(7)
SIZES = [1, 2, 3, 15, 16, 17, 31, 63, 64, 65, 127, 197, 300]


def normal(*shape):
    return RNG.standard_normal(shape).astype("float32")


def close(got, want, tolerance=2e-6):
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= tolerance * max(1.0, np.abs(want).max())


def softmax(x, axis):
    e = np.exp(x.astype("float64") - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def test_softmax_with_symbolic_rows(compile_any):
    run = compile_any(RULE, {"x": ("n", "s")}, lambda bb, x: op.nn.softmax(x, axis=-1))
    for size in SIZES:
        for rows in (1, 7):
            x = 10 * normal(rows, size)
            close(run(x), softmax(x, -1))


@pytest.mark.parametrize("axis", [0, 1])
def test_sum_of_choices_times_what_they_choose_from(compile_one, axis):
    """A PRelu times its input, whose range TVM cannot tell."""

    def body(bb, x, slope):
        chosen = bb.emit(op.where(op.less(x, relax.const(0.0)), bb.emit(op.multiply(x, slope)), x))
        return op.sum(bb.emit(op.multiply(chosen, x)), axis=axis)

    x, slope = normal(33, 8), normal(8)
    got = compile_one(RULE, {"x": (33, 8), "slope": (8,)}, body)(x, slope)
    close(got, (np.where(x < 0, x * slope, x) * x).sum(axis))


@pytest.mark.parametrize("size", [1, 5, 128, 197])
def test_softmax_of_known_size(compile_one, size):
    run = compile_one(RULE, {"x": ("n", 3, size)}, lambda bb, x: op.nn.softmax(x, axis=-1))
    x = 10 * normal(2, 3, size)
    close(run(x), softmax(x, -1))


@pytest.mark.parametrize("channels", ["c", 24])
def test_softmax_over_an_inner_axis(compile_any, channels):
    run = compile_any(RULE, {"x": ("n", "s", channels)}, lambda bb, x: op.nn.softmax(x, axis=1))
    for size in (1, 2, 37):
        x = 10 * normal(2, size, 21 if channels == "c" else channels)
        close(run(x), softmax(x, 1))


def test_softmax_with_scale_and_mask_before_it(compile_one):
    shapes = {"x": ("n", 4, "s", "s"), "mask": ("n", 1, 1, "s")}

    def body(bb, x, mask):
        scaled = bb.emit(op.multiply(x, relax.const(0.125, "float32")))
        return op.nn.softmax(bb.emit(op.add(scaled, mask)), axis=-1)

    run = compile_one(RULE, shapes, body)
    for size in (1, 19, 33):
        x, mask = 5 * normal(2, 4, size, size), np.where(RNG.random((2, 1, 1, size)) < 0.3, -1e9, 0).astype("float32")
        close(run(x, mask), softmax(x * 0.125 + mask, -1))


@pytest.mark.parametrize("size", [2, 3])
def test_very_short_rows_go_across_the_lanes(compile_any, size):
    run = compile_any(RULE, {"x": ("n", size)}, lambda bb, x: op.nn.softmax(x, axis=-1))
    for rows in (1, 15, 16, 77, 128, 300):
        x = 10 * normal(rows, size)
        close(run(x), softmax(x, -1))
    run = compile_any(RULE, {"x": ("a", "b", size)}, lambda bb, x: op.sum(x, axis=2))
    for rows in (1, 77, 300):
        x = normal(2, rows, size)
        close(run(x), x.astype("float64").sum(2))


def test_log_softmax(compile_one):
    run = compile_one(RULE, {"x": ("n", "s")}, lambda bb, x: op.nn.log_softmax(x, axis=-1))
    for size in SIZES:
        x = 10 * normal(3, size)
        close(run(x), np.log(softmax(x, -1)))


def layer_norm(x, g, b, axes):
    wide = x.astype("float64")
    return (wide - wide.mean(axes, keepdims=True)) / np.sqrt(wide.var(axes, keepdims=True) + 1e-5) * g + b


@pytest.mark.parametrize("hidden", [3, 65, 384])
def test_layer_norm(compile_any, hidden):
    shapes = {"x": ("n", "s", hidden), "g": (hidden,), "b": (hidden,)}
    run = compile_any(RULE, shapes, lambda bb, x, g, b: op.nn.layer_norm(x, g, b, axes=[-1]))
    x, g, b = normal(2, 5, hidden) + 3, normal(hidden), normal(hidden)
    close(run(x, g, b), layer_norm(x, g, b, (-1,)), 1e-5)


def test_layer_norm_of_two_axes_with_what_follows(compile_one):
    shapes = {"x": ("n", 6, 11), "g": (6, 11), "b": (6, 11), "y": ("n", 6, 11)}

    def body(bb, x, g, b, y):
        norm = bb.emit(op.nn.layer_norm(x, g, b, axes=[-2, -1]))
        return op.nn.silu(bb.emit(op.add(norm, y)))

    run = compile_one(RULE, shapes, body)
    x, g, b, y = normal(3, 6, 11), normal(6, 11), normal(6, 11), normal(3, 6, 11)
    z = layer_norm(x, g, b, (-2, -1)) + y
    close(run(x, g, b, y), z / (1 + np.exp(-z)), 1e-5)


def test_rms_norm(compile_one):
    shapes = {"x": ("n", "s", 96), "g": (96,)}
    run = compile_one(RULE, shapes, lambda bb, x, g: op.nn.rms_norm(x, g, axes=[-1], epsilon=1e-6))
    x, g = normal(2, 3, 96), normal(96)
    wide = x.astype("float64")
    close(run(x, g), wide / np.sqrt((wide**2).mean(-1, keepdims=True) + 1e-6) * g)


@pytest.mark.parametrize("channels", [1, 24, 256])
def test_mean_over_the_image(compile_any, channels):
    shapes = {"x": ("n", "h", "w", channels)}
    run = compile_any(RULE, shapes, lambda bb, x: op.nn.relu(bb.emit(op.mean(x, axis=[1, 2], keepdims=True))))
    for h, w in ((1, 1), (5, 3), (14, 14)):
        x = normal(2, h, w, channels) + 0.5
        close(run(x), np.maximum(x.astype("float64").mean((1, 2), keepdims=True), 0))


@pytest.mark.parametrize("axis", [1, 2, [0, 2], None])
@pytest.mark.parametrize("name", ["sum", "max", "min", "mean", "variance"])
def test_reductions(name, axis, compile_one):
    run = compile_one(RULE, {"x": ("a", "b", "c")}, lambda bb, x: getattr(op, name)(x, axis=axis))
    reference = {"variance": np.var}.get(name) or getattr(np, name)
    for shape in ((3, 5, 35), (1, 1, 1), (2, 17, 16)):
        x = normal(*shape)
        want = np.asarray(reference(x.astype("float64"), axis=tuple(axis) if isinstance(axis, list) else axis))
        # Each factor of a product adds a rounding of half a unit; those of a sum are small beside its terms.
        close(run(x), want, 2e-6 if name != "prod" else max(2e-6, x.size / want.size * 2**-24))


@pytest.mark.parametrize("name", ["argmax", "argmin"])
@pytest.mark.parametrize("axis", [1, 2])
def test_first_index_of_the_extreme(name, axis, compile_one):
    run = compile_one(RULE, {"x": ("a", "b", "c")}, lambda bb, x: getattr(op, name)(x, axis=axis))
    for shape in ((3, 5, 35), (1, 1, 1), (2, 17, 16)):
        x = RNG.integers(-4, 4, shape).astype("float32")
        np.testing.assert_array_equal(run(x), getattr(np, name)(x, axis=axis))


@pytest.mark.parametrize("name", ["argmax", "argmin"])
def test_first_index_where_there_are_no_numbers(name, compile_one):
    """As in onnxruntime a NaN is no extreme, but for the first of a row; infinities are extremes like others."""
    run = compile_one(RULE, {"x": ("a", "b")}, lambda bb, x: getattr(op, name)(x, axis=1))
    nan, inf = np.nan, np.inf
    sign = np.float32(1 if name == "argmax" else -1)
    rows = [[5, nan, 1, 0], [1, nan, 5, nan], [nan, 1, 2, 0], [nan] * 4, [-inf] * 4, [inf] * 4, [-inf, nan, inf, 0]]
    np.testing.assert_array_equal(run(sign * np.float32(rows)), [0, 2, 0, 0, 0, 0, 2])


def normalized(x, g, b, axes, channel):
    wide = x.astype("float64")
    shape = [-1 if i == channel else 1 for i in range(x.ndim)]
    norm = (wide - wide.mean(axes, keepdims=True)) / np.sqrt(wide.var(axes, keepdims=True) + 1e-5)
    return norm * g.reshape(shape) + b.reshape(shape)


@pytest.mark.parametrize(
    ("shape", "channel", "axes"),
    [(("n", 6, "h", "w"), 1, [2, 3]), (("n", "h", "w", 6), 3, [1, 2]), (("n", "h", 6), 2, [1])],
)
def test_instance_norm(compile_constants, shape, channel, axes):
    shapes = {"x": shape, "g": (6,), "b": (6,)}
    run = compile_constants(RULE, shapes, lambda bb, x, g, b: op.nn.instance_norm(x, g, b, channel, axes))
    x = normal(*(6 if d == 6 else {"n": 2, "h": 9, "w": 7}[d] for d in shape)) + 10
    g, b = normal(6), normal(6)
    close(run(x, g, b), normalized(x, g, b, tuple(axes), channel), 1e-5)


@pytest.mark.parametrize("size", [1, 2, 17])
@pytest.mark.parametrize(
    ("shape", "channel", "axes"),
    [
        (("n", "c", "h", 7), 1, [2, 3]),
        (("n", "h", 7, "c"), 3, [1, 2]),
        (("n", 1, "w", "c"), 3, [1, 2]),
        (("n", "h", "c"), 2, [1]),
        (("n", "h", 7, "c"), 3, [1]),
    ],
)
def test_group_norm(compile_constants, shape, channel, axes, size):
    def body(bb, x, g, b):
        return op.nn.group_norm(x, g, b, num_groups=3, channel_axis=channel, axes=axes)

    channels = 3 * size
    shape = tuple(channels if d == "c" else d for d in shape)
    run = compile_constants(RULE, {"x": shape, "g": (channels,), "b": (channels,)}, body)
    x = normal(*({"n": 2, "h": 9, "w": 33}.get(d, d) for d in shape)) + 10
    g, b = normal(channels), normal(channels)
    split = [n for i, d in enumerate(x.shape) for n in ((3, size) if i == channel else (d,))]
    split = x.reshape(split).astype("float64")
    along = tuple(a + (a > channel) for a in axes) + (channel + 1,)
    norm = (split - split.mean(along, keepdims=True)) / np.sqrt(split.var(along, keepdims=True) + 1e-5)
    per_channel = [-1 if i == channel else 1 for i in range(x.ndim)]
    close(run(x, g, b), norm.reshape(x.shape) * g.reshape(per_channel) + b.reshape(per_channel), 1e-5)


def i64(*extents):
    return [tirx.IntImm("int64", e) for e in extents]


def elementwise(a, b):
    return te.create_prim_func([a, te.compute(a.shape, lambda i, j: tirx.exp(a[i, j]), name="e")])


def matrix_product_then_sum(a, b):
    k = te.reduce_axis((0, a.shape[1]), name="k")
    product = te.compute(a.shape, lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="product")
    r = te.reduce_axis((0, a.shape[1]), name="r")
    return te.create_prim_func([a, b, te.compute(a.shape[:1], lambda i: te.sum(product[i, r], axis=r), name="rows")])


def guarded(a, b):
    k = te.reduce_axis((0, a.shape[1]), name="k")
    safe = te.compute(a.shape, lambda i, j: tirx.if_then_else(j > 0, a[i, j - 1], 0.0), name="safe")
    return te.create_prim_func([a, te.compute(a.shape[:1], lambda i: te.sum(safe[i, k], axis=k), name="sum")])


def product_of_floats(a, b):
    """In any other order the product of some may be infinite."""
    k = te.reduce_axis((0, a.shape[1]), name="k")
    times = te.comm_reducer(lambda x, y: x * y, lambda t: tirx.const(1, t), name="prod")
    return te.create_prim_func([a, te.compute(a.shape[:1], lambda i: times(a[i, k], axis=k), name="product")])


@pytest.mark.parametrize("make", [elementwise, matrix_product_then_sum, guarded, product_of_floats])
def test_what_has_no_rows_is_refused(make):
    func = make(te.placeholder(i64(8, 8), name="a"), te.placeholder(i64(8, 8), name="b"))
    assert RULE.apply(func, frozenset(), Machine(), Decisions()) is None
