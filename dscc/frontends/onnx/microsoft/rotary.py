"""RotaryEmbedding and its variants."""

from __future__ import annotations

import numpy as np

from dscc.frontends.onnx.attend import merge_heads, positions
from dscc.frontends.onnx.compose import Standard
from dscc.frontends.onnx.microsoft import contrib
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.rotate import rotate
from dscc.frontends.onnx.values import Array, Value


@contrib("RotaryEmbedding")
def rotary_embedding(node: Node, x: Value, position_ids: Value, cos: Value, sin: Value) -> Value:
    """x (batch, sequence, hidden) or (batch, heads, sequence, size); position ids (batch, sequence), or the first one
    as (1,).
    """
    if node.attr("is_packed_batching", 0):
        raise node.unsupported("is_packed_batching is 1, which is not supported; only batches of one length are")
    op = Standard(node)
    split = node.attr("rotary_embedding_dim", 0)
    heads = node.attr("num_heads", 0)
    if split and not heads:
        raise node.error("rotary_embedding_dim is given without num_heads; state both")
    if x.ndim == 4:
        data = op.Transpose(x, perm=[0, 2, 1, 3])
    else:
        size = node.dims.floordiv(x.shape[2], heads) if heads else node.dims.simplify(cos.shape[1] * 2)
        data = op.Reshape(x, [*x.shape[:2], node.dims.floordiv(x.shape[2], size), size])
    if position_ids.ndim == 1:
        position_ids = op.Unsqueeze(op.Add(op.cast(position_ids, "int64"), positions(node, data.shape[1])), [0])
    cos, sin = (op.Gather(table, position_ids, axis=0) for table in (cos, sin))
    out = rotate(node, data, cos, sin, bool(node.attr("interleaved", 0)))
    return op.Transpose(out, perm=[0, 2, 1, 3]) if x.ndim == 4 else merge_heads(node, out)


@contrib("GemmaRotaryEmbedding")
def gemma_rotary_embedding(
    node: Node, angles: Value, q: Value, q_turned: Value, k: Value, k_turned: Value
) -> tuple[Value, Value]:
    """x * cos(angles) + turned * sin(angles), for queries and for keys (batch, heads, sequence, size)."""
    op = Standard(node)
    cosine, sine = (op.Unsqueeze(op.cast(each, q.dtype), [1]) for each in (op.Cos(angles), op.Sin(angles)))
    q_out, k_out = (op.Add(op.Mul(x, cosine), op.Mul(turned, sine)) for x, turned in ((q, q_turned), (k, k_turned)))
    return q_out, k_out


@contrib("RelativePositionBias")
def relative_position_bias(node: Node, table: Value, queries: Value, keys: Value) -> Value:
    """A bias for each head and distance (Raffel et al. 2020, arXiv:1910.10683): (1, heads, queries, keys). Distances
    up to a half of the buckets have one each, larger ones share them, on a logarithmic scale up to `max_distance`.
    """
    op = Standard(node)
    lengths = [node.ints(each, "a length", signed=False)[0] for each in (queries, keys)]
    own, other = (positions(node, length) for length in lengths)
    distance = op.Sub(op.Unsqueeze(other, [0]), op.Unsqueeze(own, [1]))
    buckets, both = int(table.shape[0]), node.attr("is_bidirectional", 0)
    base: Value | None = None
    if both:
        buckets //= 2
        base = op.Mul(op.cast(op.Greater(distance, 0), "int64"), buckets)
        size = op.Abs(distance)
    else:
        size = op.Neg(op.Min(distance, np.int64(0)))
    most = node.required("max_distance", int)
    bucket = op.Gather(node.value(_buckets(buckets, most)), op.Min(size, np.int64(most)), axis=0)
    rows = op.Gather(table, bucket if base is None else op.Add(bucket, base), axis=0)
    return op.Unsqueeze(op.Transpose(rows, perm=[2, 0, 1]), [0])


def _buckets(count: int, most: int) -> Array:
    """The bucket of each distance from 0 to `most`, which is that of all greater ones."""
    exact = count // 2
    distances = np.arange(most + 1)
    ratio = np.maximum(distances, 1).astype(np.float32) / np.float32(exact)
    far = exact + (np.log(ratio) / np.log(np.float32(most / exact)) * (count - exact)).astype(np.int64)
    return np.where(distances < exact, distances, np.minimum(far, count - 1))


@contrib("GatedRelativePositionBias")
def gated_relative_position_bias(
    node: Node,
    query: Value,
    query_bias: Value,
    positions_bias: Value,
    weight: Value,
    bias: Value,
    constant: Value,
    token_offset: Value | None = None,
) -> Value:
    """A relative position bias (1, heads, sequence, sequence) times a gate of each query, as in WavLM (Chen et al.
    2021, arXiv:2110.13900).
    """
    if token_offset is not None:
        raise node.unsupported(
            "token_offset, for input without padding, is not supported; export the model with padding"
        )
    op, heads = Standard(node), node.required("num_heads", int)
    shape = [*query.shape[:2], heads, node.dims.floordiv(query.shape[2], heads)]
    rows = op.Transpose(op.Reshape(op.Add(query, query_bias), shape), perm=[0, 2, 1, 3])
    gates = op.Add(op.MatMul(rows, weight), bias)
    halves = op.Reshape(gates, [*gates.shape[:3], 2, node.dims.floordiv(gates.shape[3], 2)])
    first, second = op.several("Split", 2, op.Sigmoid(op.ReduceSum(halves, [4], keepdims=0)), axis=3, num_outputs=2)
    gate = op.Add(op.Mul(first, op.Sub(op.Mul(second, constant), 1.0)), 2.0)
    return op.Mul(gate, positions_bias)
