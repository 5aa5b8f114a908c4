"""Reading and writing at indices. A negative index counts from the end; indices that the model computes are kept
inside by wrapping.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import relax, te, tirx
from tvm.relax import Expr
from tvm.relax import op as R

from dscc import library
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.ops.slice import strided
from dscc.frontends.onnx.registry import converter
from dscc.frontends.onnx.shapes import equals, reshaped, shape_expr
from dscc.frontends.onnx.values import Dim, Value, scalar, static

_INDEXED = "the part of the dimension that is indexed"


@converter("Gather")
def gather(node: Node, x: Value, indices: Value) -> Expr:
    """x (..., d, ...) at `indices` along `axis`. Known indices are checked now; mode "wrap" keeps computed ones
    inside.
    """
    axis = node.axis(node.attr("axis", 0), x.ndim)
    size = x.shape[axis]
    known = indices.constant
    if known is None:
        _has_elements(node, size, indices.shape)
        return R.take(x.expr, indices.expr, axis, mode="wrap")
    length = static(size)
    if length is not None and known.size and not (-length <= known.min() and known.max() < length):
        raise node.error(
            f"index {known.min() if known.min() < -length else known.max()} is outside a dimension of {length}"
        )
    if length is None and known.size:
        node.require_at_least(size, max(int(known.max()) + 1, -int(known.min())), _INDEXED)
    if known.ndim == 0:
        begin = node.dims.wrapped(int(known), size)
        part = node.emit(strided(node, x.expr, [axis], [begin], [node.dims.simplify(begin + 1)], [1]))
        return reshaped(part, [dim for at, dim in enumerate(x.shape) if at != axis])
    if length is not None:
        inside = np.where(known < 0, known + length, known)
        return R.take(x.expr, node.value(inside).expr, axis, mode="fast")
    return R.take(x.expr, indices.expr, axis, mode="wrap")


def _has_elements(node: Node, size: Dim, indices: Sequence[Dim]) -> None:
    """Check that there is something to index if there are any indices."""
    if node.dims.at_least(size, 1, decides=False):
        return
    node.require_at_least(size, node.dims.minimum(node.dims.product(indices), 1, decides=False), _INDEXED)


def _beside(node: Node, x: Value, indices: Value, axis: int) -> None:
    """Check that each index along `axis` stands where the data has elements."""
    if indices.ndim != x.ndim:
        raise node.error(f"the indices have rank {indices.ndim}, expected that of the data: {x.ndim}")
    for at, (size, count) in enumerate(zip(x.shape, indices.shape, strict=True)):
        if at == axis:
            _has_elements(node, size, indices.shape)
        else:
            node.require_at_least(size, count, f"dimension {at} of the data")


def wrap(index: Any, size: Any) -> Any:
    """An index as int64, counted from the end if it is negative, and inside in any case."""
    index = tirx.Cast("int64", index)
    index = tirx.Select(index < 0, index + size, index)
    return tirx.max(tirx.min(index, size - 1), 0)


@converter("GatherElements")
def gather_elements(node: Node, x: Value, indices: Value) -> Expr:
    axis = node.axis(node.attr("axis", 0), x.ndim)
    _beside(node, x, indices, axis)

    def compute(data: te.Tensor, at: te.Tensor) -> te.Tensor:
        return te.compute(
            at.shape, lambda *i: data(*i[:axis], wrap(at(*i), data.shape[axis]), *i[axis + 1 :]), name="gather_elements"
        )

    return node.te(compute, x.expr, indices.expr, name="gather_elements")


@converter("GatherND")
def gather_nd(node: Node, x: Value, indices: Value) -> Expr:
    """out[b, j] = x[b, indices[b, j, 0], indices[b, j, 1], ...], with `batch_dims` dimensions b."""
    batch = node.attr("batch_dims", 0)
    depth = static(indices.shape[-1])
    if depth is None:
        raise node.unsupported("the last dimension of the indices is symbolic; it must be known")
    lead = indices.ndim - 1
    shape = [*indices.shape[:-1], *x.shape[batch + depth :]]
    for at in range(batch):
        node.require_equal(indices.shape[at], x.shape[at], f"dimension {at} of the indices")
    for size in x.shape[batch : batch + depth]:
        _has_elements(node, size, shape)

    def compute(data: te.Tensor, at: te.Tensor, target: Any) -> te.Tensor:
        def element(*i: Any) -> Any:
            where = [wrap(at(*i[:lead], k), data.shape[batch + k]) for k in range(depth)]
            return data(*i[:batch], *where, *i[lead:])

        return te.compute(list(target), element, name="gather_nd")

    return node.te(compute, x.expr, indices.expr, shape_expr(shape), name="gather_nd")


_REDUCTIONS = {"none": "update", "add": "add", "mul": "mul", "max": "max", "min": "min"}


def _reduction(node: Node) -> str:
    name = node.attr("reduction", "none")
    if name not in _REDUCTIONS:
        raise node.error(f"reduction is '{name}'; allowed: {', '.join(_REDUCTIONS)}")
    return _REDUCTIONS[name]


def _inside(node: Node, indices: Value, size: Dim) -> Expr:
    """Indices as int64 from 0 on."""

    def compute(at: te.Tensor, extent: Any) -> te.Tensor:
        return te.compute(at.shape, lambda *i: wrap(at(*i), extent[0]), name="wrap")

    return node.emit(node.te(compute, indices.expr, shape_expr([size]), name="wrap_index"))


@converter("ScatterElements", "Scatter")
def scatter_elements(node: Node, x: Value, indices: Value, updates: Value) -> Expr:
    axis = node.axis(node.attr("axis", 0), x.ndim)
    _beside(node, x, indices, axis)
    if updates.ndim != indices.ndim:
        raise node.error(f"the updates have rank {updates.ndim}, expected that of the indices: {indices.ndim}")
    for a, (count, wanted) in enumerate(zip(updates.shape, indices.shape, strict=True)):
        node.require_equal(count, wanted, f"dimension {a} of the updates")
    at = _inside(node, indices, x.shape[axis])
    return R.scatter_elements(x.expr, at, updates.expr, axis, _reduction(node))


@converter("ScatterND")
def scatter_nd(node: Node, x: Value, indices: Value, updates: Value) -> Expr:
    """Writes whole slices of x: turned into writes of single elements of the flattened tensor."""
    depth = static(indices.shape[-1])
    if depth is None:
        raise node.unsupported("the last dimension of the indices is symbolic; it must be known")
    inner = list(x.shape[depth:])
    lead = list(indices.shape[:-1])
    shape = [*lead, *inner]
    for size in x.shape[:depth]:
        _has_elements(node, size, shape)

    def compute(at: te.Tensor, extents: Any, target: Any) -> te.Tensor:
        def element(*i: Any) -> Any:
            flat: Any = tirx.const(0, "int64")
            for axis, extent in enumerate(extents):
                flat = flat * extent + (
                    wrap(at(*i[: len(lead)], axis), extent) if axis < depth else i[len(lead) + axis - depth]
                )
            return flat

        return te.compute(list(target), element, name="flat_index")

    count = node.dims.product(shape)
    flat = node.emit(node.te(compute, indices.expr, shape_expr(x.shape), shape_expr(shape), name="flat_index"))
    data = node.emit(reshaped(x.expr, [node.dims.product(x.shape)]))
    at = node.emit(reshaped(flat, [count]))
    values = node.emit(reshaped(updates.expr, [count]))
    return reshaped(node.emit(R.scatter_elements(data, at, values, 0, _reduction(node))), x.shape)


@converter("OneHot")
def one_hot(node: Node, indices: Value, depth: Value, values: Value) -> Expr:
    """values = [off, on]; a negative index counts from the end, one outside gives a row of `off`."""
    axis = node.attr("axis", -1)
    axis = axis + indices.ndim + 1 if axis < 0 else axis
    whole = depth if depth.constant is None else node.value(depth.constant.astype(np.int64))  # floats are allowed too
    count = node.ints(whole, "the depth", signed=False)[0]
    shape = [*indices.shape[:axis], count, *indices.shape[axis:]]

    def compute(at: te.Tensor, off_on: te.Tensor, target: Any) -> te.Tensor:
        def element(*i: Any) -> Any:
            index = tirx.Cast("int64", at(*i[:axis], *i[axis + 1 :]))
            index = tirx.Select(index < 0, index + target[axis], index)
            return tirx.Select(equals(index, i[axis]), off_on(1), off_on(0))

        return te.compute(list(target), element, name="one_hot")

    return node.te(compute, indices.expr, values.expr, shape_expr(shape), name="one_hot")


@converter("NonZero")
def non_zero(node: Node, x: Value) -> Expr:
    """(rank, count): count is a symbol that only the running model knows."""
    data = x.expr if x.dtype == "bool" else node.emit(R.not_equal(x.expr, scalar(0, x.dtype)))
    found = node.bb.emit(library.call("nonzero", [data], relax.TensorType(dtype="int64", ndim=2)))
    known = relax.TensorType(shape_expr([x.ndim, node.dims.symbol("nonzero", 0)]), "int64")
    return node.bb.match_cast(found, known)


@converter("Compress")
def compress(node: Node, x: Value, condition: Value) -> Expr:
    axis = node.attr("axis", None)
    data = x.expr
    if axis is None:
        axis, data = 0, node.emit(reshaped(x.expr, [node.dims.product(x.shape)]))
    axis = node.axis(axis, x.ndim)
    at = node.value(non_zero(node, condition))
    return R.take(data, node.emit(reshaped(at.expr, [at.shape[1]])), axis, mode="clip")
