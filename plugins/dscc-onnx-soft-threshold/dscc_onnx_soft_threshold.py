"""Convert `com.example.signal.SoftThreshold`, the shrinkage of sparse coding and of learned denoisers.

    y = sign(x) * max(|x| - threshold, 0),  x, y: any shape, threshold: () or (channels,)

Inputs: x; threshold, one number or one for each channel. Attribute: axis, that of the channels, 1 if it is left out.
Version 2 of the domain made the threshold optional, with the attribute `lambd` instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

import dscc

if TYPE_CHECKING:
    from dscc.frontends.onnx.node import Node
    from dscc.frontends.onnx.values import Value


class SoftThreshold(dscc.OnnxOperator):
    """Shrinks towards zero by a threshold that is given for each channel."""

    domain: ClassVar[str] = "com.example.signal"
    op: ClassVar[str] = "SoftThreshold"

    def convert(self, node: Node, x: Value, threshold: Value) -> Any:
        return _shrink(node, x, threshold)


class SoftThreshold2(dscc.OnnxOperator):
    """Version 2: the threshold may be an attribute."""

    domain: ClassVar[str] = "com.example.signal"
    op: ClassVar[str] = "SoftThreshold"
    since: ClassVar[int] = 2

    def convert(self, node: Node, x: Value, threshold: Value | None = None) -> Any:
        if threshold is None:
            threshold = node.value(np.array(node.attr("lambd", 0.5), x.dtype))
        return _shrink(node, x, threshold)


def _shrink(node: Node, x: Value, threshold: Value) -> Any:
    from dscc.frontends.onnx.compose import Standard

    op = Standard(node)  # operators of the standard: they broadcast, take any float type, and fuse into one kernel
    if threshold.ndim > 1:
        raise node.error(f"the threshold has rank {threshold.ndim}; it is a number, or one for each channel")
    if threshold.ndim == 1:
        axis = node.axis(node.attr("axis", 1), x.ndim)
        node.require_equal(threshold.shape[0], x.shape[axis], "the number of thresholds")
        threshold = op.Unsqueeze(threshold, [*range(1, x.ndim - axis)])
    return op.Mul(op.Sign(x), op.Max(op.Sub(op.Abs(x), threshold), 0.0))


@dscc.hookimpl
def dscc_onnx_operators() -> list[type[dscc.OnnxOperator]]:
    """Both versions of the operator."""
    return [SoftThreshold, SoftThreshold2]
