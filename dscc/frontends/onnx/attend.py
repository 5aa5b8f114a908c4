"""Attention as the operators that have it share it, from heads to mixed values.

    softmax(cap(scale * q k^T) + bias) v      cap(x) = softcap * tanh(x / softcap)

One operator of Relax where it has the parts asked for; it never writes the matrix of scores, and its keys may have
fewer heads. Otherwise products and a softmax.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm.relax import op as R

from dscc.frontends.onnx.compose import Standard
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.values import Dim, Value, static

LOWEST = float(np.finfo(np.float32).min)


@dataclass(frozen=True)
class Scores:
    """How scores are made of products.

    Attributes:
        bias: is added to the scores: float32 (batch or 1, heads or 1, queries or 1, keys).
        causal: "TopLeft" if query i sees the keys up to i, "BottomRight" if up to i + keys - queries; else None.
        softcap: 0 for none.
        sink: (heads,), the score of one more key, whose value is 0.
        keep: "" or which scores are a second result: "raw" as the products are scaled, "biased" as the softmax gets
        them, "weights" as it leaves them.
    """

    scale: float
    bias: Value | None = None
    causal: str | None = None
    softcap: float = 0.0
    sink: Value | None = None
    keep: str = ""


def attend(node: Node, q: Value, k: Value, v: Value, how: Scores) -> tuple[Value, Value | None]:
    """Mixed values (batch, queries, heads, size of a value) and the scores that are to be kept (batch, heads, queries,
    keys); half types are computed in float32.

    Args:
        q: (batch, queries, heads, size); k: (batch, keys, groups, size); v: (batch, keys, groups, size of a value),
        where each group of keys serves heads / groups heads.
    """
    op, dtype = Standard(node), q.dtype
    if dtype in ("float16", "bfloat16"):
        wide = [op.cast(x, "float32") for x in (q, k, v)]
        out, kept = attend(node, wide[0], wide[1], wide[2], how)
        return op.cast(out, dtype), None if kept is None else op.cast(kept, dtype)
    sizes = [static(q.shape[3]), static(v.shape[3])]
    if how.softcap or how.sink is not None or how.keep or None in sizes or dtype != "float32":
        return _spelled_out(node, op, q, k, v, how)
    bias = _fitted(node, op, how.bias, q, k)
    return node.value(
        R.nn.attention(q.expr, k.expr, v.expr, None if bias is None else bias.expr, how.scale, how.causal)
    ), None


def _fitted(node: Node, op: Standard, bias: Value | None, q: Value, k: Value) -> Value | None:
    """The bias with each dimension 1 or proved to be the right one."""
    if bias is None:
        return None
    wanted = [q.shape[0], q.shape[2], q.shape[1], k.shape[1]]
    last = node.dims.equal(bias.shape[3], wanted[3])
    if last and all(static(d) == 1 or node.dims.equal(d, w) for d, w in zip(bias.shape, wanted, strict=True)):
        return bias
    return op.Expand(
        bias,
        [w if static(d) != 1 or axis == 3 else 1 for axis, (d, w) in enumerate(zip(bias.shape, wanted, strict=True))],
    )


def _spelled_out(node: Node, op: Standard, q: Value, k: Value, v: Value, how: Scores) -> tuple[Value, Value | None]:
    batch, queries, heads, size = q.shape
    keys, groups = k.shape[1], k.shape[2]
    share = node.dims.floordiv(heads, groups)
    whole = [batch, heads, queries, keys]
    rows = op.Reshape(op.Transpose(q, perm=[0, 2, 1, 3]), [batch, groups, node.dims.product([share, queries]), size])
    scores = op.Mul(op.MatMul(rows, op.Transpose(k, perm=[0, 2, 3, 1])), how.scale)
    scores = op.Reshape(scores, whole)
    kept = {"raw": scores}
    if how.softcap:
        scores = op.Mul(op.Tanh(op.Div(scores, how.softcap)), how.softcap)
    if how.bias is not None:
        scores = op.Add(scores, op.cast(how.bias, q.dtype))
    if how.causal:
        ahead = node.dims.simplify(keys - queries) if how.causal == "BottomRight" else 0
        last = op.Unsqueeze(op.Add(positions(node, queries), node.symbolic(np.array(ahead, dtype=object))), [1])
        scores = op.Where(op.LessOrEqual(positions(node, keys), last), scores, np.asarray(LOWEST, q.dtype))
    kept["biased"] = scores
    weights = op.Softmax(scores, axis=-1) if how.sink is None else _with_sink(op, scores, how.sink)
    kept["weights"] = weights
    mixed = op.MatMul(
        op.Reshape(weights, [batch, groups, node.dims.product([share, queries]), keys]),
        op.Transpose(v, perm=[0, 2, 1, 3]),
    )
    out = op.Transpose(op.Reshape(mixed, [batch, heads, queries, v.shape[3]]), perm=[0, 2, 1, 3])
    return out, kept.get(how.keep)


def _with_sink(op: Standard, scores: Value, sink: Value) -> Value:
    """Softmax with one more element in each row, of score `sink` (heads,), which is left out of the result."""
    extra = op.Reshape(op.cast(sink, scores.dtype), [1, sink.shape[0], 1, 1])
    most = op.Max(op.ReduceMax(scores, [-1], keepdims=1), extra)
    powers = op.Exp(op.Sub(scores, most))
    return op.Div(powers, op.Add(op.ReduceSum(powers, [-1], keepdims=1), op.Exp(op.Sub(extra, most))))


def positions(node: Node, count: Dim) -> Value:
    """0 to count - 1, as int64."""
    return Standard(node).Range(np.int64(0), node.symbolic(np.array(count, dtype=object)), np.int64(1))


def split_heads(node: Node, x: Value, heads: int) -> Value:
    """(batch, sequence, heads * size) -> (batch, sequence, heads, size)."""
    size = node.dims.floordiv(x.shape[2], heads)
    return Standard(node).Reshape(x, [x.shape[0], x.shape[1], heads, size])


def merge_heads(node: Node, x: Value) -> Value:
    """(batch, sequence, heads, size) -> (batch, sequence, heads * size)."""
    return Standard(node).Reshape(x, [*x.shape[:2], node.dims.product(x.shape[2:])])
