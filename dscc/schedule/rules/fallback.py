"""The last rule: takes any function whatever, and keeps its numbers.

Every formula gets loops of its own, vectors inside and parallel outside; what is no formula (scans, sorts, extern
calls) stays as it is.
"""

from __future__ import annotations

from tvm import s_tir, tirx
from tvm.ir import Var

from dscc.schedule.base import Rule, Scheduled
from dscc.schedule.code import Code, Flat, product
from dscc.schedule.decisions import Decisions
from dscc.schedule.loops import write_formula, write_reduction
from dscc.schedule.machine import Machine
from dscc.schedule.program import Program, inline, read
from dscc.schedule.stages import Stage, loads


class Fallback(Rule):
    """Plain loops for anything."""

    name = "fallback"

    def apply(
        self, func: tirx.PrimFunc, constants: frozenset[int], machine: Machine, decisions: Decisions
    ) -> Scheduled:
        program = read(func)
        if program is None or not program.stages:
            return Scheduled(func)
        return Scheduled(func.with_body(write(func, inline(program), machine)))


def write(func: tirx.PrimFunc, program: Program, machine: Machine) -> tirx.Stmt:
    """The body with its formulas as fast loops."""
    plain = len(program.stages) == len(program.items)
    code = Code()
    views = {buffer: _view(code, buffer, program, plain) for buffer in _buffers(program)}
    for item in program.items:
        if not isinstance(item, Stage):
            code.add(item)
        elif item.is_reduction:
            write_reduction(code, item, views.__getitem__, machine)
        else:
            write_formula(code, item, views.__getitem__, machine, _may_share_memory(item, program))
    return code.stmt() if plain else _in_root_block(func, code.stmt(), program)


def _may_share_memory(stage: Stage, program: Program) -> bool:
    """Whether a temporary is made from another one: StorageRewrite of TVM 0.27 may put both into the same memory, since
    every store reads its own place only, and what is computed twice is then computed from its own result.
    """

    def temporary(buffer: Var) -> bool:
        return any(buffer.same_as(each) for each in program.temporaries)

    return temporary(stage.buffer) and any(temporary(load.source) for load in loads(stage.value))


def _buffers(program: Program) -> list[Var]:
    """What the formulas read and write, each once."""
    found: dict[Var, None] = {}
    for stage in program.stages:
        found.update(dict.fromkeys([stage.buffer, *(load.source for load in loads(stage.value))]))
    return list(found)


def _view(code: Code, buffer: Var, program: Program, plain: bool) -> Flat:
    if plain and any(buffer.same_as(temporary) for temporary in program.temporaries):
        return code.heap(buffer.name, product(buffer.shape), str(buffer.dtype))
    return code.view(buffer)


def _in_root_block(func: tirx.PrimFunc, body: tirx.Stmt, program: Program) -> tirx.Stmt:
    """Statements that were kept contain blocks, and blocks want a root that allocates their buffers."""
    block = s_tir.SBlock([], [], [], "root", body, None, list(program.temporaries))
    return s_tir.SBlockRealize([], tirx.const(True, "bool"), block)
