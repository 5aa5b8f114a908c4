"""Factors and offsets per channel: `scale[c] * data + shift[c]`, recognised in whatever form an exporter wrote them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import relax

from dscc.passes.graph import Graph, Node
from dscc.passes.values import Dim, const, constant, dims, dtype, rank, same_dims


@dataclass
class Affine:
    """`scale * data + shift`, where both are vectors along `axis` of `data`, or scalars if `axis` is None.

    Either may be None: no factor, or no offset.
    """

    data: relax.Expr
    scale: np.ndarray | None
    shift: np.ndarray | None
    axis: int | None

    def along(self, axis: int, channels: Dim) -> tuple[np.ndarray, np.ndarray] | None:
        """Scale and shift as float64 vectors of `channels` elements along `axis`; None if they vary along another."""
        if self.axis not in (None, axis) or not isinstance(channels, int):
            return None
        scale = np.ones(channels) if self.scale is None else np.broadcast_to(self.scale.astype("float64"), channels)
        shift = np.zeros(channels) if self.shift is None else np.broadcast_to(self.shift.astype("float64"), channels)
        return scale, shift


def affine_of(node: Node, graph: Graph) -> Affine | None:
    """What `node` does to its input, if that is one factor or one offset per channel."""
    if node.op == "relax.negative":
        return Affine(node.value.args[0], np.array(-1.0), None, None)
    if node.op not in ("relax.add", "relax.subtract", "relax.multiply", "relax.divide"):
        return None
    left, right = node.value.args
    fixed = constant(graph.value(right))
    data, swapped = left, False
    if fixed is None:
        fixed, data, swapped = constant(graph.value(left)), right, True
    ndim = rank(data)
    if (
        fixed is None
        or fixed.dtype.kind != "f"
        or not np.all(np.isfinite(fixed))
        or ndim is None
        or (swapped and node.op == "relax.divide")
    ):
        return None
    if not same_dims(dims(node.var), dims(data)):  # the constant repeats the data, too
        return None
    vector = channel_vector(fixed, ndim)
    if vector is None:
        return None
    values, axis = vector
    if node.op == "relax.add":
        return Affine(data, None, values, axis)
    if node.op == "relax.subtract":
        return Affine(data, np.array(-1.0), values, axis) if swapped else Affine(data, None, -values, axis)
    if node.op == "relax.divide":
        return Affine(data, 1 / values, None, axis) if np.all(values) else None
    return Affine(data, values, None, axis)


def channel_vector(fixed: np.ndarray, ndim: int) -> tuple[np.ndarray, int | None] | None:
    """The elements of `fixed` and the axis along which they vary, when it is broadcast against `ndim` dimensions.

    The axis is None for one element. None altogether if it varies along several axes, or has more dimensions than the
    data.
    """
    fixed = fixed.astype("float64")
    if fixed.size == 1 and fixed.ndim <= ndim:
        return fixed.reshape(()), None
    wide = [i for i, d in enumerate(fixed.shape) if d != 1]
    if fixed.ndim > ndim or len(wide) != 1:
        return None
    return fixed.reshape(-1), wide[0] + ndim - fixed.ndim


def apply(affine: Affine, data: relax.Expr) -> relax.Expr:
    """`scale * data + shift` as Relax operators, with constants of the rank and type of `affine.data`."""
    for op, values in ((relax.op.multiply, affine.scale), (relax.op.add, affine.shift)):
        if values is not None:
            data = op(data, const(_shaped(values, affine)))
    return data


def _shaped(values: np.ndarray, affine: Affine) -> np.ndarray:
    ndim, kind = rank(affine.data), dtype(affine.data)
    if affine.axis is None or values.ndim == 0 or ndim is None:
        return values.astype(kind)
    return values.astype(kind).reshape([-1 if i == affine.axis else 1 for i in range(affine.axis, ndim)])
