"""Modules for the tests of rules."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import tvm
from tvm import relax, tirx

from dscc import targets
from dscc.schedule.machine import Machine


def main(shapes: dict[str, tuple[int | str, ...]], body: Callable[..., relax.Expr]) -> tvm.IRModule:
    """A module whose `main` computes `body` of float32 inputs; a str is a symbolic dimension."""
    symbols: dict[str, tirx.Var] = {}

    def dim(d: int | str) -> int | tirx.Var:
        return symbols.setdefault(d, tirx.Var(d, "int64")) if isinstance(d, str) else d

    params = [relax.Var(n, relax.TensorType([dim(d) for d in s], "float32")) for n, s in shapes.items()]
    bb = relax.BlockBuilder()
    with bb.function("main", params):
        with bb.dataflow():
            out = bb.emit_output(body(bb, *params))
        bb.emit_func_output(out)
    return bb.finalize()


def on_this_machine(machine: Machine) -> Machine:
    """`machine`, whose code is run here; the test is skipped where an instruction set of it is missing."""
    if missing := machine.features - targets.resolve(None).machine.features:
        pytest.skip(f"this machine has no {', '.join(sorted(missing))}")
    return machine
