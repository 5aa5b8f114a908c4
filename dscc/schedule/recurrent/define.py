"""A recurrent operator as a function that runs as it is: the loops of `writer.py` over scalars, on one thread.

x: (length, batch, directions * gates * hidden)    R: (directions, gates * hidden, hidden)    h, c: (directions,
batch, hidden)    lengths: (batch,)    p: (directions, 3 * hidden)    b: (directions, hidden)
scale: (directions, gates * hidden)    outputs: y (length, directions, batch, hidden); y_h, y_c as h
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx
from tvm.ir import Var

from dscc.schedule.code import Code, Flat, Index, index
from dscc.schedule.recurrent.cell import ATTRIBUTE, Cell
from dscc.schedule.recurrent.panels import Panels
from dscc.schedule.recurrent.writer import Plan, Writer

_OPAQUE = 8  # TVM's pattern kind of what nothing is fused with: the rule knows the parameters by position


def define(cell: Cell, dtype: str, weight_dtype: str) -> tirx.PrimFunc:
    """The function: `cell.operands`, then `cell.outputs`. Length and batch are symbolic.

    Args:
        dtype: float32 or float64.
        weight_dtype: of R; int8 where the cell has a scale.
    """
    length, batch = Var("length", "int64"), Var("batch", "int64")
    params = [
        tirx.decl_buffer([index(n) for n in shape], kind, name)
        for name, shape, kind in _signature(cell, dtype, weight_dtype, length, batch)
    ]
    code = Code()
    flats = views(code, cell, params)
    if cell.reset_after or cell.kind != "GRU":
        gates: tuple[tuple[int, ...], ...] = (tuple(range(cell.gates)),)
    else:
        gates = ((0, 1), (2,))
    phases = tuple(Panels(some, cell.hidden, 1, 1) for some in gates)
    Writer(code, cell, flats, length, batch, Plan(phases, False, (1,) * len(phases), None)).write()
    func = tirx.PrimFunc(params, code.stmt())
    return func.with_attrs({ATTRIBUTE: cell.text(), "op_pattern": _OPAQUE, "tirx.noalias": True})


def views(code: Code, cell: Cell, params: Sequence[Var]) -> dict[str, Flat]:
    """The parameters by name, as one-dimensional."""
    names = [*cell.operands, *cell.outputs]
    return {name: code.view(param) for name, param in zip(names, params, strict=True)}


def _signature(
    cell: Cell, dtype: str, weight_dtype: str, length: Index, batch: Index
) -> list[tuple[str, tuple[Index, ...], str]]:
    directions, hidden = cell.directions, cell.hidden
    columns = cell.gates * hidden
    state = (directions, batch, hidden)
    known: dict[str, tuple[tuple[Index, ...], str]] = {
        "x": ((length, batch, directions * columns), dtype),
        "R": ((directions, columns, hidden), weight_dtype),
        "h": (state, dtype),
        "c": (state, dtype),
        "lengths": ((batch,), "int32"),
        "p": ((directions, 3 * hidden), dtype),
        "b": ((directions, hidden), dtype),
        "scale": ((directions, columns), dtype),
        "y": ((length, directions, batch, hidden), dtype),
        "y_h": (state, dtype),
        "y_c": (state, dtype),
    }
    return [(name, *known[name]) for name in (*cell.operands, *cell.outputs)]
