"""Fuse GELU as exporters write it, with the error function, into one operator.

    R.multiply(R.multiply(x, R.add(R.erf(R.multiply(x, sqrt(1/2))), 1)), 1/2)  ->  R.nn.gelu(x)

The half may stand at x, at the sum or at the product, and the root may divide (Hendrycks and Gimpel 2016,
arXiv:1606.08415).
"""

from __future__ import annotations

import math
from typing import Any

from tvm import relax
from tvm.relax.dpl import DFPattern, is_op

from dscc.passes.rewrite import RewritePass
from dscc.passes.values import unlike


class FuseGelu(RewritePass):
    """One operator for `x / 2 * (1 + erf(x / sqrt(2)))`."""

    name = "fuse-gelu"

    def pattern(self, x: Any, inverse_root: Any, root_of_two: Any, one: Any, half: Any, two: Any) -> DFPattern:
        multiply, divide = is_op("relax.multiply"), is_op("relax.divide")
        gate = is_op("relax.add")(is_op("relax.erf")(multiply(x, inverse_root) | divide(x, root_of_two)), one)
        product = multiply(x, gate)
        return (
            multiply(product, half)
            | divide(product, two)
            | multiply(x, multiply(gate, half))
            | multiply(multiply(x, half), gate)
            | multiply(divide(x, two), gate)
        )

    def check(self, inverse_root: Any, root_of_two: Any, one: Any, half: Any, two: Any) -> str | None:
        wanted = ((inverse_root, math.sqrt(0.5)), (root_of_two, math.sqrt(2)), (one, 1.0), (half, 0.5), (two, 2.0))
        return unlike(wanted, relative=1e-3)

    def rewrite(self, x: relax.Expr) -> relax.Expr:
        return relax.op.nn.gelu(x)
