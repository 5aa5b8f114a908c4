"""The masks of onnxruntime's attention operators, as what is added to the scores."""

from __future__ import annotations

import numpy as np

from dscc.frontends.onnx.attend import positions
from dscc.frontends.onnx.compose import Standard
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.values import Dim, Value


def padding_bias(node: Node, mask: Value, batch: Dim, queries: Dim, keys: Dim) -> Value:
    """`mask_filter_value` where a key is padding, else 0: float32 (batch, 1, queries or 1, keys).

    The mask is one of

        (batch,)                       the number of keys; the padding is on the right
        (2 * batch,)                   the ends, then the starts
        (3 * batch + 2,)               the numbers of keys first; the rest is for packed kernels
        (batch, keys)                  0 for padding
        (batch, queries, keys)         0 for what a query does not see
        (batch, 1, most, most)         as above, for up to `most` queries and keys
    """
    op = Standard(node)
    if mask.ndim == 1:
        seen = _within(node, op, mask, batch, keys)
    elif mask.ndim == 4:
        past = node.dims.simplify(keys - queries)
        window = op.Slice(mask, node.symbolic([past, 0]), node.symbolic([keys, keys]), [2, 3])
        seen = op.Greater(window, 0)
    else:
        seen = op.Greater(mask, 0)
    seen = op.Unsqueeze(seen, {2: [1, 2], 3: [1], 4: None}[seen.ndim]) if seen.ndim < 4 else seen
    return op.Where(seen, np.float32(0), np.float32(node.attr("mask_filter_value", -10000.0)))


def _within(node: Node, op: Standard, mask: Value, batch: Dim, keys: Dim) -> Value:
    """Which keys lie between the bounds in a mask of one dimension: (batch, keys)."""
    count, at = mask.shape[0], op.cast(positions(node, keys), mask.dtype)
    double = node.dims.equal(count, batch * 2) and not node.dims.equal(count, batch)
    if not double and not node.dims.equal(count, batch * 3 + 2):
        node.require_equal(count, batch, "the length of the mask")
    ends = op.Slice(mask, [0], node.symbolic([batch]), [0])
    seen = op.Less(at, op.Unsqueeze(ends, [1]))
    if not double:
        return seen
    starts = op.Slice(mask, node.symbolic([batch]), node.symbolic([node.dims.simplify(batch * 2)]), [0])
    return op.And(seen, op.GreaterOrEqual(at, op.Unsqueeze(starts, [1])))


def joined(op: Standard, first: Value | None, second: Value | None) -> Value | None:
    """The sum of two biases, either of which may be missing."""
    if first is None or second is None:
        return first or second
    return op.Add(first, second)
