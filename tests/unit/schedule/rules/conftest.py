"""One operator, or a few that fuse, lowered to one function and scheduled by one rule."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tvm
from tvm import relax, tirx

from dscc.passes.lower import legalize
from dscc.schedule.base import Rule
from dscc.schedule.machine import Machine

MACHINES = {
    "baseline": Machine(),
    "avx2": Machine(vector_bits=256, vector_registers=16),
    "avx512": Machine(vector_bits=512, vector_registers=32, embedded_broadcast=True),
}


def _compile(
    rule: Rule, shapes: dict[str, tuple[int | str, ...]], body: Callable[..., relax.Expr], machine: Machine
) -> Callable[..., np.ndarray]:
    symbols: dict[str, tirx.Var] = {}

    def dim(d: int | str) -> int | tirx.Var:
        return symbols.setdefault(d, tirx.Var(d, "int64")) if isinstance(d, str) else d

    params = [relax.Var(n, relax.TensorType([dim(d) for d in s], "float32")) for n, s in shapes.items()]
    bb = relax.BlockBuilder()
    with bb.function("main", params):
        with bb.dataflow():
            out = bb.emit_output(body(bb, *params))
        bb.emit_func_output(out)
    mod = relax.transform.LegalizeOps(legalize.table())(bb.finalize())
    mod = tvm.transform.Sequential(
        [
            relax.transform.AnnotateTIROpPattern(),
            relax.transform.FuseOps(fuse_opt_level=2),
            relax.transform.FuseTIR(),
            relax.transform.DeadCodeElimination(),
        ]
    )(mod)
    funcs = {gvar: func for gvar, func in mod.functions.items() if isinstance(func, tirx.PrimFunc)}
    assert len(funcs) == 1, f"not one function: {[gvar.name_hint for gvar in funcs]}"
    ((gvar, func),) = funcs.items()
    plan = rule.apply(func, frozenset(), machine)
    assert plan is not None, f"refused:\n{func.script()}"
    mod.update_func(gvar, plan.func.with_attr("tirx.is_scheduled", True))
    executable = tvm.compile(mod, tvm.target.Target("llvm"))
    vm = relax.VirtualMachine(executable, tvm.cpu())

    def run(*arrays: np.ndarray) -> np.ndarray:
        return vm["main"](*(tvm.runtime.tensor(a) for a in arrays)).numpy()

    return run


@pytest.fixture(params=["baseline", "avx512"])
def compile_one(request):
    """`compile_one(rule, {"x": ("n", 64)}, lambda bb, x: ...)(x)`: what the scheduled function returns.

    The code is generated for any x86 processor: vectors of 16 lanes are only split.
    """

    def fixed(rule, shapes, body):
        return _compile(rule, shapes, body, MACHINES[request.param])

    return fixed
