"""Arithmetic that a kernel does, as a formula over its sizes and at typical ones."""

from __future__ import annotations

import json

import tvm
from tvm import te, tirx

from dscc.runtime.profile import flops
from dscc.schedule.cost import arithmetic, operations_at


def scaled(*shape: tvm.ir.Expr | int) -> tirx.PrimFunc:
    """y = 2 x + 1"""
    x = te.placeholder(shape, name="x")
    return te.create_prim_func([x, te.compute(shape, lambda *i: x(*i) * 2.0 + 1.0, name="y")])


def test_sizes_that_follow_from_others_are_known() -> None:
    """An eighth of an open height: no argument has the height itself."""
    height, width = tirx.Var("height", "int64"), tirx.Var("width", "int64")
    func = scaled(height // 8 + 1, width, 3)
    entry = json.loads(arithmetic(func))
    assert flops(entry, [(5, 7, 3), (5, 7, 3)]) == 2 * 5 * 7 * 3
    assert operations_at(func, 80) == 2 * 11 * 80 * 3
    assert operations_at(scaled(4, 6), 80) == 2 * 4 * 6
