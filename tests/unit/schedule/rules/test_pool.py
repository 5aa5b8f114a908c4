"""Maximum and average pools: numbers over odd sizes, padding, ceil_mode, dilation, symbolic sizes."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax

from dscc.schedule.rules.pool import Pool


def reference(x, kernel, stride, padding, dilation=1, *, kind, include=False, ceil=False):
    """x: (n, h, w, c); padding: (top, left, bottom, right)."""
    top, left, bottom, right = padding
    n, h, w, c = x.shape
    reach = [(k - 1) * dilation + 1 for k in kernel]
    spans = h + top + bottom - reach[0], w + left + right - reach[1]
    high, wide = (-(-span // stride) + 1 if ceil else span // stride + 1 for span in spans)
    out = np.empty((n, high, wide, c))
    for y in range(high):
        for z in range(wide):
            rows = [y * stride + i * dilation - top for i in range(kernel[0])]
            columns = [z * stride + j * dilation - left for j in range(kernel[1])]
            inside = [x[:, r, s] for r in rows for s in columns if 0 <= r < h and 0 <= s < w]
            if kind == "max":
                out[:, y, z] = np.max(inside, axis=0)
            else:
                padded = [1 for r in rows for s in columns if r < h + bottom and s < w + right]
                out[:, y, z] = np.sum(inside, axis=0) / (len(padded) if include else len(inside))
    return out


CASES = [
    ((1, 7, 9, 16), (3, 3), 2, (1, 1, 1, 1), {}),
    ((2, 8, 13, 5), (2, 2), 2, (0, 0, 0, 0), {}),
    ((1, 13, 13, 24), (5, 5), 1, (2, 2, 2, 2), {}),
    ((1, 6, 33, 16), (3, 2), 1, (1, 0, 1, 1), {}),
    ((1, 9, 10, 17), (3, 3), 2, (0, 0, 1, 1), {}),
    ((1, 8, 8, 8), (3, 3), 2, (0, 0, 0, 0), {"ceil": True}),
    ((1, 8, 8, 16), (8, 8), 1, (0, 0, 0, 0), {}),
]


@pytest.mark.parametrize("kind", ["max", "avg"])
@pytest.mark.parametrize(("shape", "kernel", "stride", "padding", "more"), CASES)
def test_fixed_sizes(compile_one, kind, shape, kernel, stride, padding, more):
    operator = {"max": relax.op.nn.max_pool2d, "avg": relax.op.nn.avg_pool2d}[kind]
    run = compile_one(
        Pool(),
        {"x": shape},
        lambda bb, x: operator(x, kernel, stride, padding, ceil_mode=more.get("ceil", False), layout="NHWC"),
    )
    x = np.random.default_rng(0).standard_normal(shape).astype("float32")
    want = reference(x, kernel, stride, padding, kind=kind, **more)
    np.testing.assert_allclose(run(x), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["max", "avg"])
def test_symbolic_sizes(compile_one, kind):
    operator = {"max": relax.op.nn.max_pool2d, "avg": relax.op.nn.avg_pool2d}[kind]
    run = compile_one(
        Pool(), {"x": ("n", "h", "w", 19)}, lambda bb, x: operator(x, (3, 3), 2, (1, 1, 1, 1), layout="NHWC")
    )
    for shape in [(1, 1, 1, 19), (2, 3, 5, 19), (1, 8, 8, 19), (1, 9, 40, 19)]:
        x = np.random.default_rng(0).standard_normal(shape).astype("float32")
        want = reference(x, (3, 3), 2, (1, 1, 1, 1), kind=kind)
        np.testing.assert_allclose(run(x), want, rtol=1e-5, atol=1e-6)


def test_dilation_of_a_maximum_and_an_epilogue(compile_one):
    def body(bb, x):
        return relax.op.nn.relu(bb.emit(relax.op.nn.max_pool2d(x, (3, 3), 1, (2, 2, 2, 2), 2, layout="NHWC")))

    x = np.random.default_rng(0).standard_normal((1, 9, 11, 16)).astype("float32")
    want = np.maximum(reference(x, (3, 3), 1, (2, 2, 2, 2), 2, kind="max"), 0)
    np.testing.assert_allclose(compile_one(Pool(), {"x": x.shape}, body)(x), want)


def test_padding_that_counts(compile_one):
    run = compile_one(
        Pool(),
        {"x": (1, 8, 8, 16)},
        lambda bb, x: relax.op.nn.avg_pool2d(x, (3, 3), 2, (1, 1, 1, 1), count_include_pad=True, layout="NHWC"),
    )
    x = np.random.default_rng(0).standard_normal((1, 8, 8, 16)).astype("float32")
    want = reference(x, (3, 3), 2, (1, 1, 1, 1), kind="avg", include=True)
    np.testing.assert_allclose(run(x), want, rtol=1e-5, atol=1e-6)
