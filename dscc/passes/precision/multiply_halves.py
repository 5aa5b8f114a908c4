"""Products of halves that were converted to float32 take the halves.

    R.matmul(R.astype(a, "float32"), R.astype(b, "float32"))  ->  R.matmul(a, b, out_dtype="float32")

Tensor cores multiply halves exactly and sum in float32: it is the same product, without the float32 copies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax
from tvm.ir import GenericConst
from tvm.relax.expr_functor import mutator

from dscc.elements import numpy_dtype
from dscc.passes.base import Pass, PassContext
from dscc.passes.mutate import Rewriter, mutated
from dscc.passes.values import dtype

_MATMUL, _ASTYPE = tvm.ir.Op.get("relax.matmul"), tvm.ir.Op.get("relax.astype")
_HALVES = ("float16", "bfloat16")


@dataclass(frozen=True)
class MultiplyHalves(Pass):
    """Matrix products of converted halves become products of halves."""

    name = "multiply-halves"
    stage = "lower"

    def run(self, mod: tvm.IRModule, ctx: PassContext) -> tvm.IRModule:
        return relax.transform.DeadCodeElimination()(mutated(mod, _Fuser(mod, ctx)))


@mutator
class _Fuser(Rewriter):
    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = super().visit_call_(call)
        if call.op != _MATMUL or dtype(call) != "float32":
            return call
        halves = [self._half(arg) for arg in call.args]
        found = {dtype(half) for half in halves if half is not None}
        if len(found) != 1:
            return call
        left, right = (
            self._exact(arg, *found) if half is None else half for arg, half in zip(call.args, halves, strict=True)
        )
        if left is None or right is None:
            return call
        self._ctx.remark(f"{MultiplyHalves.name}: applied at a product of {left.ty} and {right.ty}")
        return relax.op.matmul(left, right, out_dtype="float32")

    def _half(self, expr: relax.Expr) -> relax.Expr | None:
        """The half that `expr` is the conversion of."""
        value = self._bound(expr)
        if isinstance(value, GenericConst) and dtype(value) in _HALVES:
            return value
        if isinstance(value, relax.Call) and value.op == _ASTYPE and dtype(value.args[0]) in _HALVES:
            return value.args[0]
        return None

    def _exact(self, expr: relax.Expr, to: str) -> relax.Expr | None:
        """A float32 constant all of whose elements are halves, as when a conversion has been computed before."""
        if not isinstance(expr, GenericConst) or dtype(expr) != "float32":
            return None
        values = expr.value.numpy()
        with np.errstate(over="ignore"):
            half = values.astype(numpy_dtype(to))
        return relax.const(half, to) if np.array_equal(half.astype(np.float32), values, equal_nan=True) else None
