"""Attention as a plain definition of a few blocks, with attributes from which a rule knows what it computes.

    dscc.attention = "softmax(scale * q k^T + bias) v"     parameters: q, k, v, perhaps bias, and the output
    dscc.attention.scale, dscc.attention.causal            a float; "", "TopLeft" or "BottomRight"
    dscc.attention.stored                                  "", "k", "v" or "kv"

    q: (batch, queries, heads, size)    k: (batch, keys, groups, size)    v: (batch, keys, groups, size of a value)
    bias: (batch or 1, heads or 1, queries or 1, keys)    output: (batch, queries, heads, size of a value)

Head h reads group h // (heads / groups). Operands that are `stored` are permuted, (batch, groups, keys, size), as
models keep them from one token to the next: on processors a permutation in front of the operator becomes part of it.
"""

from __future__ import annotations

import math

import tvm
from tvm import relax, te, tirx, topi

from dscc.errors import PassError
from dscc.passes.lower.legalize import Legalization, legalize
from dscc.schedule.heads import LOWEST

_OPAQUE = 8  # TVM's pattern kind of what nothing is fused with: the rule knows the parameters by position
_CALL_TIR = tvm.ir.Op.get("relax.call_tir")
_PERMUTATION = "dscc.permutation"


@legalize("relax.permute_dims")
def permute_dims(bb: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """TVM's definition, which says what it is."""
    rank = len(call.args[0].ty.shape)
    axes = [int(axis) for axis in call.attrs.axes or reversed(range(rank))]
    attrs = {_PERMUTATION: axes}
    return bb.call_te(topi.transpose, call.args[0], axes, primfunc_attrs=attrs, primfunc_name_hint="transpose")


@legalize("relax.nn.attention")
@legalize("relax.nn.attention_bias")
def attention(bb: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """softmax(scale * q k^T + bias) v; the bias may be missing."""
    return _call(bb, call, list(call.args), "")


def attention_as_stored(bb: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """The same, reading keys and values as they are in front of a permutation of heads and sequence."""
    args, stored = list(call.args), ""
    for place, name in ((1, "k"), (2, "v")):
        source = _unpermuted(bb, args[place])
        if source is not None:
            args[place], stored = source, stored + name
    return _call(bb, call, args, stored)


STORED: dict[str, Legalization] = {
    "relax.nn.attention": attention_as_stored,
    "relax.nn.attention_bias": attention_as_stored,
}
"""In the place of the definitions above, on processors."""


def _unpermuted(bb: relax.BlockBuilder, operand: relax.Expr) -> relax.Expr | None:
    """What was permuted to `operand`."""
    value = bb.lookup_binding(operand) if isinstance(operand, relax.Var) else None
    if not isinstance(value, relax.Call) or value.op != _CALL_TIR:
        return None
    func = bb.get()[value.args[0]]
    axes = [int(axis) for axis in func.attrs.get(_PERMUTATION, ())] if func.attrs else []
    return value.args[1].fields[0] if axes == [0, 2, 1, 3] else None


def _call(bb: relax.BlockBuilder, call: relax.Call, args: list[relax.Expr], stored: str) -> relax.Expr:
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
        "dscc.attention.stored": stored,
    }

    def define(q: te.Tensor, k: te.Tensor, v: te.Tensor, *bias: te.Tensor) -> te.Tensor:
        return _define(q, k, v, bias[0] if bias else None, value, causal, stored)

    return bb.call_te(define, *args, primfunc_attrs=attrs, primfunc_name_hint="attention")


def _define(
    q: te.Tensor, k: te.Tensor, v: te.Tensor, bias: te.Tensor | None, scale: float, causal: str, stored: str
) -> te.Tensor:
    # Scores and weights of halves are float32 on the way, as in the other reductions.
    dtype = "float32" if str(q.dtype) in ("float16", "bfloat16") else str(q.dtype)

    def wide(value: te.tensor.TensorSlice) -> tirx.Expr:
        return value if str(value.dtype) == dtype else value.astype(dtype)

    batch, queries, heads, size = q.shape
    groups, keys = (k.shape[1], k.shape[2]) if "k" in stored else (k.shape[2], k.shape[1])
    share = heads // groups
    rows = (batch, heads, queries, keys)

    def key(b: tirx.Var, j: tirx.Var, g: tirx.Expr, at: tirx.Expr) -> tirx.Expr:
        return wide(k[b, g, j, at] if "k" in stored else k[b, j, g, at])

    def item(b: tirx.Var, j: tirx.Expr, g: tirx.Expr, e: tirx.Var) -> tirx.Expr:
        return wide(v[b, g, j, e] if "v" in stored else v[b, j, g, e])

    d = te.reduce_axis((0, size), name="d")
    dots = te.compute(
        rows, lambda b, h, i, j: te.sum(wide(q[b, i, h, d]) * key(b, j, h // share, d), axis=d), name="dots"
    )

    def score(b: tirx.Var, h: tirx.Var, i: tirx.Var, j: tirx.Var) -> tirx.Expr:
        value = dots[b, h, i, j] * tirx.const(scale, dtype)
        if bias is not None:
            at = [tirx.const(0, "int64") if _is_one(n) else x for n, x in zip(bias.shape, (b, h, i, j), strict=True)]
            value = value + wide(bias[tuple(at)])
        if not causal:
            return value
        return tirx.Select(j <= i + causal_offset(causal, queries, keys), value, tirx.const(LOWEST, dtype))

    scores = te.compute(rows, score, name="scores")
    r = te.reduce_axis((0, keys), name="r")
    most = te.compute(rows[:3], lambda b, h, i: te.max(scores[b, h, i, r], axis=r), name="most")
    weights = te.compute(rows, lambda b, h, i, j: tirx.exp(scores[b, h, i, j] - most[b, h, i]), name="weights")
    s = te.reduce_axis((0, keys), name="s")
    total = te.compute(rows[:3], lambda b, h, i: te.sum(weights[b, h, i, s], axis=s), name="total")
    t = te.reduce_axis((0, keys), name="t")
    out = (batch, queries, heads, v.shape[3])
    mixed = te.compute(
        out, lambda b, i, h, e: te.sum(weights[b, h, i, t] * item(b, t, h // share, e), axis=t), name="mixed"
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
