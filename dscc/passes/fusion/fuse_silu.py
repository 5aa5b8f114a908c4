"""Fuse the product of a value and its sigmoid, as exporters write SiLU (Swish), into one operator.

    R.multiply(x, R.sigmoid(x))  ->  R.nn.silu(x)

The sigmoid may be on either side (Elfwing, Uchibe and Doya 2017, arXiv:1702.03118).
"""

from __future__ import annotations

from tvm import relax
from tvm.relax.dpl import DFPattern, is_op

from dscc.passes.rewrite import RewritePass


class FuseSilu(RewritePass):
    """One operator for `x * sigmoid(x)`."""

    name = "fuse-silu"

    def pattern(self, x: DFPattern) -> DFPattern:
        return is_op("relax.multiply")(x, is_op("relax.sigmoid")(x))

    def rewrite(self, x: relax.Expr) -> relax.Expr:
        return relax.op.nn.silu(x)
