"""Functions of functions of functions, computed one after the other: what they are of is put into memory before.

    y[l] = cosh(sin(exp(x[l])))  ->  inner[l] = sin(exp(x[l])); y[l] = cosh(inner[l])

TVM 0.27's LowerIntrin takes minutes over three chains of Lets within one another, which the arithmetic of such
functions is. It does not look through memory, which LLVM keeps in registers.
"""

from __future__ import annotations

from collections.abc import Callable

import tvm_ffi
from tvm import ir, tirx
from tvm.ir import Expr, Var

from dscc.schedule.code import Code, lanes_of
from dscc.schedule.domain import is_if_then_else
from dscc.schedule.stages import substitute

_DEEP = 2  # functions within one another that stay where they are


def in_turns(func: tirx.PrimFunc, is_function: Callable[[ir.Call], bool]) -> tirx.PrimFunc:
    """`func` with arguments that are more than functions of functions in memory; `is_function` knows the functions."""

    def of_loop(loop: tirx.For) -> tirx.Stmt:
        if loop.kind != tirx.ForKind.VECTORIZED or not isinstance(loop.body, tirx.BufferStore):
            return loop
        return _Turns(is_function, loop.body, loop).stmt()

    def of_store(store: tirx.BufferStore) -> tirx.Stmt:
        return _Turns(is_function, store, None).stmt()

    calls: list[ir.Call] = []
    tvm_ffi.structural_walk(func.body, (ir.Call, calls.append))
    if sum(map(is_function, calls)) <= _DEEP:
        return func
    body = tvm_ffi.structural_map(func.body, (tirx.For, of_loop))
    return func.with_body(tvm_ffi.structural_map(body, (tirx.BufferStore, of_store)))


class _Turns:
    """One statement, perhaps in a vectorized loop of its own."""

    def __init__(self, is_function: Callable[[ir.Call], bool], store: tirx.BufferStore, loop: tirx.For | None):
        self._is_function = is_function
        self._store, self._loop = store, loop
        self._code = Code()

    def stmt(self) -> tirx.Stmt:
        if self._stays() or not self._reaches(self._store.value, _DEEP + 1):
            return self._store if self._loop is None else self._loop
        value = tvm_ffi.structural_map(self._store.value, (ir.Call, self._call))
        store = tirx.BufferStore(self._store.buffer, value, self._store.indices)
        self._code.add(store if self._loop is None else _with_lane(self._loop, store, self._loop.loop_var))
        return self._code.stmt()

    def _stays(self) -> bool:
        """Whether a part of the value may not be computed before it: what has a name inside, or what is read only under
        a condition.
        """
        names: list[tirx.Let] = []
        chosen: list[Expr] = []

        def call(node: ir.Call) -> None:
            chosen.extend(node.args[1:] if is_if_then_else(node) else ())

        def select(node: tirx.Select) -> None:
            chosen.extend((node.true_value, node.false_value))

        callbacks = [(tirx.Let, names.append), (tirx.Select, select), (ir.Call, call)]
        tvm_ffi.structural_walk(self._store.value, callbacks)
        return bool(names) or any(self._reaches(arm, _DEEP) for arm in chosen)

    def _reaches(self, value: Expr, depth: int) -> bool:
        """Whether there are `depth` functions within one another in `value`."""
        if depth == 0:
            return True
        calls: list[ir.Call] = []
        tvm_ffi.structural_walk(value, (ir.Call, calls.append))
        return any(self._reaches(arg, depth - 1) for call in calls if self._is_function(call) for arg in call.args)

    def _call(self, call: ir.Call) -> Expr:
        """Called from the inside to the outside."""
        if not self._is_function(call) or not self._reaches(call, _DEEP):
            return call
        lanes = lanes_of(call)
        steps = 1 if self._loop is None else int(self._loop.extent.value)
        memory = self._code.stack("inner", lanes * steps, str(call.ty.dtype).partition("x")[0])
        if self._loop is None:
            memory.store(self._code, 0, call)
            return memory.load(0, lanes)
        lane = tirx.Var("l", self._loop.loop_var.ty.dtype)
        value = substitute(call, {self._loop.loop_var: lane})
        self._code.add(_with_lane(self._loop, tirx.BufferStore(memory.buffer, value, [lane]), lane))
        return tirx.BufferLoad(memory.buffer, [self._loop.loop_var])


def _with_lane(loop: tirx.For, store: tirx.BufferStore, lane: Var) -> tirx.For:
    return tirx.For(lane, loop.min, loop.extent, loop.kind, store)
