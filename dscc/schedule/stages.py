"""An unscheduled TIR function as a list of formulas, and small tools for index expressions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import tvm_ffi
from tvm import s_tir, tirx
from tvm.ir import Expr, Var
from tvm.ir import TensorLoad as Load

from dscc.schedule.code import quotient, remainder


@dataclass(frozen=True)
class Stage:
    """One block as a formula: `buffer[indices] = value` for all values of `spatial`, reduced over `reduce`.

    Attributes:
        buffer: what is written; a variable with `shape`.
        indices: where, in terms of `spatial`.
        value: what is written, in terms of the iteration variables; for a reduction it reads `buffer[indices]` itself.
        init: the value that a reduction starts from, or None.
        spatial, reduce: the iteration variables, in the order of the block.
        extents: the extent of every iteration variable.
        annotations: what the block was annotated with.
    """

    buffer: Var
    indices: tuple[Expr, ...]
    value: Expr
    init: Expr | None
    spatial: tuple[Var, ...]
    reduce: tuple[Var, ...]
    extents: dict[Var, Expr]
    annotations: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_reduction(self) -> bool:
        return self.init is not None or bool(self.reduce)


def stages(func: tirx.PrimFunc) -> tuple[Stage, ...] | None:
    """The blocks of an unscheduled function in order, or None if one of them is no plain `buffer[...] = value`."""
    body = func.body
    if isinstance(body, s_tir.SBlockRealize) and not body.block.iter_vars and body.block.name_hint == "root":
        body = body.block.body
    found: list[Stage] = []
    for statement in body.seq if isinstance(body, tirx.SeqStmt) else (body,):
        stage = stage_of(statement)
        if stage is None:
            return None
        found.append(stage)
    return tuple(found)


def stage_of(statement: tirx.Stmt) -> Stage | None:
    """One loop nest as a formula, or None if it is no plain `buffer[...] = value`."""
    while isinstance(statement, tirx.For):
        statement = statement.body
    if not isinstance(statement, s_tir.SBlockRealize):
        return None
    block = statement.block
    if not isinstance(block.body, tirx.BufferStore) or block.alloc_buffers or block.match_buffers:
        return None
    if not (isinstance(statement.predicate, tirx.IntImm) and statement.predicate.value == 1):
        return None
    if block.init is not None and not isinstance(block.init, tirx.BufferStore):
        return None
    if any(not is_zero(axis.dom.min) for axis in block.iter_vars):
        return None
    return Stage(
        buffer=block.body.buffer,
        indices=tuple(block.body.indices),
        value=block.body.value,
        init=None if block.init is None else block.init.value,
        spatial=tuple(axis.var for axis in block.iter_vars if axis.iter_type == tirx.IterVar.DataPar),
        reduce=tuple(axis.var for axis in block.iter_vars if axis.iter_type == tirx.IterVar.CommReduce),
        extents={axis.var: axis.dom.extent for axis in block.iter_vars},
        annotations={str(name): value for name, value in block.annotations.items()},
    )


def substitute(expr: Expr, values: dict[Var, Expr]) -> Expr:
    """`expr` with variables replaced."""
    if not values:
        return expr
    return tvm_ffi.structural_map(expr, (Var, lambda var: values.get(var, var)))


def loads(expr: Expr) -> list[Load]:
    """Every buffer read in `expr`, outermost last."""
    found: list[Load] = []
    tvm_ffi.structural_walk(expr, (Load, found.append), order="post")
    return found


def variables(expr: Expr) -> frozenset[Var]:
    """The variables that occur in `expr`."""
    found: list[Var] = []
    tvm_ffi.structural_walk(expr, (Var, found.append))
    return frozenset(found)


def product_of(stage: Stage, dtype: str = "float32") -> tuple[Expr, Expr] | None:
    """The factors if `stage` is a sum of products in `dtype` that starts from zero."""
    value = stage.value
    if str(stage.buffer.dtype) != dtype or not isinstance(value, tirx.Add):
        return None
    if not (isinstance(stage.init, tirx.FloatImm | tirx.IntImm) and stage.init.value == 0):
        return None
    before, term = value.a, value.b
    if not (isinstance(before, Load) and before.source.same_as(stage.buffer)):
        return None
    return (term.a, term.b) if isinstance(term, tirx.Mul) else None


def product(shape: Sequence[Expr], axes: Sequence[int]) -> Expr:
    """The number of elements along `axes`."""
    total: Expr = tirx.IntImm("int64", 1)
    for axis in axes:
        total = total * shape[axis]
    return total


def ravel(indices: Sequence[Expr], shape: Sequence[Expr]) -> Expr:
    """The row-major position of `indices`."""
    flat: Expr = tirx.IntImm("int64", 0)
    for index, extent in zip(indices, shape, strict=True):
        flat = flat * extent + index
    return flat


def unravel(flat: Expr, shape: Sequence[Expr]) -> list[Expr]:
    """The indices of the element at row-major position `flat`."""
    indices: list[Expr] = []
    for extent in reversed(shape[1:]):
        indices.append(tirx.const(0, "int64") if is_one(extent) else remainder(flat, extent))
        flat = flat if is_one(extent) else quotient(flat, extent)
    return [*reversed([*indices, flat])]


def zero(var: Var) -> Expr:
    """0 in the type of `var`."""
    return tirx.const(0, var.ty.dtype)


def is_zero(expr: Expr) -> bool:
    """Whether it is the constant 0."""
    return isinstance(expr, tirx.IntImm) and expr.value == 0


def is_one(expr: Expr) -> bool:
    """Whether it is the constant 1."""
    return isinstance(expr, tirx.IntImm) and expr.value == 1
