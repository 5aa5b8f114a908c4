"""Calls of elementary functions replaced by arithmetic, so that they become vector code.

    T.exp(x)  ->  polynomial in x, built of multiply-adds, shifts and selects

LLVM turns `llvm.exp.v16f32`, `erff` and their like into one libm call per lane. What takes its place is in
approximations.py for float32, and in elementary.py for float64 and for what has no approximation there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import tvm_ffi
from tvm import ir, tirx
from tvm.ir import Expr

from dscc.schedule import approximations, elementary
from dscc.schedule.arithmetic import Lets, closed, dtype_of, is_nan, like, plain
from dscc.schedule.operands import parts_of
from dscc.schedule.turns import in_turns

BELOW_ONE = "dscc.below_one"  # attribute of a call of exp whose argument is known not to be positive

exp_below_one = closed(approximations.exp_below_one)
_VECTOR: dict[str, Callable[..., Expr]] = {
    f"tirx.{name}": closed(function) for name, function in approximations.FUNCTIONS.items()
}
# What is left to LLVM or written in the type that is asked for: for float64, and where there is no form above.
_OTHERS: dict[str, Callable[..., Expr]] = {
    f"tirx.{name}": (plain if name in elementary.ONCE else closed)(function)
    for name, function in elementary.FUNCTIONS.items()
}


def vector_call(call: ir.Call) -> Expr:
    """The arithmetic for one call of an elementary function; other calls are returned as they are."""
    name = call.op.name if isinstance(call.op, ir.Op) else ""
    if name == "tirx.isnan":  # TVM 0.27 would make a loop over lanes of a vectorized statement with it
        return is_nan(call.args[0])
    function = _VECTOR.get(name) or _OTHERS.get(name)
    if function is None:
        return call
    code = dtype_of(call).partition("x")[0]
    if code == "float64":
        return _OTHERS[name](*call.args) if name in _OTHERS else call
    if code == "float32" and call.attrs is not None and call.attrs.get(BELOW_ONE, False):
        return exp_below_one(*call.args)
    if code == "float32":
        return function(*call.args)
    if code in ("float16", "bfloat16"):
        # The conversion is inside the chain of Lets: under a cast, TVM's simplifier binds their variables twice.
        let = Lets()
        wide = let(function(*(arg.astype(like(arg, "float32")) for arg in call.args)))
        return let.close(wide.astype(dtype_of(call)))
    return call


def vector_math(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """`func` with elementary functions of float32 and float16 (computed in float32) replaced by arithmetic."""
    return tvm_ffi.structural_map(in_turns(func, _size), [(ir.Call, vector_call), ((tirx.EQ, tirx.NE), _compared)])


def _compared(node: Expr) -> Expr:
    """`x == x` is the question whether x is a number; see `is_nan`."""
    if not dtype_of(node.a).startswith(("float", "bfloat")) or not tvm_ffi.structural_equal(node.a, node.b):
        return node
    return is_nan(node.a) if isinstance(node, tirx.NE) else tirx.Not(is_nan(node.a))


def is_chain(call: ir.Call) -> bool:
    """Whether `vector_call` writes more than a step for a call."""
    name = call.op.name if isinstance(call.op, ir.Op) else ""
    return name in _VECTOR or (name in _OTHERS and name.removeprefix("tirx.") not in elementary.ONCE)


def _size(call: ir.Call) -> int:
    """How many leaves the arithmetic of a call has once its names are replaced by what they stand for."""
    return _size_of(call.op.name, dtype_of(call).partition("x")[0], len(call.args)) if is_chain(call) else 1


@functools.cache
def _size_of(name: str, code: str, operands: int) -> int:
    known: dict[tirx.Var, int] = {}

    def leaves(expr: Expr) -> int:
        if isinstance(expr, tirx.Let):
            known[expr.var] = leaves(expr.value)
            return leaves(expr.body)
        return known.get(expr, 1) if isinstance(expr, tirx.Var) else sum(map(leaves, parts_of(expr)))

    operation = ir.Op.get(name)
    args = [tirx.Var("x", code) for _ in range(operands)]
    return max(1, leaves(vector_call(ir.Call(operation, args, None, [], None, code))))


def scalar_math(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """`func`, whose loops stay as they are, with those functions of float32 and float64 that elementary.py has written
    as there.
    """

    def written(call: ir.Call) -> Expr:
        name = call.op.name if isinstance(call.op, ir.Op) else ""
        known = name in _OTHERS and dtype_of(call) in ("float32", "float64")
        return _OTHERS[name](*call.args) if known else call

    return tvm_ffi.structural_map(func, (ir.Call, written))
