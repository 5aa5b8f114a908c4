"""Attention, MultiHeadAttention and what descends from them: as many heads of keys as of queries."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dscc.frontends.onnx.attend import Scores, attend, merge_heads, split_heads
from dscc.frontends.onnx.compose import Standard
from dscc.frontends.onnx.microsoft import contrib
from dscc.frontends.onnx.microsoft.caches import append
from dscc.frontends.onnx.microsoft.masks import joined, padding_bias
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.values import Dim, Value, static


def scale_of(node: Node, size: Any) -> float:
    """The attribute, or 1 / sqrt(size of a head)."""
    given: float = node.attr("scale", 0.0)
    if given:
        return given
    known = static(size)
    if known is None:
        raise node.error(f"the size of a head is symbolic ({size}), and so is its default scale; state 'scale'")
    return 1.0 / math.sqrt(known)


def _causal(node: Node, past: Value | None) -> str | None:
    """Query i sees the keys of the past and i + 1 more: also where other keys are more, or fewer, than the queries."""
    if not node.attr("unidirectional", 0):
        return None
    return "TopLeft" if past is None else "BottomRight"


@contrib("Attention")
def attention(
    node: Node,
    x: Value,
    weights: Value,
    bias: Value | None = None,
    mask: Value | None = None,
    past: Value | None = None,
    more: Value | None = None,
    past_length: Value | None = None,
) -> list[Any]:
    """Self-attention with its input projections: x (batch, sequence, input size)."""
    op = Standard(node)
    projected = op.MatMul(x, weights)
    if bias is not None:
        projected = op.Add(projected, bias)
    return self_attention(node, projected, mask, past, more, past_length)


def self_attention(
    node: Node,
    projected: Value,
    mask: Value | None,
    past: Value | None,
    more: Value | None = None,
    past_length: Value | None = None,
) -> list[Any]:
    """Attention over `projected` (batch, sequence, sizes of q, k and v): the mixed values, and the keys and values
    (2, batch, heads, sequence, size).
    """
    op, heads = Standard(node), node.required("num_heads", int)
    if node.attr("do_rotary", 0):
        raise node.unsupported("do_rotary is 1, which is not supported; use the operator RotaryEmbedding before it")
    if past_length is not None or node.attr("past_present_share_buffer", 0):
        raise node.unsupported("past and present share a buffer, which is not supported; export the model without")
    sizes = node.attr("qkv_hidden_sizes", None) or [node.dims.floordiv(projected.shape[2], 3)] * 3
    q, k, v = (
        split_heads(node, part, heads) for part in op.several("Split", 3, projected, node.symbolic(sizes), axis=2)
    )
    if past is not None:
        before = op.several("Split", 2, past, axis=0, num_outputs=2)
        k, v = (
            op.Concat(op.Transpose(op.Squeeze(old, [0]), perm=[0, 2, 1, 3]), new, axis=1)
            for old, new in zip(before, (k, v), strict=True)
        )
    shape = q.shape[0], q.shape[1], k.shape[1]
    padding = None if mask is None else padding_bias(node, mask, *shape)
    how = Scores(scale_of(node, q.shape[3]), joined(op, padding, more), _causal(node, past))
    out, _ = attend(node, q, k, v, how)
    results: list[Any] = [merge_heads(node, out)]
    if len(node.proto.output) > 1:
        cached = [op.Unsqueeze(op.Transpose(each, perm=[0, 2, 1, 3]), [0]) for each in (k, v)]
        results.append(op.Concat(*cached, axis=0))
    return results


@contrib("QAttention")
def quantized_attention(
    node: Node,
    x: Value,
    weights: Value,
    bias: Value,
    x_scale: Value,
    weight_scale: Value,
    mask: Value | None = None,
    x_zero: Value | None = None,
    weight_zero: Value | None = None,
    past: Value | None = None,
) -> list[Any]:
    """Attention whose projections are products of whole numbers."""
    op = Standard(node)
    product = op.cast(op.MatMulInteger(x, weights, x_zero, weight_zero), "float32")
    scale = op.Mul(x_scale, weight_scale)
    return self_attention(node, op.Add(op.Mul(product, scale), bias), mask, past)


@contrib("MultiHeadAttention")
def multi_head_attention(
    node: Node,
    query: Value,
    key: Value | None = None,
    value: Value | None = None,
    bias: Value | None = None,
    mask: Value | None = None,
    more: Value | None = None,
    past_key: Value | None = None,
    past_value: Value | None = None,
    past_length: Value | None = None,
    beams: Value | None = None,
) -> list[Any]:
    """Attention of projected queries, keys and values: mixed values, keys, values and scores."""
    if past_length is not None or beams is not None:
        raise node.unsupported("past and present share a buffer, which is not supported; export the model without")
    op = Standard(node)
    q, k, v = _heads(node, op, query, key, value, bias)
    if past_key is not None and past_value is not None:
        k, v = (
            op.Concat(op.Transpose(old, perm=[0, 2, 1, 3]), new, axis=1)
            for old, new in ((past_key, k), (past_value, v))
        )
    padding = None if mask is None else padding_bias(node, mask, q.shape[0], q.shape[1], k.shape[1])
    keep = "biased" if len(node.proto.output) > 3 else ""
    how = Scores(scale_of(node, q.shape[3]), joined(op, padding, more), _causal(node, past_key), keep=keep)
    out, scores = attend(node, q, k, v, how)
    present = [op.Transpose(each, perm=[0, 2, 1, 3]) for each in (k, v)] if len(node.proto.output) > 1 else []
    return [merge_heads(node, out), *present, np.empty(0) if scores is None else scores][: len(node.proto.output)]


def _heads(
    node: Node, op: Standard, query: Value, key: Value | None, value: Value | None, bias: Value | None
) -> tuple[Value, Value, Value]:
    """Queries, keys and values (batch, sequence, heads, size) from the forms that they may come in. The bias is that of
    their projections, one behind the other.
    """
    heads = node.required("num_heads", int)
    if query.ndim == 5:
        parts = _packed(op, query)
    elif key is not None and key.ndim == 5:
        parts = [split_heads(node, query, heads), *_packed(op, key)]
    elif key is None or value is None:
        raise node.error("there are neither keys and values nor packed ones; queries, keys and values are needed")
    elif key.ndim == 4:  # a cache of an encoder's keys and values
        parts = [split_heads(node, query, heads), *(op.Transpose(x, perm=[0, 2, 1, 3]) for x in (key, value))]
    else:
        parts = [split_heads(node, x, heads) for x in (query, key, value)]
    if bias is not None:
        cached = key is not None and key.ndim == 4
        offset: Dim = 0
        for index, part in enumerate(parts[:1] if cached else parts):
            end = node.dims.simplify(offset + node.dims.product(part.shape[2:]))
            piece = op.Slice(bias, node.symbolic([offset]), node.symbolic([end]), [0])
            parts[index] = op.Add(part, op.Reshape(piece, list(part.shape[2:])))
            offset = end
    return parts[0], parts[1], parts[2]


def _packed(op: Standard, x: Value) -> list[Value]:
    """(batch, sequence, heads, n, size) as n of (batch, sequence, heads, size)."""
    count = int(x.shape[3])
    return [op.Squeeze(part, [3]) for part in op.several("Split", count, x, axis=3, num_outputs=count)]


@contrib("DecoderMaskedMultiHeadAttention")
def decoder_masked_attention(
    node: Node,
    query: Value,
    key: Value | None = None,
    value: Value | None = None,
    mask: Value | None = None,
    more: Value | None = None,
    past_key: Value | None = None,
    past_value: Value | None = None,
    past_length: Value | None = None,
    beam_width: Value | None = None,
    beams: Value | None = None,
    bias: Value | None = None,
) -> list[Any]:
    """MultiHeadAttention for one query at a time, whose key and value are written into the caches at `past_length`."""
    if beams is not None or (
        beam_width is not None and (beam_width.constant is None or beam_width.constant.item() > 1)
    ):
        raise node.unsupported(
            "several beams share a cache, which is not supported; export the model without beam search"
        )
    op = Standard(node)
    if key is None:
        query, key, value = op.several("Split", 3, query, axis=2, num_outputs=3)
    if past_key is None or past_value is None or past_length is None:
        return multi_head_attention(node, query, key, value, bias, mask, more, past_key, past_value)
    q, k, v = _heads(node, op, query, key, value, bias)
    room, total = past_key.shape[2], node.dims.simplify(node.ints(past_length, "the past's length", False)[0] + 1)
    starts = op.Expand(op.cast(op.Reshape(past_length, [1]), "int64"), [q.shape[0]])
    present = [append(node, past, new, starts, room, keep=True) for past, new in ((past_key, k), (past_value, v))]
    k, v = (op.Transpose(op.Slice(cache, [0], node.symbolic([total]), [2]), perm=[0, 2, 1, 3]) for cache in present)
    padding = None if mask is None else padding_bias(node, mask, q.shape[0], q.shape[1], total)
    keep = "biased" if len(node.proto.output) > 3 else ""
    how = Scores(scale_of(node, q.shape[3]), joined(op, padding, more), keep=keep)
    out, scores = attend(node, q, k, v, how)
    return [merge_heads(node, out), *present, np.empty(0) if scores is None else scores][: len(node.proto.output)]
