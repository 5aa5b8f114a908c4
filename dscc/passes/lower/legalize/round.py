"""Rounding as ONNX means it: to the nearest whole number, and to the even one of two."""

from __future__ import annotations

from tvm import relax, te, tirx

from dscc.passes.lower.legalize import legalize


@legalize("relax.round")
def round_even(bb: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """x: any shape. Not TVM's `round`: rules know `nearbyint`, and keep it in vectors."""

    def compute(x: te.Tensor) -> te.Tensor:
        return te.compute(x.shape, lambda *i: tirx.nearbyint(x(*i)), name="round")

    return bb.call_te(compute, call.args[0], primfunc_name_hint="round")
