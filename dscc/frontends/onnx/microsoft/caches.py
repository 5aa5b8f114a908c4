"""Caches of keys and values: what comes next is written behind what each sequence of the batch has so far."""

from __future__ import annotations

from typing import Any

from tvm import te, tirx
from tvm.relax import Expr

from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.shapes import int64, shape_expr
from dscc.frontends.onnx.values import Dim, Value


def append(node: Node, past: Value | None, new: Value, starts: Value, length: Dim, keep: bool = False) -> Value:
    """The cache with `new` written into it: (batch, heads, length, size).

    Args:
        past: (batch, heads, room, size), or None for an empty one. new: (batch, sequence, heads, size).
        starts: (batch,), where `new` begins in each sequence. keep: leave what is in the cache behind it, else zero.
    """
    batch, _, heads, size = new.shape

    def compute(*tensors: te.Tensor | Any) -> te.Tensor:
        *caches, fresh, start, count = tensors
        room = caches[0].shape[2] if caches else 0

        def element(b: Any, h: Any, t: Any, d: Any) -> Any:
            at = tirx.Cast("int64", start[b])
            added = t - at
            zero = tirx.const(0, fresh.dtype)
            old = tirx.if_then_else(t < room, caches[0][b, h, t, d], zero) if caches else zero
            rest = old if keep else tirx.if_then_else(t < at, old, zero)
            inside = tirx.all(added >= 0, added < fresh.shape[1])
            return tirx.if_then_else(inside, fresh[b, added, h, d], rest)

        return te.compute((fresh.shape[0], fresh.shape[2], *count, fresh.shape[3]), element, name="append")

    caches = [] if past is None else [node.restate(past.expr, [batch, heads, past.shape[2], size], "the cache")]
    starts_expr = node.restate(starts.expr, [batch], "the lengths")
    return node.value(node.te(compute, *caches, new.expr, starts_expr, shape_expr([length]), name="append_to_cache"))


def causal_bias(
    node: Node, starts: Value, queries: Dim, keys: Dim, window: int, causal: bool, more: Value | None, total: Dim
) -> Expr:
    """What is added to the scores: 0, or the least float where a query at position start + i does not see key t. With
    a window it sees that many keys, itself among them. float32 (batch, 1 or heads of `more`, queries, keys).
    """
    lowest = tirx.const(-3.4028234663852886e38, "float32")

    def compute(start: te.Tensor, *tensors: Any) -> te.Tensor:
        *biases, sizes = tensors
        heads = biases[0].shape[1] if biases else int64(1)

        def element(b: Any, h: Any, i: Any, t: Any) -> Any:
            own = tirx.Cast("int64", start[b]) + i
            conditions = [t <= own] if causal else [t < tirx.Cast("int64", start[b]) + int64(queries)]
            if window > 0:
                conditions.append(t + window > own)
            value: Any = tirx.const(0.0, "float32")
            if biases:
                bias = biases[0]
                at = [
                    0 if isinstance(d, tirx.IntImm) and d.value == 1 else x
                    for d, x in zip(bias.shape, (b, h, i, t), strict=True)
                ]
                conditions.append(t < sizes[2])
                value = tirx.Cast("float32", bias(*at))
            return tirx.if_then_else(tirx.all(*conditions), value, lowest)

        return te.compute((start.shape[0], heads, sizes[0], sizes[1]), element, name="causal_bias")

    biases = [] if more is None else [more.expr]
    return node.te(compute, starts.expr, *biases, shape_expr([queries, keys, total]), name="causal_bias")
