"""Turn Relax operators into calls of TIR functions.

    R.nn.relu(x)  ->  R.call_tir(cls.relu, (x,), ...)

The definitions in `dscc.passes.lower.legalize` go before TVM's own.
"""

from __future__ import annotations

from dataclasses import dataclass

import tvm
from tvm import relax

from dscc.passes.base import Pass, PassContext
from dscc.passes.lower import legalize
from dscc.passes.lower.legalize import attention
from dscc.targets.device import DeviceTarget


@dataclass(frozen=True)
class LegalizeOperators(Pass):
    """Operators to TIR functions, one function per operator and shape."""

    name = "legalize-operators"
    stage = "lower"

    def run(self, mod: tvm.IRModule, ctx: PassContext) -> tvm.IRModule:
        with ctx.target.host.tvm_target:  # the definitions are the same for devices; TVM's own differ
            own = legalize.table() | ({} if isinstance(ctx.target, DeviceTarget) else attention.STORED)
            return relax.transform.LegalizeOps(own)(mod)
