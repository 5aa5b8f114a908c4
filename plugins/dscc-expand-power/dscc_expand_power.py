"""Turn integer powers, which exporters write for squares and cubes, into multiplications.

    R.power(x, 2)   ->  R.multiply(x, x)
    R.power(x, -3)  ->  1 / ((x * x) * x)

A power is a call into the mathematical library per element, some twenty times the cost of a multiplication.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tvm import relax
from tvm.ir import GenericConst
from tvm.relax.dpl import DFPattern, is_op

import dscc


@dataclass(frozen=True)
class ExpandPower(dscc.RewritePass):
    """Multiplications for `x ** n`, where n is a constant integer of magnitude up to `limit`."""

    name: ClassVar[str] = "expand-power"
    # Each multiplication rounds once: half a unit in the last place, for about limit / 2 of them.
    tolerance: ClassVar[float] = 1e-6

    limit: int = 8

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError(f"limit must be at least 1, got {self.limit}")

    def pattern(self, x: DFPattern, exponent: DFPattern) -> DFPattern:
        return is_op("relax.power")(x, exponent)

    def check(self, exponent: relax.Expr) -> str | None:
        if not isinstance(exponent, GenericConst):
            return "the exponent is not a constant"
        values = exponent.value.numpy()
        if values.size != 1:
            return f"the exponent has {values.size} elements"
        power = float(values.item())
        if not power.is_integer() or not 1 <= abs(power) <= self.limit:
            return f"the exponent is {power:g}, not an integer from 1 to {self.limit}"
        return None

    def rewrite(self, x: relax.Expr, exponent: relax.Expr) -> relax.Expr:
        constant = exponent.value.numpy()
        power = int(constant.item())
        product = _product(x, abs(power))
        return product if power > 0 else relax.op.divide(relax.const(1, constant.dtype.name), product)


def _product(x: relax.Expr, count: int) -> relax.Expr:
    """`x` multiplied `count` times, by repeated squaring."""
    if count == 1:
        return x
    half = _product(x, count // 2)
    square = relax.op.multiply(half, half)
    return relax.op.multiply(square, x) if count % 2 else square


@dscc.hookimpl
def dscc_passes() -> list[type[dscc.Pass]]:
    """The one pass of this package."""
    return [ExpandPower]
