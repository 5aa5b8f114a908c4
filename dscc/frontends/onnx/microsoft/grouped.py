"""GroupQueryAttention: several heads of queries share one of keys, which are kept in a cache."""

from __future__ import annotations

from typing import Any

import numpy as np

from dscc.frontends.onnx.attend import Scores, attend, merge_heads, positions, split_heads
from dscc.frontends.onnx.compose import Standard
from dscc.frontends.onnx.microsoft import contrib
from dscc.frontends.onnx.microsoft.attention import scale_of
from dscc.frontends.onnx.microsoft.caches import append, causal_bias
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.rotate import rotate
from dscc.frontends.onnx.values import Value

_KEEP = {0: "", 1: "biased", 2: "weights"}


@contrib("GroupQueryAttention")
def group_query_attention(
    node: Node,
    query: Value,
    key: Value | None,
    value: Value | None,
    past_key: Value | None,
    past_value: Value | None,
    lengths: Value,
    total_length: Value,
    cos: Value | None = None,
    sin: Value | None = None,
    position_ids: Value | None = None,
    more: Value | None = None,
    sink: Value | None = None,
    k_scale: Value | None = None,
    v_scale: Value | None = None,
    q_norm: Value | None = None,
    k_norm: Value | None = None,
) -> list[Any]:
    """Causal attention of queries (batch, sequence, heads * size), or of queries, keys and values in one.

    Args:
        past_key, past_value: (batch, groups, room, size). lengths: (batch,), of each sequence with what is new, less
        1. total_length: the greatest of those lengths; the caches grow to it if they are shorter.
    """
    _refuse(node, k_scale, v_scale)
    op, heads, groups = Standard(node), node.required("num_heads", int), node.required("kv_num_heads", int)
    q, k, v = _heads(node, op, query, key, value, heads, groups)
    if q_norm is not None and k_norm is not None:
        epsilon = node.attr("qk_norm_epsilon", 1e-6)
        q, k = (op.RMSNormalization(x, w, axis=-1, epsilon=epsilon) for x, w in ((q, q_norm), (k, k_norm)))
    sequence = q.shape[1]
    total = node.ints(total_length, "the total sequence length", signed=False)[0]
    ends = op.Add(op.cast(op.Reshape(lengths, [q.shape[0]]), "int64"), 1)
    starts = op.Max(op.Sub(ends, op.Squeeze(node.symbolic([sequence]))), np.int64(0))
    if node.attr("do_rotary", 0):
        if cos is None or sin is None:
            raise node.error("do_rotary is 1, but the tables of cosines and sines are missing")
        if position_ids is None:
            position_ids = op.Add(op.Unsqueeze(starts, [1]), op.Unsqueeze(positions(node, sequence), [0]))
        angles = [op.Gather(table, position_ids, axis=0) for table in (cos, sin)]
        q, k = (rotate(node, x, angles[0], angles[1], bool(node.attr("rotary_interleaved", 0))) for x in (q, k))
    room = total if past_key is None else node.dims.maximum(total, past_key.shape[2])
    present_key, present_value = (
        append(node, past, new, starts, room) for past, new in ((past_key, k), (past_value, v))
    )
    keys, values = (op.Transpose(cache, perm=[0, 2, 1, 3]) for cache in (present_key, present_value))
    window = node.attr("local_window_size", -1)
    bias = causal_bias(node, starts, sequence, room, window, bool(node.attr("causal", 1)), more, total)
    if sink is None and node.attr("smooth_softmax", 0) == 1:
        sink = node.value(np.zeros(heads, np.float32))
    keep = _KEEP[node.attr("qk_output", 0)] if len(node.proto.output) > 3 else ""
    how = Scores(scale_of(node, q.shape[3]), node.value(bias), softcap=node.attr("softcap", 0.0), sink=sink, keep=keep)
    out, scores = attend(node, q, keys, values, how)
    results: list[Any] = [merge_heads(node, out), present_key, present_value]
    return [*results, np.empty(0) if scores is None else scores][: len(node.proto.output)]


def _refuse(node: Node, *scales: Value | None) -> None:
    if any(scale is not None for scale in scales) or node.attr("k_quant_type", "NONE") != "NONE":
        raise node.unsupported(
            "the cache is quantized, which is not supported; export the model with a cache of floats"
        )
    if node.attr("sliding_window_cache", 0):
        raise node.unsupported("sliding_window_cache is 1, which is not supported; export the model with a full cache")


def _heads(
    node: Node, op: Standard, query: Value, key: Value | None, value: Value | None, heads: int, groups: int
) -> tuple[Value, Value, Value]:
    """Queries, keys and values: (batch, sequence, heads or groups, size)."""
    if key is not None and value is not None:
        return split_heads(node, query, heads), split_heads(node, key, groups), split_heads(node, value, groups)
    size = node.dims.floordiv(query.shape[2], heads + 2 * groups)
    shares = [node.dims.simplify(size * count) for count in (heads, groups, groups)]
    parts = op.several("Split", 3, query, node.symbolic(shares), axis=2)
    q, k, v = (split_heads(node, part, count) for part, count in zip(parts, (heads, groups, groups), strict=True))
    return q, k, v
