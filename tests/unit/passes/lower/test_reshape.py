"""Reshapes: numbers, that axes are grouped as far as can be proved, and that one between other operators is a view."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax, tirx

from dscc.passes.lower import legalize
from dscc.passes.lower.legalize.reshape import runs

H, W, N = (tirx.Var(name, "int64") for name in "hwn")


def extents(*shape):
    return [tirx.const(d, "int64") if isinstance(d, int) else d for d in shape]


@pytest.mark.parametrize(
    ("old", "new", "want"),
    [
        ((N, H * W, 120), (N, H, W, 120), [([0], [0]), ([1], [1, 2]), ([2], [3])]),
        ((N, 12, 64), (N, 768), [([0], [0]), ([1, 2], [1])]),
        ((6, 4), (3, 8), [([0, 1], [0, 1])]),
        ((24,), (2, 3, 4, 1), [([0], [0, 1, 2]), ([], [3])]),
        ((1,), (), [([0], [])]),
    ],
)
def test_groups(old, new, want):
    assert runs(extents(*old), extents(*new)) == want


def lowered(shape, target):
    x = relax.Var("x", relax.TensorType(extents(*shape), "float32"))
    sizes = relax.Var("sizes", relax.ShapeType([N, H, W]))
    bb = relax.BlockBuilder()
    with bb.function("main", [x, sizes]):
        with bb.dataflow():
            first = bb.emit(relax.op.cumsum(x, 0))
            out = bb.emit_output(relax.op.cumsum(bb.emit(relax.op.reshape(first, extents(*target))), 0))
        bb.emit_func_output(out)
    return relax.transform.LegalizeOps(legalize.table())(bb.finalize())


@pytest.mark.parametrize(
    ("shape", "target", "array", "want"),
    [
        ((2, 3, 4), (4, 6), (2, 3, 4), (4, 6)),
        ((N, H, W), (N * H, W), (2, 3, 4), (6, 4)),
        ((N, H * W), (N, H, W), (2, 12), (2, 3, 4)),
        ((N, H, W), (N * H * W, 1), (2, 3, 4), (24, 1)),
    ],
)
def test_numbers(shape, target, array, want):
    mod = lowered(shape, target)
    vm = relax.VirtualMachine(tvm.compile(mod, tvm.target.Target("llvm")), tvm.cpu())
    x = np.arange(24, dtype="float32").reshape(array)
    got = vm["main"](tvm.runtime.tensor(x), tvm.runtime.ShapeTuple([2, 3, 4])).numpy()
    np.testing.assert_array_equal(got, x.cumsum(0).reshape(want).cumsum(0))


def test_is_a_view_where_sizes_are_formulas():
    high, wide = (H - 1) // 2 + 1, (W - 1) // 2 + 1
    mod = relax.transform.RewriteDataflowReshape()(lowered((N, high * wide, 24), (N, high, wide, 24)))
    calls = [b.value.op.name for b in mod["main"].body.blocks[0].bindings if isinstance(b.value, relax.Call)]
    assert "relax.reshape" in calls
