"""Operators that move elements without looking at them."""

from __future__ import annotations

from typing import Any

from tvm import relax, te, tirx
from tvm.relax import Expr
from tvm.relax import op as R

from dscc.frontends.onnx.broadcast import joined
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.ops.slice import strided
from dscc.frontends.onnx.registry import converter
from dscc.frontends.onnx.shapes import int64, reshaped, shape_expr
from dscc.frontends.onnx.values import Dim, Value, numpy_dtype, static


@converter("Transpose")
def transpose(node: Node, x: Value) -> Expr:
    return R.permute_dims(x.expr, node.attr("perm", list(range(x.ndim))[::-1]))


@converter("Concat")
def concat(node: Node, *xs: Value) -> Expr | Value:
    axis = node.axis(node.attr("axis", 1), xs[0].ndim)
    parts = [x for x in xs if static(x.shape[axis]) != 0] or list(xs[:1])
    if len(parts) == 1:
        return parts[0]
    return joined(node, parts, axis)


@converter("Split")
def split(node: Node, x: Value, sizes: Value | None = None) -> list[Expr]:
    axis = node.axis(node.attr("axis", 0), x.ndim)
    total, count = x.shape[axis], len(node.proto.output)
    given = node.ints(sizes, "the sizes", signed=False) if sizes is not None else node.attr("split", None)
    halves = given is None and count == 2  # which can be made of any size
    if given is None:
        part = node.dims.ceildiv(total, count)
        given = [part] * (count - 1)
        given.append(node.dims.simplify(total - part * (count - 1)))
    rest = total
    for index, size in enumerate(given):
        if not halves:
            node.require_at_least(size, 0, f"part {index}")
        rest = rest - size
    node.require_equal(node.dims.simplify(total - rest), total, "the sum of the parts")
    # TVM 0.27 has no parts without elements; of a symbolic length it would make parts of min(size, what is left).
    if all(static(size) for size in (total, *given)):
        cuts = [sum(given[: index + 1]) for index in range(len(given) - 1)]
        if not cuts:
            return [x.expr]
        parts = node.emit(R.split(x.expr, cuts, axis))
        return [relax.TupleGetItem(parts, index) for index in range(len(given))]
    begin: Dim = 0
    out = []
    for size in given:
        end = node.dims.simplify(begin + size)
        out.append(strided(node, x.expr, [axis], [begin], [end], [1]))
        begin = end
    return out


@converter("Tile", since=6)
def tile(node: Node, x: Value, repeats: Value) -> Expr:
    counts = node.ints(repeats, "the repeats", signed=False)
    if all(static(count) is not None for count in counts):
        return R.tile(x.expr, [int(count) for count in counts])
    shape = [node.dims.simplify(dim * count) for dim, count in zip(x.shape, counts, strict=True)]
    return node.te(
        lambda data, target: te.compute(
            list(target), lambda *i: data(*(k % d for k, d in zip(i, data.shape, strict=True))), name="tile"
        ),
        x.expr,
        shape_expr(shape),
        name="tile",
    )


@converter("DepthToSpace")
def depth_to_space(node: Node, x: Value) -> Expr:
    block = node.required("blocksize")
    n, c, h, w = x.shape
    depth = node.dims.floordiv(c, block * block)
    node.require_equal(c, depth * block * block, "the number of channels")
    first = node.attr("mode", "DCR") == "DCR"
    split_shape = [n, block, block, depth, h, w] if first else [n, depth, block, block, h, w]
    parts = node.emit(reshaped(x.expr, split_shape))
    moved = node.emit(R.permute_dims(parts, [0, 3, 4, 1, 5, 2] if first else [0, 1, 4, 2, 5, 3]))
    return reshaped(moved, [n, depth, h * block, w * block])


@converter("SpaceToDepth")
def space_to_depth(node: Node, x: Value) -> Expr:
    block = node.required("blocksize")
    n, c, h, w = x.shape
    high, wide = node.dims.floordiv(h, block), node.dims.floordiv(w, block)
    node.require_equal(h, high * block, "the height")
    node.require_equal(w, wide * block, "the width")
    parts = node.emit(reshaped(x.expr, [n, c, high, block, wide, block]))
    first = node.attr("mode", "DCR") == "DCR"
    moved = node.emit(R.permute_dims(parts, [0, 3, 5, 1, 2, 4] if first else [0, 1, 3, 5, 2, 4]))
    return reshaped(moved, [n, c * block * block, high, wide])


@converter("Trilu")
def trilu(node: Node, x: Value, k: Value | None = None) -> Expr:
    """The upper (or lower) triangle from diagonal k on; the rest is 0."""
    upper = node.attr("upper", 1)
    offset = 0 if k is None else node.ints(k, "k")[0]
    zero = numpy_dtype(x.dtype).type(0).item()

    def compute(data: te.Tensor, diagonal: Any) -> te.Tensor:
        def element(*i: Any) -> Any:
            kept = i[-1] - i[-2] >= diagonal[0] if upper else i[-1] - i[-2] <= diagonal[0]
            return tirx.Select(kept, data(*i), tirx.const(zero, x.dtype))

        return te.compute(data.shape, element, name="trilu")

    return node.te(compute, x.expr, shape_expr([offset]), name="trilu")


@converter("ReverseSequence")
def reverse_sequence(node: Node, x: Value, lengths: Value) -> Expr:
    batch, time = node.axis(node.attr("batch_axis", 1), x.ndim), node.axis(node.attr("time_axis", 0), x.ndim)
    if lengths.ndim != 1 or batch == time:
        raise node.error(
            f"the lengths have rank {lengths.ndim}, which must be 1, and axes {batch} and {time} must not be the same"
        )
    node.require_equal(lengths.shape[0], x.shape[batch], "the number of lengths")

    def compute(data: te.Tensor, count: te.Tensor) -> te.Tensor:
        def element(*i: Any) -> Any:
            # A length that is more than there is would read past the end.
            length = tirx.min(tirx.Cast("int64", count(i[batch])), int64(data.shape[time]))
            at = tirx.Select(i[time] < length, length - 1 - i[time], i[time])
            return data(*(at if axis == time else k for axis, k in enumerate(i)))

        return te.compute(data.shape, element, name="reverse_sequence")

    return node.te(compute, x.expr, lengths.expr, name="reverse_sequence")
