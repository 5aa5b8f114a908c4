"""How much arithmetic a TIR function does, as a formula over the sizes that it is called with."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

import tvm_ffi
from tvm import ir, s_tir, tirx
from tvm.ir import Expr, Var
from tvm.ir import TensorLoad as Load

from dscc.passes.values import at_sizes

_OPERATIONS = (tirx.Add, tirx.Sub, tirx.Mul, tirx.Div, tirx.FloorDiv, tirx.Max, tirx.Min)
_BINARY = {tirx.Add: "+", tirx.Sub: "-", tirx.Mul: "*", tirx.FloorDiv: "//", tirx.Div: "//"}
_CALLS = {tirx.Max: "max", tirx.Min: "min"}


TYPICAL_SIDE = 224
"""Of an image: what an open size counts as where kernels are compared."""


class _Unknown(Exception):
    """A loop runs for as long as data says."""


def arithmetic(func: tirx.PrimFunc) -> str:
    """The arithmetic operations of an unscheduled function: JSON of `flops` and `dims`, or "" where data decides.

    `flops` is a Python expression over the names in `dims`, which maps each to (parameter, axis), or to (parameter,)
    for a parameter that is a number. A multiplication and an addition count 1 each, so does an elementary function;
    arithmetic on indices counts nothing.
    """
    names: dict[tuple[int, ...], str] = {}
    sizes: list[tuple[Expr, tuple[int, ...]]] = []  # also those whose symbols are not known, as `height // 8`
    for i, param in enumerate(func.params):
        if tirx.is_buffer_var(param):
            sizes += [(extent, (i, axis)) for axis, extent in enumerate(param.shape)]
        else:
            sizes.append((param, (i,)))

    def text(expr: Expr) -> str:
        if isinstance(expr, tirx.IntImm):
            return str(int(expr.value))
        place = next((place for size, place in sizes if tvm_ffi.structural_equal(size, expr)), None)
        if place is not None:
            return names.setdefault(place, f"d{len(names)}")
        if isinstance(expr, tirx.Cast):
            return text(expr.value)
        for kind, sign in _BINARY.items():
            if isinstance(expr, kind):
                return f"({text(expr.a)} {sign} {text(expr.b)})"
        for kind, name in _CALLS.items():
            if isinstance(expr, kind):
                return f"{name}({text(expr.a)}, {text(expr.b)})"
        raise _Unknown

    try:
        terms = [
            "*".join([str(count), *(word for word in map(text, extents) if word != "1")])
            for extents, count in _stores(func.body, ())
            if count
        ]
    except _Unknown:
        return ""
    dims = {name: place for place, name in names.items()}
    return json.dumps({"flops": " + ".join(terms) or "0", "dims": dims})


def operations_at(func: tirx.PrimFunc, size: int) -> int:
    """What `arithmetic` says where every open size is `size`; 0 where data decides."""
    try:
        stores = list(_stores(func.body, ()))
    except _Unknown:
        return 0
    return sum(count * math.prod(at_sizes(extent, {}, size) or 0 for extent in extents) for extents, count in stores)


def _stores(stmt: tirx.Stmt, extents: tuple[Expr, ...]) -> Iterator[tuple[tuple[Expr, ...], int]]:
    """Every store with the extents of the loops around it and the operations of its value."""
    if isinstance(stmt, tirx.For):
        yield from _stores(stmt.body, (*extents, stmt.extent))
    elif isinstance(stmt, s_tir.SBlockRealize):
        yield from _stores(stmt.block.body, extents)
    elif isinstance(stmt, tirx.SeqStmt):
        for part in stmt.seq:
            yield from _stores(part, extents)
    elif isinstance(stmt, tirx.IfThenElse):
        yield from _stores(stmt.then_case, extents)
        if stmt.else_case is not None:
            yield from _stores(stmt.else_case, extents)
    elif isinstance(stmt, tirx.BufferStore):
        yield extents, _operations(stmt.value)
    elif isinstance(stmt, tirx.While):
        raise _Unknown
    elif isinstance(body := getattr(stmt, "body", None), tirx.Stmt):
        yield from _stores(body, extents)


def _operations(value: Expr) -> int:
    """Operations on elements, as opposed to those on the indices of loads."""
    total = 0

    def without_indices(load: Load) -> Expr:
        return Var("element", load.ty)

    def count(node: Expr) -> None:
        nonlocal total
        total += str(node.ty.dtype) != "int64"

    def call(node: ir.Call) -> None:
        nonlocal total
        total += isinstance(node.op, ir.Op) and node.op.name not in ("prim.if_then_else", "tirx.reinterpret")

    bare = tvm_ffi.structural_map(value, (Load, without_indices))
    for kind in _OPERATIONS:
        tvm_ffi.structural_walk(bare, (kind, count))
    tvm_ffi.structural_walk(bare, (ir.Call, call))
    return total
