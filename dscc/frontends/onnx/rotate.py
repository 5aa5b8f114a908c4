"""Rotary position embeddings (Su et al. 2021, arXiv:2104.09864): pairs of elements turned by an angle."""

from __future__ import annotations

from dscc.frontends.onnx.compose import Standard
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.values import Value


def rotate(node: Node, x: Value, cos: Value, sin: Value, interleaved: bool) -> Value:
    """x (batch, sequence, heads, size) with its first elements turned: pairs are neighbours if `interleaved`, else an
    element of the first half and one of the second.

    Args:
        cos, sin: (batch or 1, sequence, pairs); what is behind the first 2 * pairs elements stays as it is.
    """
    op = Standard(node)
    pairs, size = cos.shape[2], x.shape[3]
    wide = node.dims.simplify(pairs * 2)
    rest: list[Value] = []
    if not node.dims.equal(wide, size):
        x, left = op.several("Split", 2, x, node.symbolic([wide, node.dims.simplify(size - wide)]), axis=3)
        rest = [left]
    cosine, sine = (op.cast(op.Unsqueeze(each, [2]), x.dtype) for each in (cos, sin))
    if interleaved:
        split = op.Reshape(x, [*x.shape[:3], pairs, 2])
        first, second = (op.Squeeze(part, [4]) for part in op.several("Split", 2, split, axis=4, num_outputs=2))
    else:
        first, second = op.several("Split", 2, x, axis=3, num_outputs=2)
    turned = (
        op.Sub(op.Mul(first, cosine), op.Mul(second, sine)),
        op.Add(op.Mul(first, sine), op.Mul(second, cosine)),
    )
    if interleaved:
        out = op.Reshape(op.Concat(*(op.Unsqueeze(part, [4]) for part in turned), axis=4), [*x.shape[:3], wide])
    else:
        out = op.Concat(*turned, axis=3)
    return op.Concat(out, *rest, axis=3) if rest else out
