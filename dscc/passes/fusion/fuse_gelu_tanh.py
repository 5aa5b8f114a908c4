"""Fuse the approximation of GELU by tanh into one operator.

    0.5 * x * (1 + tanh(sqrt(2/pi) * (x + 0.044715 * x ** 3)))  ->  R.nn.gelu_tanh(x)

The cube may be a power or products in any order, the half may stand at any of the factors.
"""

from __future__ import annotations

import math
from typing import Any

from tvm import relax
from tvm.relax.dpl import DFPattern, is_op

from dscc.passes.rewrite import RewritePass
from dscc.passes.values import unlike


class FuseGeluTanh(RewritePass):
    """One operator for GELU by way of tanh."""

    name = "fuse-gelu-tanh"

    def pattern(self, x: Any, three: Any, bend: Any, slope: Any, one: Any, half: Any) -> DFPattern:
        multiply, add = is_op("relax.multiply"), is_op("relax.add")
        cube = is_op("relax.power")(x, three) | multiply(multiply(x, x), x)
        bent = multiply(cube, bend) | multiply(x, multiply(x, multiply(x, bend)))
        inner = multiply(add(x, bent), slope)
        factored = multiply(multiply(x, add(multiply(multiply(x, x), bend), one)), slope)
        gate = add(is_op("relax.tanh")(inner | factored), one)
        return multiply(multiply(x, half), gate) | multiply(multiply(x, gate), half) | multiply(x, multiply(gate, half))

    def check(self, three: Any, bend: Any, slope: Any, one: Any, half: Any) -> str | None:
        wanted = ((three, 3.0), (bend, 0.044715), (slope, math.sqrt(2 / math.pi)), (one, 1.0), (half, 0.5))
        return unlike(wanted, relative=1e-3)

    def rewrite(self, x: relax.Expr) -> relax.Expr:
        return relax.op.nn.gelu_tanh(x)
