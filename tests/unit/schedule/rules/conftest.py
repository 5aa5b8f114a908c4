"""One operator, or a few that fuse, lowered to one function and scheduled by one rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
import tvm
from tvm import relax, tirx

from dscc import kernel_pipeline
from dscc.codegen import CALLING, LOWERING, TVMS_MEMORY
from dscc.passes.base import PassContext
from dscc.passes.lower import legalize
from dscc.passes.lower.fuse_operators import FuseOperators
from dscc.passes.lower.legalize_operators import LegalizeOperators
from dscc.passes.lower.schedule_kernels import ScheduleKernels
from dscc.schedule.base import Rule, Scheduled
from dscc.schedule.decisions import Choice, Decisions
from dscc.schedule.machine import Machine
from dscc.schedule.rules.fallback import Fallback

from ..modules import main

MACHINES = {
    "baseline": Machine(),
    "avx2": Machine(vector_bits=256, vector_registers=16),
    "avx512": Machine(vector_bits=512, vector_registers=32, embedded_broadcast=True),
}


def _compile(
    rule: Rule,
    shapes: dict[str, tuple[int | str, ...]],
    body: Callable[..., relax.Expr],
    machine: Machine,
    constants: Sequence[str] = (),
    chosen: Mapping[str, Choice] | None = None,
) -> Callable[..., np.ndarray]:
    """What `rule` makes of the one function that `body` lowers to; the parameters in `constants` may be packed, and
    `chosen` is what a tuner chose.
    """
    mod = relax.transform.LegalizeOps(legalize.table())(main(shapes, body))
    mod = tvm.transform.Sequential(
        [
            relax.transform.AnnotateTIROpPattern(),
            relax.transform.FuseOps(fuse_opt_level=2),
            relax.transform.FuseTIR(),
            relax.transform.DeadCodeElimination(),
        ]
    )(mod)
    funcs = {gvar: func for gvar, func in mod.functions.items() if isinstance(func, tirx.PrimFunc)}
    funcs = {gvar: func for gvar, func in funcs.items() if not relax.analysis.has_reshape_pattern(func)}
    assert len(funcs) == 1, f"not one function: {[gvar.name_hint for gvar in funcs]}"
    ((gvar, func),) = funcs.items()
    names = list(shapes)
    plan = rule.apply(func, frozenset(names.index(name) for name in constants), machine, Decisions(chosen))
    assert plan is not None, f"refused:\n{func.script()}"
    if constants:
        return _kernel(plan)
    mod.update_func(gvar, plan.func.with_attr("tirx.is_scheduled", True))
    executable = tvm.compile(mod, tvm.target.Target("llvm"))
    vm = relax.VirtualMachine(executable, tvm.cpu())

    def run(*arrays: np.ndarray) -> np.ndarray:
        return vm["main"](*(tvm.runtime.tensor(a) for a in arrays)).numpy()

    return run


def _kernel(plan: Scheduled) -> Callable[..., np.ndarray]:
    """The scheduled function itself: its packed parameters have other shapes than `main` knows."""
    func = plan.func.with_attr("tirx.is_scheduled", True).with_attr("global_symbol", "kernel")
    library = tvm.compile(tvm.IRModule({"kernel": func}), tvm.target.Target("llvm"))
    output = plan.func.params[-1]

    def run(*arrays: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        packed = [plan.packings[i].pack(a) if i in plan.packings else a for i, a in enumerate(arrays)]
        out = tvm.runtime.tensor(np.full(shape, np.nan, str(output.dtype)))
        library["kernel"](*(tvm.runtime.tensor(np.ascontiguousarray(a)) for a in packed), out)
        return out.numpy()

    return run


def _compiler(machine: Machine) -> Callable[..., Callable[..., np.ndarray]]:
    return lambda rule, shapes, body: _compile(rule, shapes, body, machine)


@pytest.fixture
def compile_one():
    """`compile_one(rule, {"x": ("n", 64)}, lambda bb, x: ...)(x)`: what the scheduled function returns.

    The code is generated for any x86 processor: vectors of 16 lanes are only split.
    """
    return _compiler(MACHINES["avx512"])


@pytest.fixture(params=MACHINES)
def compile_any(request):
    """`compile_one` for the machines that differ in their vectors."""
    return _compiler(MACHINES[request.param])


@pytest.fixture(params=["baseline", "avx512"])
def compile_packed(request):
    """`compile_packed(rule, {"x": ("n", 64), "w": (64, 8)}, lambda bb, x, w: ..., ["w"])(x, w, shape=...)`.

    The parameters named in the list are constants, which the rule may have packed.
    """

    def fixed(rule, shapes, body, constants, chosen=None):
        return _compile(rule, shapes, body, MACHINES[request.param], constants, chosen)

    return fixed


@pytest.fixture
def compile_constants():
    """`compile_constants(rule, {"x": ("n", 64)}, lambda bb, x: ...)(x)`, by the way of a compilation: lowering passes,
    constants in the body packed by the rule (the last rule takes what it refuses), one executable."""
    return _compile_module


def _compile_module(
    rule: Rule, shapes: dict[str, tuple[int | str, ...]], body: Callable[..., relax.Expr]
) -> Callable[..., np.ndarray]:
    ctx = PassContext(_OneRule(rule))  # type: ignore[arg-type]
    mod = main(shapes, body)
    for made in (LegalizeOperators(), FuseOperators(), ScheduleKernels()):
        mod = made.run(mod, ctx)
    assert any(f": {rule.name}" in remark for remark in ctx.remarks), f"not taken: {ctx.remarks}"
    lower = tvm.transform.Sequential([make() for make in (*CALLING, *TVMS_MEMORY, *LOWERING)])
    kernels = (func for func in mod.functions.values() if isinstance(func, tirx.PrimFunc))
    passes = "default" if any(map(kernel_pipeline.has_blocks, kernels)) else kernel_pipeline.NAME
    executable = relax.build(mod, tvm.target.Target("llvm"), relax_pipeline=lower, tir_pipeline=passes)
    vm = relax.VirtualMachine(executable, tvm.cpu())
    return lambda *arrays: vm["main"](*(tvm.runtime.tensor(a) for a in arrays)).numpy()


class _OneRule:
    """A target with one rule and the last one."""

    tvm_target = tvm.target.Target("llvm")
    machine = MACHINES["avx512"]
    spells_out_math = True

    def __init__(self, rule: Rule):
        self.rules = (rule, Fallback())
        self.host = self
