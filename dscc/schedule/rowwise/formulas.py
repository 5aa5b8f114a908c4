"""Questions about the formula of one stage."""

from __future__ import annotations

from collections.abc import Mapping

import tvm_ffi
from tvm import ir, tirx
from tvm.ir import Expr, Var
from tvm.ir import TensorLoad as Load

from dscc.schedule.rowwise.program import COMBINE, NotRowwise
from dscc.schedule.stages import Stage, is_one, substitute

_COSTLY = frozenset(
    f"tirx.{name}" for name in "exp exp2 exp10 erf tanh sigmoid log log2 log10 log1p pow sin cos tan".split()
)


def without_ones(stage: Stage) -> Stage:
    """The stage without iteration variables of extent 1."""
    ones: dict[Var, Expr] = {v: tirx.const(0, v.ty.dtype) for v, extent in stage.extents.items() if is_one(extent)}
    return Stage(
        stage.buffer,
        tuple(substitute(index, ones) for index in stage.indices),
        substitute(stage.value, ones),
        stage.init,
        tuple(v for v in stage.spatial if v not in ones),
        tuple(v for v in stage.reduce if v not in ones),
        {v: extent for v, extent in stage.extents.items() if v not in ones},
    )


def operand(stage: Stage) -> tuple[str, Expr]:
    """("Max", x) of `acc = max(acc, x)`; see COMBINE."""
    combine, value = type(stage.value).__name__, stage.value
    if combine == "Mul" and str(stage.buffer.dtype).startswith("float"):
        raise NotRowwise  # the product of every sixteenth factor may be infinite where that of all of them is not
    if combine in COMBINE:
        for own, other in ((value.a, value.b), (value.b, value.a)):
            if isinstance(own, Load) and own.source.same_as(stage.buffer):
                return combine, other
    raise NotRowwise


def is_below_max(call: ir.Call, at: Mapping[Var, Expr], producers: Mapping[Var, Stage]) -> bool:
    """Whether it is exp(x - max(x)) over the row of x."""
    if not isinstance(call.op, ir.Op) or call.op.name != "tirx.exp" or not isinstance(call.args[0], tirx.Sub):
        return False
    x, most = call.args[0].a, call.args[0].b
    if not isinstance(x, Load) or not isinstance(most, Load) or most.source not in producers:
        return False
    stage = producers[most.source]
    if not stage.is_reduction:
        return False
    combine, reduced = operand(stage)
    if combine != "Max" or not isinstance(reduced, Load) or not reduced.source.same_as(x.source):
        return False
    row = {v: substitute(i, dict(at)) for v, i in zip(stage.indices, most.indices, strict=True) if isinstance(v, Var)}
    return all(
        theirs in stage.reduce or tvm_ffi.structural_equal(substitute(theirs, row), substitute(index, dict(at)))
        for theirs, index in zip(reduced.indices, x.indices, strict=True)
    )


def is_costly(expr: Expr) -> bool:
    """Whether it has an elementary function, rather computed once than in every sweep."""
    found: list[bool] = []

    def look(call: ir.Call) -> None:
        found.append(isinstance(call.op, ir.Op) and call.op.name in _COSTLY)

    tvm_ffi.structural_walk(expr, (ir.Call, look))
    return any(found)
