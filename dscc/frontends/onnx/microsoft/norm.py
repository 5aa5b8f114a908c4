"""Normalisations with sums in front of them, and onnxruntime's RMS normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np

from dscc.frontends.onnx.compose import Standard
from dscc.frontends.onnx.microsoft import contrib
from dscc.frontends.onnx.microsoft.linear import channels_first, channels_last
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.registry import converter
from dscc.frontends.onnx.values import Value


def _wanted(node: Node, index: int) -> bool:
    """Whether the node's output `index` has a name."""
    return len(node.proto.output) > index and bool(node.proto.output[index])


def _results(node: Node, outputs: list[Value | None]) -> list[Any]:
    """The outputs, with something in the place of those that nobody reads."""
    return [np.empty(0) if value is None else value for value in outputs][: len(node.proto.output)]


@contrib("SkipLayerNormalization")
def skip_layer_norm(
    node: Node, x: Value, skip: Value, gamma: Value, beta: Value | None = None, bias: Value | None = None
) -> list[Any]:
    """LayerNormalization of x + skip + bias over the last axis; also its mean, inverse deviation, and the sum."""
    op = Standard(node)
    total = _sum(op, x, skip, bias)
    count = 3 if _wanted(node, 1) or _wanted(node, 2) else 1
    out: list[Value | None] = [None] * 3
    out[:count] = op.several(
        "LayerNormalization", count, total, gamma, beta, axis=-1, epsilon=node.attr("epsilon", 1e-12)
    )
    return _results(node, [*out, total])


@contrib("SkipSimplifiedLayerNormalization")
def skip_simplified_layer_norm(node: Node, x: Value, skip: Value, gamma: Value, bias: Value | None = None) -> list[Any]:
    """RMSNormalization of x + skip + bias over the last axis; also the inverse root and the sum."""
    op = Standard(node)
    total = _sum(op, x, skip, bias)
    epsilon = node.attr("epsilon", 1e-12)
    inverse = _inverse_root(op, total, [-1], epsilon) if _wanted(node, 2) else None
    return _results(node, [op.RMSNormalization(total, gamma, axis=-1, epsilon=epsilon), None, inverse, total])


def _sum(op: Standard, x: Value, skip: Value, bias: Value | None) -> Value:
    total = op.Add(x, skip)
    return total if bias is None else op.Add(total, bias)


def _inverse_root(op: Standard, x: Value, axes: list[int], epsilon: float) -> Value:
    """1 / sqrt(mean of squares + epsilon), in float32 for half types."""
    wide = op.cast(x, "float32") if x.dtype in ("float16", "bfloat16") else x
    return op.Reciprocal(op.Sqrt(op.Add(op.ReduceMean(op.Mul(wide, wide), axes, keepdims=1), epsilon)))


@converter("SimplifiedLayerNormalization")
@contrib("SimplifiedLayerNormalization")
def simplified_layer_norm(node: Node, x: Value, scale: Value) -> list[Any]:
    """RMSNormalization, which onnxruntime had before the standard, in the standard's own domain; also the inverse
    root.
    """
    op = Standard(node)
    first, epsilon = node.axis(node.attr("axis", -1), x.ndim), node.attr("epsilon", 1e-5)
    inverse = _inverse_root(op, x, list(range(first, x.ndim)), epsilon) if _wanted(node, 1) else None
    return _results(node, [op.RMSNormalization(x, scale, axis=first, epsilon=epsilon), inverse])


@contrib("GatedRMSNorm")
def gated_rms_norm(node: Node, x: Value, scale: Value, gate: Value) -> Value:
    """RMSNormalization over groups of as many elements as there are in `scale`, times an activation of the gate."""
    op = Standard(node)
    size, name = scale.shape[0], node.attr("activation", "silu")
    if name not in ("silu", "swish", "sigmoid"):
        raise node.error(f"unknown gate activation '{name}'; allowed: silu, swish, sigmoid")
    shape = [*x.shape[:-1], node.dims.floordiv(x.shape[-1], size), size]
    wide, opened = (op.Reshape(op.cast(v, "float32"), shape) for v in (x, gate))
    normal = op.RMSNormalization(wide, op.cast(scale, "float32"), axis=-1, epsilon=node.attr("epsilon", 1e-5))
    weight = op.Sigmoid(opened) if name == "sigmoid" else op.Mul(opened, op.Sigmoid(opened))
    return op.cast(op.Reshape(op.Mul(normal, weight), list(x.shape)), x.dtype)


@contrib("BranchwiseRMSNorm")
def branchwise_rms_norm(node: Node, x: Value, scale: Value | None = None) -> Value:
    """RMSNormalization of each branch, of which there are `num_branches` in the last axis, or the last but one."""
    op = Standard(node)
    branches = node.attr("num_branches", 0)
    shape = [*x.shape[:-1], branches, node.dims.floordiv(x.shape[-1], branches)] if branches else list(x.shape)
    wide = op.Reshape(op.cast(x, "float32"), shape)
    normal = op.Mul(wide, _inverse_root(op, wide, [-1], node.attr("epsilon", 1e-5)))
    if scale is not None:
        factor = op.cast(scale, "float32")
        if scale.ndim == 1 and not node.dims.equal(scale.shape[0], shape[-1]):
            factor = op.Reshape(factor, shape[-2:])
        normal = op.Mul(normal, factor)
    return op.cast(op.Reshape(normal, list(x.shape)), x.dtype)


@contrib("GroupNorm")
def group_norm(node: Node, x: Value, gamma: Value, beta: Value) -> Value:
    """GroupNormalization, by default in channels-last order, and SiLU behind it with activation=1."""
    op = Standard(node)
    last = node.attr("channels_last", 1)
    data = op.cast(channels_first(op, x) if last else x, gamma.dtype)
    given = {"num_groups": node.required("groups", int), "epsilon": node.attr("epsilon", 1e-5)}
    normal = op.GroupNormalization(data, gamma, beta, **given)
    if node.required("activation", int):
        normal = op.Mul(normal, op.Sigmoid(normal))
    normal = op.cast(normal, x.dtype)
    return channels_last(op, normal) if last else normal


@contrib("SkipGroupNorm")
def skip_group_norm(
    node: Node, x: Value, gamma: Value, beta: Value, skip: Value, bias: Value | None = None
) -> list[Any]:
    """GroupNorm of x + skip + bias, and the sum. The skip may have one value per channel."""
    op = Standard(node)
    last = node.attr("channels_last", 1)
    if skip.ndim == 2:
        skip = op.Unsqueeze(skip, [1, 2] if last else [2, 3])
    if bias is not None and not last:
        bias = op.Unsqueeze(bias, [1, 2])
    total = _sum(op, x, skip, bias)
    return _results(node, [group_norm(node, total, gamma, beta), total])


@contrib("EmbedLayerNormalization")
def embed_layer_norm(
    node: Node,
    ids: Value,
    segments: Value | None,
    words: Value,
    positions: Value,
    segment_table: Value | None,
    gamma: Value,
    beta: Value,
    mask: Value | None = None,
    position_ids: Value | None = None,
) -> list[Any]:
    """LayerNormalization of the sum of word, position and segment embeddings; also the number of ones in each row of
    the mask, and the sum.
    """
    op = Standard(node)
    if position_ids is None:
        position_ids = op.Unsqueeze(op.Range(np.int64(0), op.Squeeze(node.symbolic([ids.shape[1]])), np.int64(1)), [0])
    total = op.Add(op.Gather(words, ids, axis=0), op.Gather(positions, position_ids, axis=0))
    if segments is not None and segment_table is not None:
        total = op.Add(total, op.Gather(segment_table, segments, axis=0))
    normal = op.LayerNormalization(total, gamma, beta, axis=-1, epsilon=node.attr("epsilon", 1e-12))
    counts: Value | None = None
    if _wanted(node, 1):
        counts = (
            op.Expand(np.int32(0), [ids.shape[0]])
            if mask is None
            else op.ReduceSum(op.cast(op.Equal(mask, 1), "int32"), [1], keepdims=0)
        )
    return _results(node, [normal, counts, total])


@contrib("QEmbedLayerNormalization")
def quantized_embed_layer_norm(
    node: Node,
    ids: Value,
    segments: Value | None,
    words: Value,
    positions: Value,
    segment_table: Value | None,
    gamma: Value,
    beta: Value,
    mask: Value | None,
    *parameters: Value | None,
) -> list[Any]:
    """EmbedLayerNormalization with quantized tables and parameters: their five scales, then their five zero points."""
    op = Standard(node)
    real = [
        None if x is None or scale is None else op.DequantizeLinear(x, scale, zero)
        for x, scale, zero in zip(
            (words, positions, segment_table, gamma, beta), parameters[:5], parameters[5:10], strict=True
        )
    ]
    if real[0] is None or real[1] is None or real[3] is None or real[4] is None:
        raise node.error("a scale is left out; only those of the segments may be")
    return embed_layer_norm(node, ids, segments, real[0], real[1], real[2], real[3], real[4], mask)
