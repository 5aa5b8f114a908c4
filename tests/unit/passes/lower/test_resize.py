"""Resizing against a definition in NumPy, for fixed and symbolic sizes and both layouts."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax, tirx

from dscc.passes.lower import legalize


def coordinate(i, length, target, mode):
    if mode == "asymmetric":
        return i * length / target
    if mode == "align_corners":
        return i * (length - 1) / max(target - 1, 1)
    return (i + 0.5) * length / target - 0.5


def linear(x, size, mode):
    """x: (n, h, w, c)."""
    for axis, target in zip((1, 2), size, strict=True):
        length = x.shape[axis]
        at = coordinate(np.arange(target), length, target, mode)
        below = np.floor(at).astype(int)
        t = (at - below).reshape([-1 if a == axis else 1 for a in range(4)])
        low, high = (np.take(x, np.clip(below + k, 0, length - 1), axis) for k in (0, 1))
        x = low * (1 - t) + high * t
    return x


def nearest(x, size):
    rows, columns = (np.arange(t) * n // t for t, n in zip(size, x.shape[1:3], strict=True))
    return x[:, rows][:, :, columns]


def build(shape, size, layout, **more):
    names: dict[str, tirx.Var] = {}
    dims = [names.setdefault(d, tirx.Var(d, "int64")) if isinstance(d, str) else d for d in shape]
    x = relax.Var("x", relax.TensorType(dims, "float32"))
    bb = relax.BlockBuilder()
    with bb.function("main", [x]):
        with bb.dataflow():
            out = bb.emit_output(relax.op.image.resize2d(x, size(names), layout=layout, **more))
        bb.emit_func_output(out)
    mod = relax.transform.LegalizeOps(legalize.table())(bb.finalize())
    vm = relax.VirtualMachine(tvm.compile(mod, tvm.target.Target("llvm")), tvm.cpu())
    return lambda array: vm["main"](tvm.runtime.tensor(np.ascontiguousarray(array))).numpy()


def image(n, h, w, c):
    return np.random.default_rng(0).standard_normal((n, h, w, c)).astype("float32")


@pytest.mark.parametrize("mode", ["half_pixel", "asymmetric", "align_corners"])
@pytest.mark.parametrize("size", [(12, 18), (3, 5), (7, 1)])
def test_linear(mode, size):
    run = build((2, 6, 9, 5), lambda names: size, "NHWC", method="linear", coordinate_transformation_mode=mode)
    x = image(2, 6, 9, 5)
    np.testing.assert_allclose(run(x), linear(x, size, mode), rtol=1e-4, atol=1e-5)


def test_nearest_of_symbolic_sizes():
    run = build(
        ("n", "h", "w", 5),
        lambda names: (names["h"] * 2, names["w"] * 3),
        "NHWC",
        method="nearest_neighbor",
        coordinate_transformation_mode="asymmetric",
        rounding_method="floor",
    )
    for h, w in [(1, 1), (3, 4)]:
        x = image(2, h, w, 5)
        np.testing.assert_array_equal(run(x), x.repeat(2, 1).repeat(3, 2))


def test_nearest_of_channels_first():
    run = build(
        (1, 5, 6, 9),
        lambda names: (4, 20),
        "NCHW",
        method="nearest_neighbor",
        coordinate_transformation_mode="asymmetric",
        rounding_method="floor",
    )
    x = image(1, 6, 9, 5)
    np.testing.assert_array_equal(run(x.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1), nearest(x, (4, 20)))
