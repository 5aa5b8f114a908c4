"""Write a TIR function statement by statement, with vectors of a fixed number of lanes.

Schedule primitives have no good answer to symbolic extents: a split leaves a predicate in the inner loop. A rule that
knows what it wants writes it down instead: full vectors in a loop, then one masked vector. Every buffer is seen as
one-dimensional.

    code = Code()
    with code.loop(n // 16, "i") as i:
        y.store(code, i * 16, x.load(i * 16, 16) * 2.0)
    tirx.PrimFunc(params, code.stmt())
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import tvm_ffi
from tvm import tirx
from tvm.ir import Expr
from tvm.sym import Analyzer

Index: TypeAlias = Expr | int

_LOOPS = {
    "serial": tirx.ForKind.SERIAL,
    "parallel": tirx.ForKind.PARALLEL,
    "unrolled": tirx.ForKind.UNROLLED,
    "vectorized": tirx.ForKind.VECTORIZED,
}


def index(value: Index) -> Expr:
    """An int64 expression: the type of every index that we write."""
    if isinstance(value, int):
        return tirx.IntImm("int64", value)
    return value if str(value.ty.dtype) == "int64" else tirx.Cast("int64", value)


def constant(value: Index) -> int | None:
    """The value of a compile-time integer, or None."""
    if isinstance(value, int):
        return value
    return int(value.value) if isinstance(value, tirx.IntImm) else None


def decided(condition: Expr) -> Expr | bool:
    """A condition that the sizes decide, as a Python bool."""
    simple = Analyzer().simplify(condition)
    return bool(simple.value) if isinstance(simple, tirx.IntImm) else simple


def quotient(a: Index, b: Index) -> Expr:
    """a / b without the remainder, for a >= 0 and b > 0.

    Not floordiv: before TVM turns that into a division it looks for a proof that the operands are positive, which takes
    seconds where their extents are symbolic.
    """
    return tirx.truncdiv(index(a), index(b))


def remainder(a: Index, b: Index) -> Expr:
    """The remainder of a / b, for a >= 0 and b > 0; not floormod, for the reason that `quotient` gives."""
    return tirx.truncmod(index(a), index(b))


def divisor(extent: Index) -> Expr:
    """An extent to divide by: at least 1 where it may be 0, as the length of a slice, `n - 1` or `n // 2`.

    TVM 0.27 throws "Divide by zero" where such a length is known to be 0 inside of a condition, though nothing is run.
    """
    less: list[Expr] = []
    tvm_ffi.structural_walk(index(extent), (_LESS, less.append))
    return tirx.max(index(extent), index(1)) if less else index(extent)


_LESS = (tirx.Max, tirx.Min, tirx.Sub, tirx.FloorDiv, tirx.FloorMod, tirx.Div, tirx.Mod)


def ceildiv(a: Index, b: Index) -> Index:
    """a / b rounded up, for a >= 0 and b > 0."""
    known, by = constant(a), constant(b)
    return -(-known // by) if known is not None and by is not None else quotient(index(a) + (index(b) - 1), b)


def product(extents: Sequence[Index]) -> Index:
    """The product of extents, an int when all of them are."""
    known, symbolic = 1, []
    for extent in extents:
        value = constant(extent)
        if value is None:
            symbolic.append(index(extent))
        else:
            known *= value
    if not symbolic:
        return known
    total = symbolic[0]
    for extent in symbolic[1:]:
        total = total * extent
    return total if known == 1 else total * index(known)


def lanes_of(value: Expr) -> int:
    """Number of lanes of an expression."""
    _, _, lanes = str(value.ty.dtype).partition("x")
    return int(lanes) if lanes else 1


def broadcast(value: Expr, lanes: int) -> Expr:
    """`value` in all lanes; a vector is returned as it is."""
    return value if lanes == 1 or lanes_of(value) > 1 else tirx.Broadcast(value, lanes)


def first_lanes(count: Expr, lanes: int) -> Expr:
    """The mask of the lanes below `count`."""
    return tirx.LT(tirx.Ramp(0, 1, lanes), tirx.Broadcast(tirx.Cast("int32", count), lanes))


@dataclass(frozen=True)
class Flat:
    """A buffer seen as one-dimensional and compact."""

    buffer: tirx.Var

    def load(self, offset: Index, lanes: int = 1, stride: Index = 1, mask: Expr | None = None) -> Expr:
        """`lanes` elements from `offset` on; those outside `mask` are not touched in memory, and undefined."""
        where = index(offset)
        if lanes > 1:
            where = tirx.Ramp(where, index(stride), lanes)
        if mask is None:
            return tirx.BufferLoad(self.buffer, [where])
        return tirx.op.masked_load(f"{self.buffer.dtype}x{lanes}", self.buffer, where, mask)

    def store(self, code: Code, offset: Index, value: Expr, stride: Index = 1, mask: Expr | None = None) -> None:
        """Write the lanes of `value`, those of `mask` only if there is one."""
        lanes = lanes_of(value)
        where = index(offset)
        if lanes > 1:
            where = tirx.Ramp(where, index(stride), lanes)
        if mask is None:
            code.add(tirx.BufferStore(self.buffer, value, [where]))
        else:
            code.add(tirx.Evaluate(tirx.op.masked_store(self.buffer, value, where, mask)))


class Code:
    """Statements in the making."""

    def __init__(self) -> None:
        self._open: list[list[tirx.Stmt]] = [[]]

    def add(self, stmt: tirx.Stmt) -> None:
        """Append a statement to the innermost open scope."""
        self._open[-1].append(stmt)

    def bind(self, name: str, value: Expr) -> Expr:
        """Compute `value` here, once; constants and variables are returned as they are, and so is a vector of
        booleans, which TVM 0.27 cannot bind to a variable.

        A choice goes by way of memory: of its product with a float TVM 0.27 wants the range, for which it makes a zero,
        an integer of that type ("IntImm supports only int", `Analyzer().bind(r, Select(c, x, y) * x)`).
        """
        if isinstance(value, tirx.Var | tirx.IntImm | tirx.FloatImm) or str(value.ty.dtype).startswith("boolx"):
            return value
        if isinstance(value, tirx.Select):
            value = self.remembered(value)
        var = tirx.Var(name, value.ty)
        self.add(tirx.Bind(var, value))
        return var

    def steps(self, value: Expr) -> Expr:
        """The result of a chain `Let(a, .., Let(b, .., result))`, its variables bound here.

        It goes through memory, as every sixth variable and every choice do, through which TVM 0.27 does not look: its
        simplifier puts the value of a bound variable in every place of it, and goes through a choice three times, which
        for a function of a function of a function takes minutes. LLVM keeps registers.
        """
        if not isinstance(value, tirx.Let):
            return value
        count = 0
        while isinstance(value, tirx.Let):
            count += 1
            choices: list[Expr] = []
            tvm_ffi.structural_walk(value.value, (tirx.Select, choices.append))
            far = count % 6 == 0 or bool(choices)
            self.add(tirx.Bind(value.var, self.remembered(value.value) if far else value.value))
            value = value.body
        return self.remembered(value)

    def remembered(self, value: Expr) -> Expr:
        """`value`, computed here, by way of memory, through which TVM does not look; LLVM keeps it in registers."""
        lanes = lanes_of(value)
        memory = self.stack("made", lanes, str(value.ty.dtype).partition("x")[0])
        memory.store(self, 0, value)
        return memory.load(0, lanes)

    def opaque(self, name: str, value: Index) -> Expr:
        """Compute an index here, once, without telling TVM what it is; known indices are returned as they are.

        TVM 0.27 replaces a bound variable by its value wherever it simplifies an index. With a few divisions, minima
        and maxima on top of one another that takes seconds for a kernel. It does not look through memory; LLVM does.
        """
        if constant(value) is not None:
            return index(value)
        memory = self.stack(name, 1, "int64")
        memory.store(self, 0, index(value))
        var = tirx.Var(name, "int64")
        self.add(tirx.Bind(var, memory.load(0)))
        return var

    def view(self, buffer: tirx.Var) -> Flat:
        """`buffer`, a parameter, as one-dimensional."""
        flat = tirx.decl_buffer((index(product(buffer.shape)),), buffer.dtype, f"{buffer.name}_flat", data=buffer.data)
        self.add(tirx.DeclBuffer(flat, data=buffer.data))
        return Flat(flat)

    def stack(self, name: str, size: int, dtype: str = "float32") -> Flat:
        """A small array on the stack; LLVM keeps it in registers if every access to it is at a constant offset.

        It is local to a thread, which keeps TVM from putting several arrays into the memory of one; kernel_pipeline.py
        sees to it that it is no heap allocation.
        """
        buffer = tirx.decl_buffer((index(size),), dtype, name, scope="local")
        self.add(tirx.AllocBuffer(buffer))
        return Flat(buffer)

    def heap(self, name: str, size: Index, dtype: str = "float32") -> Flat:
        """Scratch memory of this scope, from the runtime's per-thread pool."""
        buffer = tirx.decl_buffer((index(size),), dtype, name)
        self.add(tirx.AllocBuffer(buffer))
        return Flat(buffer)

    def fold(self, value: Expr, combine: Callable[[Expr, Expr], Expr]) -> Expr:
        """The lanes of a vector combined to one scalar, pairwise: halves, then quarters, and so on."""
        lanes = lanes_of(value)
        while lanes > 1:
            lanes //= 2
            value = self.bind("v", value)
            low = tirx.Shuffle([value], list(range(lanes)))
            value = combine(low, tirx.Shuffle([value], list(range(lanes, 2 * lanes))))
        return self.bind("v", value)

    @contextmanager
    def loop(self, extent: Index, name: str, kind: str = "serial") -> Iterator[Expr]:
        """A loop from 0; `kind` is serial, parallel, unrolled or vectorized. One step is only a scope, no loop."""
        if constant(extent) == 1:
            yield index(0)
            return
        var = tirx.Var(name, "int64")
        self._open.append([])
        yield var
        body = self._close()
        if body is not None and constant(extent) != 0:
            self.add(tirx.For(var, index(0), index(extent), _LOOPS[kind], body))

    @contextmanager
    def when(self, condition: Expr | bool) -> Iterator[None]:
        """Statements that run if `condition` holds; a Python bool decides here and now."""
        self._open.append([])
        yield
        body = self._close()
        if body is None or condition is False:
            return
        self.add(body if condition is True else tirx.IfThenElse(condition, body, None))

    def stmt(self) -> tirx.Stmt:
        """Everything written so far."""
        body = self._close()
        self._open.append([])
        return body if body is not None else tirx.Evaluate(tirx.IntImm("int32", 0))

    def _close(self) -> tirx.Stmt | None:
        stmts = self._open.pop()
        if not stmts:
            return None
        return stmts[0] if len(stmts) == 1 else tirx.SeqStmt(stmts)
