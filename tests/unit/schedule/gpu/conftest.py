"""Rules of devices, executed by Intel's OpenCL runtime for processors."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm import relax

from dscc import codegen, library
from dscc.errors import TargetError
from dscc.passes.base import PassContext
from dscc.passes.lower.fuse_operators import FuseOperators
from dscc.passes.lower.legalize_operators import LegalizeOperators
from dscc.passes.lower.lift_constants import lift_constants
from dscc.passes.lower.schedule_kernels import ScheduleKernels
from dscc.runtime import ffi, opencl
from dscc.runtime.opencl import locate
from dscc.schedule.base import Rule
from dscc.schedule.gpu.rules.elementwise import Elementwise
from dscc.targets.oneapi.target import OneAPI

from ..modules import main


class _OneRule(OneAPI):
    """The processor with one rule and the last one."""

    def __init__(self, rule: Rule):
        super().__init__("cpu")
        self._rules = (rule, Elementwise())

    @property
    def rules(self) -> tuple[Rule, ...]:
        return self._rules


@cache
def _missing() -> str:
    try:
        locate.library("cpu")
    except TargetError as err:
        return str(err)
    return ""


@pytest.fixture
def on_device():
    """`on_device(rule, {"x": ("n", 64)}, lambda bb, x: ...)(x)`: what the function returns that the rule must take."""
    if _missing():
        pytest.skip(_missing())
    return _compile


def _compile(
    rule: Rule, shapes: dict[str, tuple[int | str, ...]], body: Callable[..., relax.Expr]
) -> Callable[..., np.ndarray]:
    target = _OneRule(rule)
    ctx = PassContext(target)
    mod = main(shapes, body)
    for made in (LegalizeOperators(), FuseOperators(), ScheduleKernels()):
        mod = made.run(mod, ctx)
    assert any(f": {rule.name}" in remark for remark in ctx.remarks), f"not taken: {ctx.remarks}"
    lifted = lift_constants(mod)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.so"
        target.link(codegen.build(lifted.mod, target, Path(folder)), path, library.sources(lifted.mod))
        opencl.open_device(ffi.runtime(), target.device, "")
        device = tvm.device("opencl")
        vm = relax.VirtualMachine(tvm.runtime.load_module(str(path)), [device, tvm.cpu()])
    weights = [tvm.runtime.tensor(weight, device) for weight in lifted.weights.values()]
    return lambda *arrays: vm["main"](*(tvm.runtime.tensor(a, device) for a in arrays), *weights).numpy()
