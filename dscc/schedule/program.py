"""A whole unscheduled function, also one with several reductions or with statements that are no formulas.

Elementwise producers are put into their consumers where that repeats no work worth a buffer:

    t[i] = exp(x[i]); y[i] = t[i] * s[i]   ->   y[i] = exp(x[i]) * s[i]

Scans, sorts and extern calls are kept as the statements they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import tvm_ffi
from tvm import ir, s_tir, tirx
from tvm.ir import Expr, Var
from tvm.ir import TensorLoad as Load
from tvm.sym import Analyzer

from dscc.schedule.stages import Stage, loads, stage_of, substitute


@dataclass(frozen=True)
class Program:
    """The statements of one function in order.

    Attributes:
        items: formulas, and statements that are none.
        temporaries: buffers that live between them.
    """

    items: tuple[Stage | tirx.Stmt, ...]
    temporaries: tuple[Var, ...]

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The formulas."""
        return tuple(item for item in self.items if isinstance(item, Stage))


def read(func: tirx.PrimFunc) -> Program | None:
    """The statements of an unscheduled function; None if it does not begin with a root block."""
    root = func.body
    if not isinstance(root, s_tir.SBlockRealize) or root.block.iter_vars or root.block.match_buffers:
        return None
    body = root.block.body
    statements = body.seq if isinstance(body, tirx.SeqStmt) else (body,)
    return Program(tuple(_item(s) for s in statements), tuple(root.block.alloc_buffers))


def _item(statement: tirx.Stmt) -> Stage | tirx.Stmt:
    stage = stage_of(statement)
    if stage is None or bool(stage.reduce) != (stage.init is not None):
        return statement
    if not stage.reduce and any(load.source.same_as(stage.buffer) for load in loads(stage.value)):
        return statement
    return stage


def inline(program: Program) -> Program:
    """The program with its elementwise producers inlined.

    A producer stays a buffer if computing it repeatedly costs more than that: a reduction reads each element many times
    (a convolution and its padding), or several consumers would each call an elementary function.
    """
    for buffer in program.temporaries:
        writers = [item for item in program.items if isinstance(item, Stage) and item.buffer.same_as(buffer)]
        if len(writers) != 1 or any(not isinstance(item, Stage) and _mentions(item, buffer) for item in program.items):
            continue
        readers = [stage for stage in program.stages if any(load.source.same_as(buffer) for load in loads(stage.value))]
        if readers and _may_inline(writers[0], readers):
            program = _without(program, writers[0], readers)
    return program


def _mentions(statement: tirx.Stmt, buffer: Var) -> bool:
    found: list[Var] = []
    tvm_ffi.structural_walk(statement, (Var, lambda var: found.append(var) if var.same_as(buffer) else None))
    return bool(found)


def _may_inline(producer: Stage, readers: Sequence[Stage]) -> bool:
    plain = len(producer.indices) == len(producer.spatial) and all(
        index.same_as(var) for index, var in zip(producer.indices, producer.spatial, strict=True)
    )
    if producer.is_reduction or not plain:
        return False
    if _is_free(producer.value):
        return True
    analyzer = Analyzer()
    size = _size(producer)
    once = all(not reader.is_reduction or analyzer.can_prove_equal(_size(reader), size) for reader in readers)
    return once and (len(readers) == 1 or not _calls(producer.value))


def _size(stage: Stage) -> Expr:
    total: Expr = tirx.const(1, "int64")
    for extent in stage.extents.values():
        total = total * extent.astype("int64")
    return total


def _is_free(value: Expr) -> bool:
    """Whether computing `value` again costs no more than loading it: a load, a constant, a conversion."""
    while isinstance(value, tirx.Cast):
        value = value.value
    if isinstance(value, Load):
        return all(not loads(index) for index in value.indices)
    return isinstance(value, tirx.IntImm | tirx.FloatImm)


def _calls(value: Expr) -> bool:
    found: list[ir.Call] = []
    tvm_ffi.structural_walk(value, (ir.Call, found.append))
    return bool(found)


def _without(program: Program, producer: Stage, readers: Sequence[Stage]) -> Program:
    def change(load: Load) -> Expr:
        if not load.source.same_as(producer.buffer):
            return load
        at = dict(zip(producer.spatial, load.indices, strict=True))
        return substitute(producer.value, at)

    items: list[Stage | tirx.Stmt] = []
    for item in program.items:
        if item is producer:
            continue
        if isinstance(item, Stage) and any(item is reader for reader in readers):
            item = dataclasses.replace(item, value=tvm_ffi.structural_map(item.value, (Load, change)))
        items.append(item)
    kept = tuple(buffer for buffer in program.temporaries if not buffer.same_as(producer.buffer))
    return Program(tuple(items), kept)
