"""log(1 + e^x) without overflow, and to rounding where e^x is small beside 1: max(x, 0) + log1p(e^-|x|)."""

from __future__ import annotations

from tvm import relax, te, tirx

from dscc.passes.lower.legalize import legalize


@legalize("relax.nn.softplus")
def softplus(bb: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """x: any shape, floating point, with beta = 1; TVM's definition is log(1 + e^x), 0 from x = -17 on."""
    if call.attrs.beta != 1.0:
        return call

    def at(x: tirx.PrimExpr) -> tirx.PrimExpr:
        zero = tirx.const(0.0, x.ty.dtype)
        return tirx.max(x, zero) + tirx.log1p(tirx.exp(zero - tirx.abs(x)))

    def compute(x: te.Tensor) -> te.Tensor:
        return te.compute(x.shape, lambda *i: at(x(*i)), name="softplus")

    return bb.call_te(compute, call.args[0], primfunc_name_hint="softplus")
