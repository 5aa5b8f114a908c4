"""Operators that move elements without looking at them."""

from __future__ import annotations

from typing import Any

from tvm import relax, te, tirx
from tvm.relax import Expr
from tvm.relax import op as R

from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.registry import converter
from dscc.frontends.onnx.shapes import equals, int64, shape_expr
from dscc.frontends.onnx.values import Dim, Value, is_float, numpy_dtype, scalar, static


@converter("Transpose")
def transpose(node: Node, x: Value) -> Expr:
    return R.permute_dims(x.expr, node.attr("perm", list(range(x.ndim))[::-1]))


@converter("Concat")
def concat(node: Node, *xs: Value) -> Expr | Value:
    axis = node.axis(node.attr("axis", 1), xs[0].ndim)
    parts = [x for x in xs if static(x.shape[axis]) != 0] or list(xs[:1])
    if len(parts) == 1:
        return parts[0]
    stated = [parts[0].expr]
    for part in parts[1:]:
        if part.ndim != parts[0].ndim:
            raise node.error(f"inputs of rank {parts[0].ndim} and {part.ndim} cannot be joined")
        wanted = [dim if at == axis else parts[0].shape[at] for at, dim in enumerate(part.shape)]
        stated.append(node.restate(part.expr, wanted, "an input"))
    return R.concat(stated, axis)


@converter("Split")
def split(node: Node, x: Value, sizes: Value | None = None) -> list[Expr]:
    axis = node.axis(node.attr("axis", 0), x.ndim)
    total, count = x.shape[axis], len(node.proto.output)
    given = node.ints(sizes, "the sizes", signed=False) if sizes is not None else node.attr("split", None)
    if given is None:
        part = node.dims.ceildiv(total, count)
        given = [part] * (count - 1)
        given.append(node.dims.simplify(total - part * (count - 1)))
    rest = total
    for size in given:
        rest = rest - size
    node.require_equal(node.dims.simplify(total - rest), total, "the sum of the parts")
    if all(static(size) is not None for size in given):
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


@converter("Slice", since=1)
def slice_attributes(node: Node, x: Value) -> Expr | Value:
    """Bounds as attributes, up to opset 9."""
    starts, ends = node.required("starts"), node.required("ends")
    return _slice(node, x, starts, ends, node.attr("axes", None), None)


@converter("Slice", since=10)
def slice_inputs(
    node: Node, x: Value, starts: Value, ends: Value, axes: Value | None = None, steps: Value | None = None
) -> Expr | Value:
    where = None if axes is None else [int(axis) for axis in node.numbers(axes, "the axes")]
    step = None if steps is None else [int(number) for number in node.numbers(steps, "the steps")]
    return _slice(node, x, node.ints(starts, "starts"), node.ints(ends, "ends"), where, step)


def _slice(
    node: Node, x: Value, starts: list[Dim], ends: list[Dim], axes: list[int] | None, steps: list[int] | None
) -> Expr | Value:
    where = [node.axis(axis, x.ndim) for axis in (axes if axes is not None else range(len(starts)))]
    step = steps if steps is not None else [1] * len(starts)
    dims = node.dims
    begin, end = [], []
    for axis, low, high, by in zip(where, starts, ends, step, strict=True):
        size = x.shape[axis]
        if by > 0:
            first = dims.clamp(dims.wrapped(low, size), 0, size)
            begin.append(first)
            end.append(dims.maximum(dims.clamp(dims.wrapped(high, size), 0, size), first))
        elif by < 0:
            first = dims.clamp(dims.wrapped(low, size), -1, dims.simplify(size - 1))
            begin.append(first)
            last = dims.clamp(dims.wrapped(high, size), -1, dims.simplify(size - 1))  # far below 0: all the way down
            end.append(dims.minimum(last, first))
        else:
            raise node.error("a step is 0; it must be another number")
    if all(
        by == 1 and static(b) == 0 and dims.equal(e, x.shape[a])
        for a, b, e, by in zip(where, begin, end, step, strict=True)
    ):
        return x
    return strided(node, x.expr, where, begin, end, step)


def strided(node: Node, x: Expr, axes: list[int], begin: list[Dim], end: list[Dim], step: list[int]) -> Expr:
    """Elements from `begin`, which is inside, to before `end`; a kernel of ours where Relax's operator takes no such
    bounds.
    """
    if all(by > 0 for by in step) and all(
        static(b) is not None and static(e) is not None for b, e in zip(begin, end, strict=True)
    ):
        return R.strided_slice(x, axes, begin, end, step, assume_inbound=True)
    dims = node.dims
    shape: list[Dim] = list(x.ty.shape.values)
    offset: list[Dim] = [0] * len(shape)
    by_axis = [1] * len(shape)
    for axis, first, last, by in zip(axes, begin, end, step, strict=True):
        shape[axis] = dims.ceildiv(last - first, by) if by > 0 else dims.ceildiv(first - last, -by)
        offset[axis], by_axis[axis] = first, by

    def compute(data: te.Tensor, target: Any, start: Any) -> te.Tensor:
        return te.compute(
            list(target),
            lambda *i: data(*(s + k * by for s, k, by in zip(start, i, by_axis, strict=True))),
            name="slice",
        )

    return node.te(compute, x, shape_expr(shape), shape_expr(offset), name="slice")


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


@converter("Pad", since=1)
def pad_attributes(node: Node, x: Value) -> Expr:
    """Amounts as attributes, up to opset 10."""
    pads = node.attr("pads", None) or node.required("paddings")
    return _pad(node, x, pads, scalar(node.attr("value", 0.0), x.dtype), node.attr("value", 0.0))


@converter("Pad", since=11)
def pad_inputs(
    node: Node, x: Value, pads: Value, value: Value | None = None, axes: Value | None = None
) -> Expr | Value:
    amounts = node.ints(pads, "the pads")
    if axes is not None:
        where = [node.axis(int(axis), x.ndim) for axis in node.numbers(axes, "the axes")]
        full: list[Dim] = [0] * (2 * x.ndim)
        for index, axis in enumerate(where):
            full[axis], full[axis + x.ndim] = amounts[index], amounts[index + len(where)]
        amounts = full
    if all(static(amount) == 0 for amount in amounts):
        return x
    fill = value if value is not None and value.shape == () else None
    if value is not None and fill is None:
        fill = node.value(R.reshape(value.expr, relax.ShapeExpr([])))
    known = 0.0 if value is None else value.constant.item() if value.constant is not None else None
    return _pad(node, x, amounts, fill.expr if fill is not None else scalar(0, x.dtype), known)


def _pad(node: Node, x: Value, pads: list[Dim], fill: Expr, known: float | None) -> Expr:
    mode = node.attr("mode", "constant")
    before, after = pads[: x.ndim], pads[x.ndim :]
    fixed = all(static(amount) is not None and int(amount) >= 0 for amount in pads)
    if mode == "constant" and fixed and known is not None and is_float(x.dtype):
        return R.nn.pad(
            x.expr, [int(amount) for pair in zip(before, after, strict=True) for amount in pair], pad_value=float(known)
        )
    if mode not in ("constant", "edge", "reflect", "wrap"):
        raise node.error(f"mode is '{mode}'; supported: constant, edge, reflect, wrap")
    shape = [node.dims.simplify(d + b + a) for d, b, a in zip(x.shape, before, after, strict=True)]

    def compute(data: te.Tensor, value: te.Tensor, target: Any, low: Any) -> te.Tensor:
        def element(*index: Any) -> Any:
            moved = [i - b for i, b in zip(index, low, strict=True)]
            if mode != "constant":
                return data(*(_source(mode, i, d) for i, d in zip(moved, data.shape, strict=True)))
            outside = [i for i, d, t in zip(moved, data.shape, target, strict=True) if not d.same_as(t)]
            inside = [
                c for i, d, t in zip(moved, data.shape, target, strict=True) if i in outside for c in (i >= 0, i < d)
            ]
            return tirx.if_then_else(tirx.all(*inside), data(*moved), value()) if inside else data(*moved)

        return te.compute(list(target), element, name="pad")

    return node.te(compute, x.expr, fill, shape_expr(shape), shape_expr(before), name=f"pad_{mode}")


def _source(mode: str, i: Any, size: Any) -> Any:
    """The index inside that an index outside stands for."""
    if mode == "edge":
        return tirx.max(tirx.min(i, size - 1), 0)
    if mode == "wrap":
        return i % size
    period = tirx.max(2 * size - 2, 1)
    folded = i % period
    return (
        tirx.min(folded, 2 * size - 2 - folded + tirx.Select(equals(size, 1), int64(1), int64(0)))
        if static(size) != 1
        else 0
    )


@converter("DepthToSpace")
def depth_to_space(node: Node, x: Value) -> Expr:
    block = node.required("blocksize")
    n, c, h, w = x.shape
    depth = node.dims.floordiv(c, block * block)
    node.require_equal(c, depth * block * block, "the number of channels")
    first = node.attr("mode", "DCR") == "DCR"
    split_shape = [n, block, block, depth, h, w] if first else [n, depth, block, block, h, w]
    parts = node.emit(R.reshape(x.expr, shape_expr(split_shape)))
    moved = node.emit(R.permute_dims(parts, [0, 3, 4, 1, 5, 2] if first else [0, 1, 4, 2, 5, 3]))
    return R.reshape(moved, shape_expr([n, depth, h * block, w * block]))


@converter("SpaceToDepth")
def space_to_depth(node: Node, x: Value) -> Expr:
    block = node.required("blocksize")
    n, c, h, w = x.shape
    high, wide = node.dims.floordiv(h, block), node.dims.floordiv(w, block)
    node.require_equal(h, high * block, "the height")
    node.require_equal(w, wide * block, "the width")
    parts = node.emit(R.reshape(x.expr, shape_expr([n, c, high, block, wide, block])))
    moved = node.emit(R.permute_dims(parts, [0, 3, 5, 1, 2, 4]))
    return R.reshape(moved, shape_expr([n, c * block * block, high, wide]))


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
    batch, time = node.attr("batch_axis", 1), node.attr("time_axis", 0)

    def compute(data: te.Tensor, count: te.Tensor) -> te.Tensor:
        def element(*i: Any) -> Any:
            length = tirx.Cast("int64", count(i[batch]))
            at = tirx.Select(i[time] < length, length - 1 - i[time], i[time])
            return data(*(at if axis == time else k for axis, k in enumerate(i)))

        return te.compute(data.shape, element, name="reverse_sequence")

    return node.te(compute, x.expr, lengths.expr, name="reverse_sequence")
