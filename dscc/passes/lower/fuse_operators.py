"""Put elementwise and broadcast consumers into the TIR function of what they consume.

    lv = R.call_tir(cls.matmul, (x, w)); lv1 = R.call_tir(cls.add, (lv, b))  ->  lv1 = R.call_tir(cls.fused_matmul_add, (x, w, b))
"""

from __future__ import annotations

from dataclasses import dataclass

import tvm
from tvm import relax

from dscc.passes.base import Pass, PassContext


@dataclass(frozen=True)
class FuseOperators(Pass):
    """Producer and consumer TIR functions become one, as far as TVM's operator patterns allow."""

    name = "fuse-operators"
    stage = "lower"

    def run(self, mod: tvm.IRModule, ctx: PassContext) -> tvm.IRModule:
        return tvm.transform.Sequential(
            [
                relax.transform.AnnotateTIROpPattern(),
                relax.transform.FuseOps(fuse_opt_level=2),
                relax.transform.FuseTIR(),
                # Reshapes that nothing was fused with become views. It reads block structure, so it goes before the rules.
                relax.transform.RewriteDataflowReshape(),
                relax.transform.DeadCodeElimination(),
            ]
        )(mod)
