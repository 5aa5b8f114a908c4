"""Let a product read its weights as they are stored, and convert them on the way.

    R.matmul(x, R.astype(w_int8, "float32"))  ->  R.call_tir(cls.matmul_of_int8, (x, w_int8))

The converted weight is never written to memory; the product's rule expands it panel by panel, in cache.
"""

from __future__ import annotations

from dataclasses import dataclass

import tvm
from tvm import relax, te, tirx
from tvm.ir import GenericConst
from tvm.relax.expr_functor import mutator

from dscc.passes.base import Pass, PassContext
from dscc.passes.mutate import Rewriter, mutated

_MATMUL, _ASTYPE = tvm.ir.Op.get("relax.matmul"), tvm.ir.Op.get("relax.astype")


@dataclass(frozen=True)
class FuseWeightCasts(Pass):
    """Conversions of constant weights of two dimensions become part of the matrix product that reads them."""

    name = "fuse-weight-casts"
    stage = "lower"

    def run(self, mod: tvm.IRModule, ctx: PassContext) -> tvm.IRModule:
        return mutated(mod, _Fuser(mod, ctx))


@mutator
class _Fuser(Rewriter):
    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = super().visit_call_(call)
        if call.op != _MATMUL or call.args[0].ty.ndim < 2:
            return call
        weight = self._stored(call.args[1])
        if weight is None or str(call.args[0].ty.dtype) != str(call.ty.dtype):
            return call
        self._ctx.remark(f"fuse-weight-casts: applied at a product of {call.args[0].ty} and {weight.ty}")
        return self.builder_.call_te(_product, call.args[0], weight, primfunc_name_hint=f"matmul_of_{weight.ty.dtype}")

    def _stored(self, expr: relax.Expr) -> GenericConst | None:
        """The constant matrix whose conversion `expr` is."""
        value = self._bound(expr)
        if not isinstance(value, relax.Call) or value.op != _ASTYPE:
            return None
        stored = value.args[0]
        return stored if isinstance(stored, GenericConst) and stored.ty.ndim == 2 else None


def _product(x: te.Tensor, weight: te.Tensor) -> te.Tensor:
    """x: (.., K), weight: (K, N) of another type; the result: (.., N) in the type of x."""
    k = te.reduce_axis((0, weight.shape[0]), name="k")

    def element(*at: tirx.Var) -> tirx.PrimExpr:
        *rows, column = at
        return te.sum(x[(*rows, k)] * weight[k, column].astype(x.dtype), axis=k)

    return te.compute((*x.shape[:-1], weight.shape[1]), element, name="matmul")
