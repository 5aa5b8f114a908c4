"""Functions of functions of functions in turns, by the statements that come out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import tvm_ffi
from tvm import tirx
from tvm.ir import Expr

from dscc.schedule.domain import is_if_then_else
from dscc.schedule.math import vector_math
from dscc.schedule.turns import in_turns


def kernel(value: Callable[[Expr, Expr], Expr], kind: tirx.ForKind) -> tirx.PrimFunc:
    """y[i] = value(x, i) over 16 elements."""
    x, y = (tirx.decl_buffer((16,), "float32", name) for name in "xy")
    i = tirx.Var("i", "int64")
    store = tirx.BufferStore(y, value(x, i), [i])
    return tirx.PrimFunc([x, y], tirx.For(i, tirx.const(0, "int64"), tirx.const(16, "int64"), kind, store))


def memories(func: tirx.PrimFunc) -> int:
    found: list[tirx.AllocBuffer] = []
    tvm_ffi.structural_walk(
        in_turns(func, lambda call: 1 if is_if_then_else(call) else 100).body, (tirx.AllocBuffer, found.append)
    )
    return len(found)


def read(x: Expr, i: Expr) -> Expr:
    return tirx.BufferLoad(x, [i])


KINDS = (tirx.ForKind.SERIAL, tirx.ForKind.VECTORIZED)


@pytest.mark.parametrize("kind", KINDS)
def test_the_third_function_is_of_what_is_in_memory(kind: tirx.ForKind) -> None:
    assert memories(kernel(lambda x, i: tirx.exp(tirx.sin(read(x, i))), kind)) == 0
    assert memories(kernel(lambda x, i: tirx.exp(read(x, i)) + tirx.sin(read(x, i)) * tirx.cos(read(x, i)), kind)) == 0
    assert memories(kernel(lambda x, i: tirx.exp(tirx.sin(tirx.cos(read(x, i)))), kind)) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_under_a_condition_stays_there(kind: tirx.ForKind) -> None:
    """x[i - 1] does not exist for the first element."""

    def deep(x: Expr, i: Expr) -> Expr:
        return tirx.exp(tirx.sin(tirx.cos(read(x, i - 1))))

    zero = tirx.const(0.0, "float32")
    assert memories(kernel(lambda x, i: tirx.if_then_else(i > 0, deep(x, i), zero), kind)) == 0
    assert memories(kernel(lambda x, i: tirx.Select(i > 0, deep(x, i), zero), kind)) == 0
    shallow = kernel(lambda x, i: tirx.exp(tirx.sin(tirx.cos(tirx.Select(i > 0, read(x, i - 1), zero)))), kind)
    assert memories(shallow) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_function_reads_from_a_plain_place(kind: tirx.ForKind) -> None:
    """Alone already: the index of what it reads would be simplified in thousands of places."""
    large = kernel(lambda x, i: tirx.pow(read(x, i // 3), tirx.const(2.5, "float32")), kind)
    found: list[tirx.AllocBuffer] = []
    body = in_turns(large, lambda call: 40_000 if call.op.name == "tirx.pow" else 1).body
    tvm_ffi.structural_walk(body, (tirx.AllocBuffer, found.append))
    assert len(found) == 1
    again = in_turns(large.with_body(body), lambda call: 40_000 if call.op.name == "tirx.pow" else 1)
    assert tvm_ffi.structural_equal(again.body, body), "what is in memory is not copied once more"


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_function_in_an_arm_reads_under_its_condition(kind: tirx.ForKind) -> None:
    zero, power = tirx.const(0.0, "float32"), tirx.const(2.5, "float32")
    chosen = kernel(lambda x, i: tirx.Select(i > 0, tirx.pow(read(x, i - 1), power), zero), kind)
    text = in_turns(chosen, lambda call: 40_000 if call.op.name == "tirx.pow" else 1).script()
    reads = [line for line in text.splitlines() if "x[" in line]
    assert len(reads) == 1 and "inner[" in reads[0] and "T.Select(" in reads[0] and "T.pow" not in reads[0], text


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_for_a_function_of_which_there_is_another_becomes_memory(kind: tirx.ForKind) -> None:
    """As the epilogue of a product has them, where a value is used twice."""

    def named(x: Expr, i: Expr, functions: int) -> Expr:
        var = tirx.Var("t", "float32")
        body = var + var
        for _ in range(functions):
            body = tirx.exp(body)
        return tirx.Let(var, tirx.sin(read(x, i)), body)

    assert memories(kernel(lambda x, i: named(x, i, 1), kind)) == 0
    assert memories(kernel(lambda x, i: named(x, i, 2), kind)) == 1


@pytest.mark.parametrize(("outer", "inner"), [("asinh", "pow"), ("pow", "asinh"), ("pow", "pow"), ("asinh", "exp10")])
def test_two_functions_with_long_arithmetic_compile_in_time(outer: str, inner: str) -> None:
    """Found by `python -m benchmarks.fuzz --seed 26001 --only 1098`: minutes."""

    def of(name: str, x: Expr) -> Expr:
        return tirx.pow(x, tirx.const(1 / 3, "float32")) if name == "pow" else getattr(tirx, name)(x)

    func = vector_math(kernel(lambda x, i: of(outer, of(inner, read(x, i))), tirx.ForKind.VECTORIZED))
    found: list[tirx.AllocBuffer] = []
    tvm_ffi.structural_walk(func.body, (tirx.AllocBuffer, found.append))
    assert len(found) == 1
    single = vector_math(kernel(lambda x, i: of(outer, read(x, i)), tirx.ForKind.VECTORIZED))
    assert not isinstance(single.body, tirx.SeqStmt)
