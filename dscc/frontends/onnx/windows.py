"""Where the windows of convolutions and pools lie: strides, dilations, and the four ways in which ONNX states
padding.
"""

from __future__ import annotations

from dataclasses import dataclass

from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.values import Dim, static


@dataclass(frozen=True)
class Windows:
    """Per spatial axis; `before` and `after` may be symbolic under auto_pad=SAME_*."""

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    before: list[Dim]
    after: list[Dim]

    @property
    def padding(self) -> list[int] | None:
        """All `before`, then all `after`, as Relax's operators take them; None if one is symbolic or negative."""
        pads = [static(pad) for pad in (*self.before, *self.after)]
        return None if any(pad is None or pad < 0 for pad in pads) else [pad for pad in pads if pad is not None]

    def extent(self, axis: int) -> int:
        """Elements from the first to the last that a window covers."""
        return (self.kernel[axis] - 1) * self.dilations[axis] + 1


def windows(node: Node, kernel: list[int], spatial: tuple[Dim, ...]) -> Windows:
    """The windows of a node over an input of shape (..., *spatial)."""
    rank = len(kernel)
    if len(spatial) != rank:
        raise node.error(f"a kernel of {rank} spatial dimensions does not fit an input of {len(spatial)}")
    strides = node.attr("strides", None) or [1] * rank
    dilations = node.attr("dilations", None) or [1] * rank
    auto = node.attr("auto_pad", "NOTSET")
    if auto == "NOTSET":
        pads = node.attr("pads", None) or [0] * (2 * rank)
        return _with_room(node, Windows(kernel, strides, dilations, list(pads[:rank]), list(pads[rank:])), spatial)
    if auto == "VALID":
        return _with_room(node, Windows(kernel, strides, dilations, [0] * rank, [0] * rank), spatial)
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        raise node.error(f"auto_pad is '{auto}'; allowed: NOTSET, VALID, SAME_UPPER, SAME_LOWER")
    before, after = [], []
    for size, k, stride, dilation in zip(spatial, kernel, strides, dilations, strict=True):
        extent = (k - 1) * dilation + 1
        total = node.dims.maximum(node.dims.simplify((node.dims.ceildiv(size, stride) - 1) * stride + extent - size), 0)
        if stride == 1:
            total = extent - 1
        small = node.dims.floordiv(total, 2)
        large = node.dims.simplify(total - small)
        before.append(small if auto == "SAME_UPPER" else large)
        after.append(large if auto == "SAME_UPPER" else small)
    return Windows(kernel, strides, dilations, before, after)


def _with_room(node: Node, over: Windows, spatial: tuple[Dim, ...]) -> Windows:
    """`over`, after a check that at least one window fits into the padded input; what is symbolic is checked when the
    model runs. Without a window there is nothing that a kernel could write.
    """
    for axis, size in enumerate(spatial):
        padded, extent = node.dims.simplify(size + over.before[axis] + over.after[axis]), over.extent(axis)
        if node.attr("ceil_mode", 0) or node.dims.at_least(padded, extent):
            continue
        room = node.dims.minimum(padded, extent)
        node.require_equal(room, extent, f"the padded size {padded} has to hold a window of {extent}: the smaller one")
        node.dims.learn(padded, extent)
    return over
