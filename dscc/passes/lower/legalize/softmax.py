"""Softmax: TVM's definition, marked as a reduction so that what scales and masks its input is fused in front of it."""

from __future__ import annotations

from tvm import relax, topi

from dscc.passes.lower.legalize import legalize

# TVM fuses elementwise producers into a "communicative reduce" (3), which its own analysis does not find in a softmax.
_REDUCE = {"op_pattern": 3}


@legalize("relax.nn.softmax")
def softmax(bb: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """exp(x - max) / sum, over one axis."""
    return bb.call_te(topi.nn.softmax, call.args[0], call.attrs.axis, primfunc_attrs=_REDUCE)


@legalize("relax.nn.log_softmax")
def log_softmax(bb: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """x - max - log(sum), over one axis."""
    return bb.call_te(topi.nn.log_softmax, call.args[0], call.attrs.axis, primfunc_attrs=_REDUCE)
