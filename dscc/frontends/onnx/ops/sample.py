"""Reading images between their pixels, at points that the model computes.

    at, weight (n, taps, points)   out[n, c, p] = sum over t of weight[n, t, p] * x[n, c, at[n, t, p]]

Points are found once for all channels; a tap outside of the image is -1 and counts 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import te, tirx
from tvm.relax import Expr, TupleGetItem
from tvm.relax import op as R

from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.ops.conv import with_bias
from dscc.frontends.onnx.ops.detection import working_type
from dscc.frontends.onnx.registry import converter
from dscc.frontends.onnx.shapes import equals, int64, reshaped, shape_expr
from dscc.frontends.onnx.values import Dim, Value, static

_MODES = {"linear": "linear", "bilinear": "linear", "cubic": "cubic", "bicubic": "cubic", "nearest": "nearest"}
_TAPS = {"nearest": 1, "linear": 2, "cubic": 4}
_CUBIC = -0.75
_MANY = 4  # channels
_FAR = 1e9  # a coordinate beyond is as far outside as this: it fits into an integer


@converter("GridSample")
def grid_sample(node: Node, x: Value, grid: Value) -> Expr:
    """x (n, c, *sizes) at grid (n, *out, axes): along each axis, the last one first, -1 and 1 are the ends."""
    mode, padding = node.attr("mode", "linear"), node.attr("padding_mode", "zeros")
    if mode not in _MODES:
        raise node.error(f"mode is '{mode}'; allowed: {', '.join(_MODES)}")
    if padding not in ("zeros", "border", "reflection"):
        raise node.error(f"padding_mode is '{padding}'; allowed: zeros, border, reflection")
    method, corners, axes = _MODES[mode], bool(node.attr("align_corners", 0)), x.ndim - 2
    node.require_equal(grid.shape[-1], axes, "the last dimension of the grid")
    node.require_equal(grid.shape[0], x.shape[0], "the batch of the grid")
    outer = list(grid.shape[1:-1])
    count = node.dims.product(outer)
    points = node.emit(reshaped(grid.expr, [grid.shape[0], count, axes]))
    working = working_type(x.dtype)
    per_axis = _TAPS[method]

    def compute(where: te.Tensor, sizes: Any) -> list[te.Tensor]:
        def coordinate(n: Any, p: Any, axis: int) -> Any:
            """In pixels, brought inside as `padding` says."""
            size = tirx.Cast(working, sizes[axis])
            given = tirx.Cast(working, where(n, p, axes - 1 - axis))
            low, high = (_real(0, working), size - 1) if corners else (_real(-0.5, working), size - 0.5)
            v = (given + 1) / 2 * (size - 1) if corners else ((given + 1) * size - 1) / 2
            if method == "nearest":
                v = tirx.nearbyint(v)
            outside = tirx.any(v < low, v > high)
            if padding == "border":
                v = tirx.Select(outside, tirx.max(tirx.min(v, size - 1), _real(0, working)), v)
            elif padding == "reflection":
                v = tirx.Select(outside, _reflected(v, low, high, working), v)
            return tirx.max(tirx.min(v, _real(_FAR, working)), _real(-_FAR, working))

        def pixel(index: Any, axis: int) -> tuple[Any, Any]:
            """The pixel that is read for an index, and whether there is one."""
            size = int64(sizes[axis])
            inside = tirx.all(index >= 0, index < size)
            if padding == "zeros":
                return index, inside
            if padding == "reflection":
                extent = tirx.Cast(working, size)
                low, high = (_real(0, working), extent - 1) if corners else (_real(-0.5, working), extent - 0.5)
                folded = tirx.Cast("int64", _reflected(tirx.Cast(working, index), low, high, working))
                index = tirx.Select(inside, index, folded)
            return tirx.max(tirx.min(index, size - 1), 0), tirx.const(True, "bool")

        def tap(n: Any, t: Any, p: Any) -> tuple[Any, Any]:
            flat, weight, valid = int64(0), _real(1, working), tirx.const(True, "bool")
            for axis in range(axes):
                v = coordinate(n, p, axis)
                digit = t // per_axis ** (axes - 1 - axis) % per_axis
                base = tirx.floor(v)
                offset = digit - (1 if method == "cubic" else 0)
                index, inside = pixel(tirx.Cast("int64", base) + offset, axis)
                flat = flat * sizes[axis] + index
                valid = tirx.all(valid, inside)
                if method != "nearest":
                    distance = tirx.abs(tirx.Cast(working, offset) - (v - base))
                    weight = weight * _weight(method, distance, working)
            return tirx.Select(valid, flat, int64(-1)), weight

        shape = (where.shape[0], int64(per_axis**axes), where.shape[1])
        at = te.compute(shape, lambda n, t, p: tap(n, t, p)[0], name="at")
        return [at, te.compute(shape, lambda n, t, p: tap(n, t, p)[1], name="weight")]

    taps = node.emit(node.te(compute, points, shape_expr(x.shape[2:]), name="grid_taps"))
    found = _read(node, x.expr, node.emit(TupleGetItem(taps, 0)), node.emit(TupleGetItem(taps, 1)))
    return reshaped(found, [*x.shape[:2], *outer])


def _real(value: float, dtype: str) -> Any:
    return tirx.const(value, dtype)


def _reflected(v: Any, low: Any, high: Any, dtype: str) -> Any:
    """v mirrored at both ends until it is between them."""
    span = tirx.max(high - low, _real(1e-6, dtype))
    distance = tirx.abs(v - low)
    rest = distance - tirx.floor(distance / (2 * span)) * (2 * span)
    return low + tirx.min(rest, 2 * span - rest)


def _weight(method: str, d: Any, dtype: str) -> Any:
    """Of a pixel at the distance d."""
    if method == "linear":
        return tirx.max(1 - d, _real(0, dtype))
    near = ((_CUBIC + 2) * d - (_CUBIC + 3)) * d * d + 1
    far = ((_CUBIC * d - 5 * _CUBIC) * d + 8 * _CUBIC) * d - 4 * _CUBIC
    return tirx.Select(d <= 1, near, far)


def _read(node: Node, x: Expr, at: Expr, weight: Expr) -> Expr:
    """x (n, c, ...) at taps (n, t, p): (n, c, p), of the type of x.

    All channels of a point lie side by side while it is read, unless they are too few for that to matter.
    """
    shape = list(x.ty.shape.values)
    flat = node.emit(reshaped(x, [*shape[:2], node.dims.product(shape[2:])]))
    single = static(at.ty.shape.values[1]) == 1
    few = (static(shape[1]) or _MANY) < _MANY
    order = (0, 1, 2) if few else (0, 2, 1)

    def compute(data: te.Tensor, where: te.Tensor, factor: te.Tensor) -> te.Tensor:
        zero = tirx.const(0, factor.dtype)

        def value(i: Sequence[Any], t: Any) -> Any:
            n, c, p = (i[axis] for axis in order)
            place = [n, c, tirx.max(where(n, t, p), 0)]
            read = tirx.Cast(factor.dtype, data(*(place[axis] for axis in order)))
            return tirx.if_then_else(where(n, t, p) >= 0, read * factor(n, t, p), zero)

        sizes = [data.shape[0], data.shape[order.index(1)], where.shape[2]]
        extents = [sizes[axis] for axis in order]
        if single:
            return te.compute(extents, lambda *i: tirx.Cast(data.dtype, value(i, 0)), name="sample")
        k = te.reduce_axis((0, where.shape[1]), "t")
        total = te.compute(extents, lambda *i: te.sum(value(i, k), axis=k), name="sample")
        if data.dtype == factor.dtype:
            return total
        return te.compute(extents, lambda *i: tirx.Cast(data.dtype, total(*i)), name="sampled")

    if few:
        return node.emit(node.te(compute, flat, at, weight, name="sample"))
    rows = node.emit(R.permute_dims(flat, [0, 2, 1]))
    return node.emit(R.permute_dims(node.emit(node.te(compute, rows, at, weight, name="sample")), [0, 2, 1]))


@converter("DeformConv")
def deform_conv(
    node: Node, x: Value, weight: Value, offset: Value, bias: Value | None = None, mask: Value | None = None
) -> Expr:
    """A convolution whose window has its own offset (and weight, `mask`) for each of its elements at each place: what
    it reads is collected, then it is a matrix product.
    """
    if x.ndim != 4:
        raise node.unsupported(f"an input of rank {x.ndim} is not supported; it must be 4")
    groups, parts = node.attr("group", 1), node.attr("offset_group", 1)
    rows, columns = (_size(node, dim) for dim in weight.shape[2:])
    strides, dilations = node.attr("strides", None) or [1, 1], node.attr("dilations", None) or [1, 1]
    pads = node.attr("pads", None) or [0, 0, 0, 0]
    n, c, h, w = x.shape
    out_h, out_w = offset.shape[2:]
    outputs, taps = weight.shape[0], rows * columns
    node.require_equal(c, node.dims.simplify(weight.shape[1] * groups), "the number of channels")
    node.require_equal(offset.shape[1], 2 * parts * taps, "the number of offsets")
    working = working_type(x.dtype)
    count = node.dims.simplify(out_h * out_w)
    shifts = node.emit(reshaped(offset.expr, [n, parts, taps, 2, out_h, out_w]))
    factors = None if mask is None else node.emit(reshaped(mask.expr, [n, parts, taps, out_h, out_w]))

    def compute(shift: te.Tensor, *rest: Any) -> list[te.Tensor]:
        *factor, size = rest

        def tap(b: Any, t: Any, y: Any, z: Any, element: Any) -> tuple[Any, Any]:
            """Of part b % parts of image b // parts: tap t of 4 for element and place."""
            flat, factor_, valid = int64(0), _real(1, working), tirx.const(True, "bool")
            for axis, (out, inner) in enumerate(((y, element // columns), (z, element % columns))):
                moved = tirx.Cast(working, shift(b // parts, b % parts, element, axis, y, z))
                v = moved + tirx.Cast(working, out * strides[axis] - pads[axis] + inner * dilations[axis])
                v = tirx.max(tirx.min(v, _real(_FAR, working)), _real(-_FAR, working))
                base = tirx.floor(v)
                digit = t // 2 if axis == 0 else t % 2
                index = tirx.Cast("int64", base) + digit
                flat = flat * size[axis] + index
                valid = tirx.all(valid, index >= 0, index < int64(size[axis]))
                factor_ = factor_ * tirx.Select(equals(digit, 0), 1 - (v - base), v - base)
            if factor:
                factor_ = factor_ * tirx.Cast(working, factor[0](b // parts, b % parts, element, y, z))
            return tirx.Select(valid, flat, int64(-1)), factor_

        shape = (shift.shape[0] * parts, int64(4), shift.shape[4], shift.shape[5], int64(taps))
        at = te.compute(shape, lambda *i: tap(*i)[0], name="at")
        return [at, te.compute(shape, lambda *i: tap(*i)[1], name="weight")]

    given = [shifts, *([] if factors is None else [factors])]
    found = node.emit(node.te(compute, *given, shape_expr([h, w]), name="deform_taps"))
    points, each = [node.dims.simplify(n * parts), 4, count * taps], node.dims.floordiv(c, parts)
    at, factor = (node.emit(reshaped(node.emit(TupleGetItem(found, i)), points)) for i in (0, 1))
    images = node.emit(reshaped(x.expr, [points[0], each, h, w]))
    # (n * parts, places * elements, c / parts), and from there a row for every place: elements and channels.
    rows = node.emit(R.permute_dims(_read(node, images, at, factor), [0, 2, 1]))
    inner, per_group = node.dims.simplify(weight.shape[1] * taps), node.dims.floordiv(outputs, groups)
    if parts > 1 or groups > 1:
        apart = node.emit(reshaped(rows, [n, parts, count, taps, each]))
        joined = node.emit(R.permute_dims(apart, [0, 2, 1, 4, 3]))  # channels of all parts, then elements
        left = node.emit(reshaped(joined, [n, count, groups, inner]))
        left = node.emit(R.permute_dims(left, [0, 2, 1, 3]))
        right = node.emit(reshaped(weight.expr, [1, groups, per_group, inner]))
        product = node.emit(R.matmul(left, node.emit(R.permute_dims(right, [0, 1, 3, 2]))))
        product = node.emit(reshaped(node.emit(R.permute_dims(product, [0, 1, 3, 2])), [n, outputs, count]))
    else:
        left = node.emit(reshaped(rows, [n, count, inner]))
        right = node.emit(R.permute_dims(weight.expr, [2, 3, 1, 0]))
        product = node.emit(R.matmul(left, node.emit(reshaped(right, [inner, outputs]))))
        product = node.emit(R.permute_dims(product, [0, 2, 1]))
    return with_bias(node, reshaped(product, [n, outputs, out_h, out_w]), bias, 4)


def _size(node: Node, dim: Dim) -> int:
    size = static(dim)
    if size is None:
        raise node.unsupported(f"the weight has a symbolic dimension {dim}; the kernel's size must be known")
    return size


@converter("Col2Im")
def col2im(node: Node, x: Value, image: Value, block: Value) -> Expr:
    """x (n, c * elements of a block, blocks) put back into images (n, c, *image); what overlaps is added."""
    sizes = node.ints(image, "the image's shape", signed=False)
    kernel = node.ints(block, "the block's shape", signed=False)
    rank = len(sizes)
    strides, dilations = node.attr("strides", None) or [1] * rank, node.attr("dilations", None) or [1] * rank
    pads = node.attr("pads", None) or [0] * (2 * rank)
    elements = node.dims.maximum(node.dims.product(kernel), 1)  # 0 may only come from bad input, but would trap
    channels = node.dims.floordiv(x.shape[1], elements)
    node.require_equal(x.shape[1], node.dims.simplify(channels * elements), "the number of channels")
    blocks = [
        node.dims.simplify((s + pads[a] + pads[a + rank] - dilations[a] * (k - 1) - 1) // strides[a] + 1)
        for a, (s, k) in enumerate(zip(sizes, kernel, strict=True))
    ]
    node.require_equal(x.shape[2], node.dims.product(blocks), "the number of blocks")
    return node.te(
        _collect(rank, strides, dilations, pads),
        x.expr,
        shape_expr([x.shape[0], channels, *sizes]),
        shape_expr(kernel),
        shape_expr(blocks),
        name="col2im",
    )


def _collect(rank: int, strides: Sequence[int], dilations: Sequence[int], pads: Sequence[int]) -> Callable[..., Any]:
    def compute(data: te.Tensor, target: Any, window: Any, count: Any) -> te.Tensor:
        steps = [te.reduce_axis((0, size), f"k{axis}") for axis, size in enumerate(window)]

        def element(n: Any, c: Any, *at: Any) -> Any:
            row, column, valid = c, int64(0), []
            for axis in range(rank):
                first = at[axis] + pads[axis] - steps[axis] * dilations[axis]
                index = first // strides[axis]
                row = row * window[axis] + steps[axis]
                column = column * count[axis] + index
                valid += [first >= 0, equals(first % strides[axis], 0), index < count[axis]]
            value = tirx.if_then_else(tirx.all(*valid), data(n, row, column), tirx.const(0, data.dtype))
            return te.sum(value, axis=steps)

        return te.compute(list(target), element, name="col2im")

    return compute


@converter("TensorScatter")
def tensor_scatter(node: Node, past: Value, update: Value, places: Value | None = None) -> Expr:
    """past with `update` written along `axis` from index places[batch] on; mode circular goes on at the beginning."""
    axis, mode = node.axis(node.attr("axis", -2), past.ndim), node.attr("mode", "linear")
    if mode not in ("linear", "circular"):
        raise node.error(f"mode is '{mode}'; allowed: linear, circular")

    def compute(data: te.Tensor, new: te.Tensor, *first: te.Tensor) -> te.Tensor:
        def element(*i: Any) -> Any:
            at = i[axis] - (tirx.Cast("int64", first[0](i[0])) if first else int64(0))
            if mode == "circular":
                at = tirx.floormod(at, int64(data.shape[axis]))
            length = int64(new.shape[axis])
            inside = tirx.max(tirx.min(at, length - 1), 0)
            written = new(*(inside if a == axis else k for a, k in enumerate(i)))
            return tirx.if_then_else(tirx.all(at >= 0, at < length), written, data(*i))

        return te.compute(data.shape, element, name="tensor_scatter")

    for a, (size, wanted) in enumerate(zip(update.shape, past.shape, strict=True)):
        if a != axis:
            node.require_equal(size, wanted, f"dimension {a} of the update")
    args = [past.expr, update.expr, *([] if places is None else [places.expr])]
    return node.te(compute, *args, name="tensor_scatter")
