"""Normalisation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tvm import relax
from tvm.relax import Expr
from tvm.relax import op as R

from dscc.frontends.onnx.broadcast import broadcast
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.registry import converter
from dscc.frontends.onnx.shapes import reshaped, shape_expr
from dscc.frontends.onnx.values import Dim, Value, scalar, static

_SLICES = 16  # sums of so many are written out, which fuses with what is around them


@converter("BatchNormalization")
def batch_norm(
    node: Node, x: Value, scale: Value, bias: Value, mean: Value, variance: Value
) -> Expr | tuple[Expr, ...]:
    if node.attr("training_mode", 0):
        return _batch_norm_of_batch(node, x, scale, bias, mean, variance)
    each = [scale, bias, mean, variance]
    # TVM 0.27 has no form for a number of channels that is open, as data may decide it; the parameters know it.
    sizes = [x.shape[1], *(value.shape[0] for value in each)] if x.ndim > 1 else []
    channels = next((size for size in sizes if static(size) is not None), None)
    if channels is None or all(static(size) is not None for size in sizes):
        data, parameters = x.expr, [value.expr for value in each]
    else:
        data = node.restate(x.expr, [x.shape[0], channels, *x.shape[2:]], "the input")
        parameters = [node.restate(value.expr, [channels], f"'{value.name}'") for value in each]
    both = R.nn.batch_norm(
        data,
        *parameters,
        axis=1,
        epsilon=node.attr("epsilon", 1e-5),
        training=False,
    )
    return relax.TupleGetItem(node.emit(both), 0)


def _batch_norm_of_batch(
    node: Node, x: Value, scale: Value, bias: Value, mean: Value, variance: Value
) -> tuple[Expr, ...]:
    """By the mean and the variance of x itself, and the running ones after it."""
    axes = [axis for axis in range(x.ndim) if axis != 1]
    average = node.emit(R.mean(x.expr, axes))
    spread = node.emit(R.variance(x.expr, axes))
    share = node.attr("momentum", 0.9)
    running = [
        node.emit(
            R.add(
                R.multiply(old.expr, scalar(share, old.dtype)),
                R.multiply(R.astype(new, old.dtype), scalar(1 - share, old.dtype)),
            )
        )
        for old, new in ((mean, average), (variance, spread))
    ]
    columns = [x.shape[1], *[1] * (x.ndim - 2)]
    factor, shift, low, wide = (
        node.emit(reshaped(R.astype(value, x.dtype), columns)) for value in (scale.expr, bias.expr, average, spread)
    )
    root = node.emit(R.sqrt(node.emit(R.add(wide, scalar(node.attr("epsilon", 1e-5), x.dtype)))))
    centred = node.emit(R.divide(node.emit(R.subtract(x.expr, low)), root))
    return node.emit(R.add(node.emit(R.multiply(centred, factor)), shift)), *running


@converter("InstanceNormalization")
def instance_norm(node: Node, x: Value, scale: Value, bias: Value) -> Expr:
    return R.nn.instance_norm(x.expr, scale.expr, bias.expr, 1, list(range(2, x.ndim)), node.attr("epsilon", 1e-5))


@converter("LayerNormalization")
def layer_norm(node: Node, x: Value, scale: Value, bias: Value | None = None) -> Expr | tuple[Expr, ...]:
    """Over the axes from `axis` on; also the mean and the inverse deviation when they are asked for."""
    first = node.axis(node.attr("axis", -1), x.ndim)
    axes = list(range(first, x.ndim))
    epsilon = node.attr("epsilon", 1e-5)
    wanted = list(x.shape[first:])
    full = all(
        len(p.shape) == len(wanted) and all(node.dims.equal(a, b) for a, b in zip(p.shape, wanted, strict=True))
        for p in (scale, bias)
        if p
    )
    outputs = len([name for name in node.proto.output if name])
    if full and outputs == 1 and x.dtype in ("float32", "float16"):  # the types that Relax's operator takes
        shift = bias.expr if bias is not None else _zeros_like(node, scale)
        return R.nn.layer_norm(x.expr, scale.expr, shift, axes, epsilon)
    wide = _stashed(node, x)
    mean = node.emit(R.mean(wide.expr, axes, keepdims=True))
    centred = node.emit(R.subtract(wide.expr, mean))
    variance = node.emit(R.mean(node.emit(R.multiply(centred, centred)), axes, keepdims=True))
    inverse = node.emit(
        R.divide(scalar(1, wide.dtype), node.emit(R.sqrt(node.emit(R.add(variance, scalar(epsilon, wide.dtype))))))
    )
    result = node.value(R.multiply(centred, inverse))
    if wide.dtype != x.dtype:
        result = node.value(R.astype(result.expr, x.dtype))
    result = node.value(R.multiply(*broadcast(node, result, scale)))
    if bias is not None:
        result = node.value(R.add(*broadcast(node, result, bias)))
    return (result.expr, mean, inverse)[: len(node.proto.output)]


def _stashed(node: Node, x: Value) -> Value:
    """x in the type that the standard computes means and deviations in: float32 for half types."""
    return node.value(R.astype(x.expr, "float32")) if x.dtype in ("float16", "bfloat16") else x


def _zeros_like(node: Node, scale: Value) -> Expr:
    if scale.constant is not None:
        return node.value(np.zeros_like(scale.constant)).expr
    return node.emit(R.zeros(shape_expr(scale.shape), scale.dtype))


@converter("RMSNormalization")
def rms_norm(node: Node, x: Value, scale: Value) -> Expr:
    first = node.axis(node.attr("axis", -1), x.ndim)
    plain = x.dtype in ("float32", "float16") and list(scale.shape) == list(x.shape[first:])
    if first > 0 and plain:  # Relax 0.27 cannot lower it over all axes
        return R.nn.rms_norm(x.expr, scale.expr, list(range(first, x.ndim)), node.attr("epsilon", 1e-5))
    axes = list(range(first, x.ndim))
    wide = _stashed(node, x)
    mean = node.emit(R.mean(node.emit(R.multiply(wide.expr, wide.expr)), axes, keepdims=True))
    root = node.emit(R.sqrt(node.emit(R.add(mean, scalar(node.attr("epsilon", 1e-5), wide.dtype)))))
    normal = node.value(R.divide(wide.expr, root))
    if wide.dtype != x.dtype:
        normal = node.value(R.astype(normal.expr, x.dtype))
    return R.multiply(*broadcast(node, normal, scale))


@converter("GroupNormalization", since=21)
def group_norm(node: Node, x: Value, scale: Value, bias: Value) -> Expr:
    """A scale and a bias per channel."""
    return _grouped(node, x, scale, bias, per_group=False)


@converter("GroupNormalization", since=18)
def group_norm_18(node: Node, x: Value, scale: Value, bias: Value) -> Expr:
    """In opset 18 to 20 there is a scale and a bias per group."""
    return _grouped(node, x, scale, bias, per_group=True)


def _grouped(node: Node, x: Value, scale: Value, bias: Value, per_group: bool) -> Expr:
    groups = node.required("num_groups")
    c = x.shape[1]
    if per_group:
        each = node.dims.floordiv(c, groups)
        if not isinstance(each, int):
            raise node.unsupported(f"the number of channels {c} is symbolic; it must be known")
        scale, bias = (node.value(R.repeat(p.expr, each, 0)) for p in (scale, bias))
    return R.nn.group_norm(x.expr, scale.expr, bias.expr, groups, 1, list(range(2, x.ndim)), node.attr("epsilon", 1e-5))


@converter("LRN")
def lrn(node: Node, x: Value) -> Expr:
    """x / (bias + alpha / size * sum of squares over `size` neighbouring channels) ** beta."""
    size = node.required("size")
    if size < 1:
        raise node.error(f"attribute 'size' is {size}; it must be 1 or more")
    before, after = (size - 1) // 2, size - 1 - (size - 1) // 2
    if (channels := static(x.shape[1])) is not None:  # further there are none
        before, after = (min(reach, max(channels - 1, 0)) for reach in (before, after))
    squares = node.emit(R.multiply(x.expr, x.expr))
    total = _neighbours(node, squares, x.dtype, x.shape, before, after)
    scaled = node.emit(R.multiply(total, scalar(node.attr("alpha", 1e-4) / size, x.dtype)))
    base = node.emit(R.add(scaled, scalar(node.attr("bias", 1.0), x.dtype)))
    return R.divide(x.expr, node.emit(R.power(base, scalar(node.attr("beta", 0.75), x.dtype))))


def _neighbours(node: Node, data: Expr, dtype: str, shape: Sequence[Dim], before: int, after: int) -> Expr:
    """The sum over the channels from `before` those of each element to `after` it."""
    count = before + after + 1
    if count > _SLICES:
        flat = node.emit(reshaped(data, [shape[0], 1, shape[1], node.dims.product(shape[2:])]))
        mean = R.nn.avg_pool2d(flat, (count, 1), padding=(before, 0, after, 0), count_include_pad=True)
        total = node.emit(R.multiply(node.emit(mean), scalar(count, dtype)))
        return node.emit(reshaped(total, shape))
    padded = node.emit(R.nn.pad(data, [0, 0, before, after, *[0, 0] * (len(shape) - 2)]))
    parts = [
        node.emit(R.strided_slice(padded, [1], [offset], [offset + shape[1]], [1], assume_inbound=True))
        for offset in range(count)
    ]
    total = parts[0]
    for part in parts[1:]:
        total = node.emit(R.add(total, part))
    return total


@converter("LpNormalization")
def lp_normalization(node: Node, x: Value) -> Expr:
    """A row of zeros stays a row of zeros."""
    axis, p = node.axis(node.attr("axis", -1), x.ndim), node.attr("p", 2)
    if p == 1:
        size = node.emit(R.sum(node.emit(R.abs(x.expr)), axis, keepdims=True))
    else:
        size = node.emit(R.sqrt(node.emit(R.sum(node.emit(R.multiply(x.expr, x.expr)), axis, keepdims=True))))
    zero = node.emit(R.equal(size, scalar(0, x.dtype)))
    return R.divide(x.expr, node.emit(R.where(zero, scalar(1, x.dtype), size)))


@converter("MeanVarianceNormalization")
def mean_variance_normalization(node: Node, x: Value) -> Expr:
    axes = node.attr("axes", [0, 2, 3])
    centred = node.emit(R.subtract(x.expr, node.emit(R.mean(x.expr, axes, keepdims=True))))
    variance = node.emit(R.mean(node.emit(R.multiply(centred, centred)), axes, keepdims=True))
    return R.divide(centred, node.emit(R.add(node.emit(R.sqrt(variance)), scalar(1e-9, x.dtype))))
