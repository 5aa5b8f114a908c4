"""Attention as a plain definition of a few blocks, with attributes from which a rule knows what it computes.

    dscc.attention = "softmax(scale * q k^T + bias) v"     parameters: q, k, v, perhaps bias, and the output
    dscc.attention.scale, dscc.attention.causal            a float; "", "TopLeft" or "BottomRight"

    q: (batch, queries, heads, size)    k: (batch, keys, groups, size)    v: (batch, keys, groups, size of a value)
    bias: (batch or 1, heads or 1, queries or 1, keys)    output: (batch, queries, heads, size of a value)

Head h reads group h // (heads / groups).
"""

from __future__ import annotations

import math

from tvm import relax, te, tirx

from dscc.errors import PassError
from dscc.passes.lower.legalize import legalize

_OPAQUE = 8  # TVM's pattern kind of what nothing is fused with: the rule knows the parameters by position
_LOWEST = -3.4028234663852886e38


@legalize("relax.nn.attention")
def attention(bb: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """softmax(scale * q k^T) v."""
    return _call(bb, call)


@legalize("relax.nn.attention_bias")
def attention_bias(bb: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """softmax(scale * q k^T + bias) v."""
    return _call(bb, call)


def _call(bb: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    if call.attrs.window_size is not None:
        raise PassError("pass 'legalize-operators': attention with window_size is not supported; leave it out")
    size = call.args[0].ty.shape[3]
    scale = call.attrs.scale
    value = float(scale.value) if scale is not None else 1.0 / math.sqrt(int(size))
    causal = "" if call.attrs.causal_mask is None else str(call.attrs.causal_mask)
    attrs = {
        "op_pattern": _OPAQUE,
        "dscc.attention": "softmax(scale * q k^T + bias) v",
        "dscc.attention.scale": tirx.FloatImm("float32", value),
        "dscc.attention.causal": causal,
    }

    def define(q: te.Tensor, k: te.Tensor, v: te.Tensor, *bias: te.Tensor) -> te.Tensor:
        return _define(q, k, v, bias[0] if bias else None, value, causal)

    return bb.call_te(define, *call.args, primfunc_attrs=attrs, primfunc_name_hint="attention")


def _define(q: te.Tensor, k: te.Tensor, v: te.Tensor, bias: te.Tensor | None, scale: float, causal: str) -> te.Tensor:
    # Scores and weights of halves are float32 on the way, as in the other reductions.
    dtype = "float32" if str(q.dtype) in ("float16", "bfloat16") else str(q.dtype)

    def wide(value: te.tensor.TensorSlice) -> tirx.Expr:
        return value if str(value.dtype) == dtype else value.astype(dtype)

    batch, queries, heads, size = q.shape
    keys, groups = k.shape[1], k.shape[2]
    share = heads // groups
    rows = (batch, heads, queries, keys)

    d = te.reduce_axis((0, size), name="d")
    dots = te.compute(
        rows, lambda b, h, i, j: te.sum(wide(q[b, i, h, d]) * wide(k[b, j, h // share, d]), axis=d), name="dots"
    )

    def score(b: tirx.Var, h: tirx.Var, i: tirx.Var, j: tirx.Var) -> tirx.Expr:
        value = dots[b, h, i, j] * tirx.const(scale, dtype)
        if bias is not None:
            at = [tirx.const(0, "int64") if _is_one(n) else x for n, x in zip(bias.shape, (b, h, i, j), strict=True)]
            value = value + wide(bias[tuple(at)])
        if not causal:
            return value
        return tirx.Select(j <= i + causal_offset(causal, queries, keys), value, tirx.const(_LOWEST, dtype))

    scores = te.compute(rows, score, name="scores")
    r = te.reduce_axis((0, keys), name="r")
    most = te.compute(rows[:3], lambda b, h, i: te.max(scores[b, h, i, r], axis=r), name="most")
    weights = te.compute(rows, lambda b, h, i, j: tirx.exp(scores[b, h, i, j] - most[b, h, i]), name="weights")
    s = te.reduce_axis((0, keys), name="s")
    total = te.compute(rows[:3], lambda b, h, i: te.sum(weights[b, h, i, s], axis=s), name="total")
    t = te.reduce_axis((0, keys), name="t")
    out = (batch, queries, heads, v.shape[3])
    mixed = te.compute(
        out, lambda b, i, h, e: te.sum(weights[b, h, i, t] * wide(v[b, t, h // share, e]), axis=t), name="mixed"
    )

    def share_of(b: tirx.Var, i: tirx.Var, h: tirx.Var, e: tirx.Var) -> tirx.Expr:
        value = mixed[b, i, h, e] / total[b, h, i]
        return value if dtype == str(q.dtype) else tirx.Cast(str(q.dtype), value)

    return te.compute(out, share_of, name="attention")


def causal_offset(causal: str, queries: tirx.Expr, keys: tirx.Expr) -> tirx.Expr:
    """Query i sees the keys up to i plus this: 0 for "TopLeft", the difference of the lengths for "BottomRight"."""
    return tirx.const(0, "int64") if causal == "TopLeft" else tirx.abs(keys - queries)


def _is_one(extent: tirx.Expr) -> bool:
    return isinstance(extent, tirx.IntImm) and int(extent.value) == 1
