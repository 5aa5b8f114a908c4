"""Remove bindings, and functions, that no result depends on.

    lv = R.exp(x)
    gv = R.add(x, x)   ->   gv = R.add(x, x)

TVM's pass does the work; this one also says how much there was.
"""

from __future__ import annotations

from dataclasses import dataclass

import tvm
from tvm import relax

from dscc.passes.base import Pass, PassContext
from dscc.passes.graph import without_unreached


@dataclass(frozen=True)
class EliminateDeadCode(Pass):
    """What nobody reads is not computed."""

    name = "eliminate-dead-code"

    def run(self, mod: tvm.IRModule, ctx: PassContext) -> tvm.IRModule:
        entries = [gvar.name_hint for gvar, func in mod.functions_items() if isinstance(func, relax.Function)]
        before = _bindings(mod)
        mod = relax.transform.DeadCodeElimination(["main"] if "main" in entries else entries)(mod)
        mod = relax.transform.CanonicalizeBindings()(mod)
        if "main" in entries:
            mod = without_unreached(mod)
        removed = before - _bindings(mod)
        if removed:
            ctx.remark(f"{self.name}: removed {removed} bindings")
        return mod


def _bindings(mod: tvm.IRModule) -> int:
    functions = [func for _, func in mod.functions_items() if isinstance(func, relax.Function)]
    return sum(len(block.bindings) for func in functions for block in func.body.blocks)
