"""Functions of functions, computed one after the other where both together are too much for TVM.

    y[l] = asinh(pow(x[l], 1 / 3))  ->  inner[l] = pow(x[l], 1 / 3); y[l] = asinh(inner[l])

The arithmetic of a function is a chain of Lets. TVM 0.27 puts the value of each into the next ones, where it lowers
intrinsics and again where it generates code for LLVM, so that the time grows with the size of an expression that has no
names left: the product of the sizes of functions within one another, minutes for one of a million. A power alone has
47,000 places for its base, and the index that the base is read at is simplified in each. It does not look through
memory, which LLVM keeps in registers.
"""

from __future__ import annotations

from collections.abc import Callable

import tvm_ffi
from tvm import ir, tirx
from tvm.ir import Expr, Var
from tvm.ir import TensorLoad as Load

from dscc.schedule.code import Code, lanes_of
from dscc.schedule.domain import is_if_then_else
from dscc.schedule.operands import with_parts
from dscc.schedule.stages import substitute

MOST = 10_000
"""Of the sizes of functions within one another, multiplied: a quarter of a second."""

Size = Callable[[ir.Call], int]


def in_turns(func: tirx.PrimFunc, size: Size) -> tirx.PrimFunc:
    """`func` with arguments in memory, of functions that would be too much with them.

    Args:
        size: of the arithmetic that a call becomes, without names; 1 for what is no function.
    """

    def of_loop(loop: tirx.For) -> tirx.Stmt:
        if loop.kind != tirx.ForKind.VECTORIZED or not isinstance(loop.body, tirx.BufferStore):
            return loop
        return _Turns(size, loop.body, loop).stmt()

    def of_store(store: tirx.BufferStore) -> tirx.Stmt:
        return _Turns(size, store, None).stmt()

    sizes = [size(call) for call in _calls(func.body)]
    if sum(each > 1 for each in sizes) < 2 and max(sizes, default=1) <= MOST:
        return func
    body = tvm_ffi.structural_map(func.body, (tirx.For, of_loop))
    return func.with_body(tvm_ffi.structural_map(body, (tirx.BufferStore, of_store)))


def _calls(body: Expr | tirx.Stmt) -> list[ir.Call]:
    calls: list[ir.Call] = []
    tvm_ffi.structural_walk(body, (ir.Call, calls.append))
    return calls


class _Turns:
    """One statement, perhaps in a vectorized loop of its own."""

    def __init__(self, size: Size, store: tirx.BufferStore, loop: tirx.For | None):
        self._size = size
        self._store, self._loop = store, loop
        self._code = Code()
        self._condition: Expr | None = None  # under which the value is wanted

    def stmt(self) -> tirx.Stmt:
        value = self._value(self._store.value)
        if value.same_as(self._store.value):
            return self._store if self._loop is None else self._loop
        store = tirx.BufferStore(self._store.buffer, value, self._store.indices)
        self._code.add(store if self._loop is None else _with_lane(self._loop, store, self._loop.loop_var))
        return self._code.stmt()

    def _value(self, value: Expr) -> Expr:
        """`value`, with parts of it computed before."""
        if isinstance(value, tirx.Let) and self._exceeds(value, MOST):
            inner = self._in_memory(self._value(value.value))
            return self._value(substitute(value.body, {value.var: inner}))
        if isinstance(value, tirx.Select) and any(self._size(call) > MOST for call in _calls(value)):
            arms = (value.condition, value.true_value), (tirx.Not(value.condition), value.false_value)
            return tirx.Select(value.condition, *(self._where(condition, arm) for condition, arm in arms))
        if self._stays(value) or not self._exceeds(value, MOST):
            return value
        return tvm_ffi.structural_map(value, (ir.Call, self._call))

    def _where(self, condition: Expr, arm: Expr) -> Expr:
        """An arm of a Select: what it reads may exist only under the condition, and is read only there."""
        outer = self._condition
        self._condition = condition if outer is None else tirx.And(outer, condition)
        made = self._value(arm)
        self._condition = outer
        return made

    def _stays(self, value: Expr) -> bool:
        """Whether a part of the value may not be computed before it: what has a name inside, or what is read only under
        a condition.
        """
        names: list[tirx.Let] = []
        chosen: list[Expr] = []

        def call(node: ir.Call) -> None:
            chosen.extend(node.args[1:] if is_if_then_else(node) else ())

        def select(node: tirx.Select) -> None:
            chosen.extend((node.true_value, node.false_value))

        tvm_ffi.structural_walk(value, [(tirx.Let, names.append), (tirx.Select, select), (ir.Call, call)])
        return bool(names) or any(self._exceeds(arm, MOST) for arm in chosen)

    def _exceeds(self, value: Expr, room: int) -> bool:
        """Whether the sizes of functions within one another in `value`, multiplied, are more than `room`."""
        if isinstance(value, tirx.Let):  # more than that only if its functions meet in the body
            inner = max(map(self._size, _calls(value.value)), default=1)
            return self._exceeds(value.value, room) or self._exceeds(value.body, room // inner)
        return any(
            room < size or any(self._exceeds(arg, room // size) for arg in call.args)
            for call in _calls(value)
            if (size := self._size(call)) > 1
        )

    def _call(self, call: ir.Call) -> Expr:
        """Called from the inside to the outside."""
        size = self._size(call)
        if size == 1 or not self._exceeds(call, MOST):
            return call

        def is_too_much(arg: Expr) -> bool:
            place = arg.indices if isinstance(arg, Load) else [arg]
            if all(isinstance(part, tirx.Var | tirx.FloatImm | tirx.IntImm) for part in place):
                return False
            return size > MOST or any(self._size(inner) > 1 for inner in _calls(arg))

        return with_parts(call, [self._in_memory(arg) if is_too_much(arg) else arg for arg in call.args])

    def _in_memory(self, value: Expr) -> Expr:
        """What a place in memory holds that `value` is written to before."""
        lanes = lanes_of(value)
        if self._condition is not None:
            zero = tirx.const(0, str(value.ty.dtype).partition("x")[0])
            value = tirx.Select(self._condition, value, zero if lanes == 1 else tirx.Broadcast(zero, lanes))
        steps = 1 if self._loop is None else int(self._loop.extent.value)
        memory = self._code.stack("inner", lanes * steps, str(value.ty.dtype).partition("x")[0])
        if self._loop is None:
            memory.store(self._code, 0, value)
            return memory.load(0, lanes)
        lane = tirx.Var("l", self._loop.loop_var.ty.dtype)
        value = substitute(value, {self._loop.loop_var: lane})
        self._code.add(_with_lane(self._loop, tirx.BufferStore(memory.buffer, value, [lane]), lane))
        return tirx.BufferLoad(memory.buffer, [self._loop.loop_var])


def _with_lane(loop: tirx.For, store: tirx.BufferStore, lane: Var) -> tirx.For:
    return tirx.For(lane, loop.min, loop.extent, loop.kind, store)
