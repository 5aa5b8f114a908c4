"""Products of matrices of bytes against NumPy, exactly, over odd sizes, signs and zero points."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import te, tirx

from dscc import kernel_pipeline, targets
from dscc.schedule.decisions import Decisions
from dscc.schedule.rules.matmul_bytes import MatmulBytes
from dscc.targets.base import Target

RULE = MatmulBytes()
HERE = targets.resolve(None)
if HERE.machine.dot is None:
    pytest.skip("this processor has no instruction for products of bytes", allow_module_level=True)


def product(rows, depth, columns, left, right, left_zero, right_zero):
    """An unscheduled sum of (a - a_zero) * (b - b_zero), with a * 2 + 1 behind it."""
    m = tirx.Var("m", "int64") if rows is None else rows
    a = te.placeholder((m, depth), left, name="a")
    b = te.placeholder((depth, columns), right, name="b")
    za = te.placeholder((), left, name="za")
    zb = te.placeholder((columns,), right, name="zb")
    k = te.reduce_axis((0, depth), name="k")

    def centred(value, zero):
        wide = tirx.Cast("int32", value)
        return wide if zero is None else wide - tirx.Cast("int32", zero)

    total = te.compute(
        (m, columns),
        lambda i, j: te.sum(
            centred(a(i, k), za() if left_zero else None) * centred(b(k, j), zb(j) if right_zero else None), axis=k
        ),
        name="total",
    )
    out = te.compute((m, columns), lambda i, j: total(i, j) * 2 + j.astype("int32"), name="out")
    return te.create_prim_func([a, b, za, zb, out]).with_attr({"tirx.noalias": True, "global_symbol": "kernel"})


def numbers(generator, dtype, *shape):
    limits = np.iinfo(dtype)
    return generator.integers(limits.min, limits.max + 1, shape).astype(dtype)


def check(target: Target, rows, depth, columns, left, right, zeros, sizes):
    func = product(rows, depth, columns, left, right, *zeros)
    plan = RULE.apply(func, frozenset({1}), target.machine, Decisions())
    assert plan is not None
    scheduled = plan.func.with_attr("tirx.is_scheduled", True).with_attr("global_symbol", "kernel")
    library = tirx.build(tvm.IRModule({"kernel": scheduled}), target.tvm_target, kernel_pipeline.NAME)
    generator = np.random.default_rng(depth * columns)
    b, za, zb = (numbers(generator, *of) for of in ((right, depth, columns), (left,), (right, columns)))
    packed = plan.packings[1].pack(b)
    for m in sizes:
        a = numbers(generator, left, m, depth)
        out = tvm.runtime.tensor(np.full((m, columns), 7, "int32"))
        library["kernel"](*(tvm.runtime.tensor(np.array(x)) for x in (a, packed, za, zb)), out)
        shift = [value.astype(int) if used else 0 for value, used in zip((za, zb), zeros, strict=True)]
        want = (a.astype(int) - shift[0]) @ (b.astype(int) - shift[1]) * 2 + np.arange(columns)
        np.testing.assert_array_equal(out.numpy(), want)


@pytest.mark.parametrize("left", ["int8", "uint8"])
@pytest.mark.parametrize("right", ["int8", "uint8"])
@pytest.mark.parametrize("zeros", [(False, False), (True, False), (False, True), (True, True)])
def test_signs_and_zero_points(left, right, zeros):
    check(HERE, None, 21, 37, left, right, zeros, [1, 2, 7, 20])


@pytest.mark.parametrize("depth,columns", [(1, 1), (3, 5), (4, 16), (5, 15), (64, 17), (96, 100), (130, 250)])
def test_symbolic_rows(depth, columns):
    check(HERE, None, depth, columns, "uint8", "int8", (True, False), [1, 3, 5, 8, 33])


@pytest.mark.parametrize("rows", [1, 2, 5, 64, 131])
def test_known_rows(rows):
    check(HERE, rows, 40, 72, "uint8", "uint8", (True, True), [rows])


def test_weights_larger_than_the_cache():
    check(HERE, None, 1200, 1100, "uint8", "int8", (True, True), [1, 130])


def test_computed_weights_are_left_to_another_rule():
    func = product(None, 8, 8, "int8", "int8", False, False)
    assert RULE.apply(func, frozenset(), HERE.machine, Decisions()) is None


def test_without_an_instruction_there_is_no_rule():
    func = product(None, 8, 8, "int8", "int8", False, False)
    assert RULE.apply(func, frozenset({1}), targets.resolve("x86:x86-64-v3").machine, Decisions()) is None
