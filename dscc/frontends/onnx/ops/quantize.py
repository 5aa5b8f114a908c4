"""Quantized operators. Weights stay in their compact type: what becomes of them is for the passes to decide."""

from __future__ import annotations

from tvm import relax, te, tirx
from tvm.relax import Expr
from tvm.relax import op as R

from dscc.frontends.onnx.broadcast import broadcast
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.ops.conv import convolve
from dscc.frontends.onnx.ops.linear import operands
from dscc.frontends.onnx.registry import converter
from dscc.frontends.onnx.shapes import shape_expr
from dscc.frontends.onnx.values import DTYPES, Value, numpy_dtype, scalar

_LIMITS = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767), "uint16": (0, 65535)}


def _per_axis(node: Node, parameter: Value, x: Value) -> Value:
    """A scale or zero point shaped to broadcast over x: of one element, per `axis`, or per block along it."""
    if parameter.ndim == 0 or (parameter.ndim == 1 and parameter.shape == (1,)):
        return (
            node.value(parameter.constant.reshape(()))
            if parameter.constant is not None
            else node.value(R.reshape(parameter.expr, relax.ShapeExpr([])))
        )
    axis = node.axis(node.attr("axis", 1), x.ndim)
    block = node.attr("block_size", 0)
    if block:
        repeated = node.value(R.repeat(parameter.expr, block, axis))
        return node.value(node.restate(repeated.expr, list(x.shape), "the scale's blocks"))
    shape = [1] * x.ndim
    shape[axis] = parameter.shape[0]
    return (
        node.value(parameter.constant.reshape(shape))
        if parameter.constant is not None
        else node.value(R.reshape(parameter.expr, shape_expr(shape)))
    )


def _cast(node: Node, x: Value, dtype: str) -> Value:
    """x in another type; a constant stays one."""
    return (
        node.value(x.constant.astype(numpy_dtype(dtype)))
        if x.constant is not None
        else node.value(R.astype(x.expr, dtype))
    )


@converter("DequantizeLinear")
@converter("DequantizeLinear", domain="com.microsoft")
def dequantize(node: Node, x: Value, scale: Value, zero: Value | None = None) -> Expr:
    """(x - zero) * scale, in plain arithmetic on the constant so that a pass can see and move each part."""
    dtype = scale.dtype
    if zero is not None and not (zero.constant is not None and not zero.constant.any()):
        wide = node.value(R.astype(x.expr, "int32" if x.dtype != "int32" else "int64"))
        centre = _per_axis(node, zero, x)
        shift = _cast(node, centre, wide.dtype)
        x = node.value(R.subtract(*broadcast(node, wide, shift)))
    real = node.value(R.astype(x.expr, dtype))
    return R.multiply(*broadcast(node, real, _per_axis(node, scale, x)))


@converter("QuantizeLinear")
@converter("QuantizeLinear", domain="com.microsoft")
def quantize(node: Node, x: Value, scale: Value, zero: Value | None = None) -> Expr:
    """saturate(round_half_even(x / scale) + zero)."""
    target = zero.dtype if zero is not None else DTYPES.get(node.attr("output_dtype", 0), "uint8")
    if target not in _LIMITS:
        raise node.unsupported(f"quantizing to '{target}' is not supported; supported: {', '.join(_LIMITS)}")
    size = _per_axis(node, scale, x)
    data = x if x.dtype == scale.dtype else node.value(R.astype(x.expr, scale.dtype))
    steps = node.emit(round_even(node, node.emit(R.divide(*broadcast(node, data, size)))))
    if zero is not None and not (zero.constant is not None and not zero.constant.any()):
        centre = _per_axis(node, zero, x)
        shift = _cast(node, centre, str(steps.ty.dtype))
        steps = node.emit(R.add(*broadcast(node, node.value(steps), shift)))
    low, high = _LIMITS[target]
    return R.astype(node.emit(R.clip(steps, low, high)), target)


def round_even(node: Node, x: Expr) -> Expr:
    def compute(data: te.Tensor) -> te.Tensor:
        return te.compute(data.shape, lambda *i: tirx.nearbyint(data(*i)), name="round")

    return node.te(compute, x, name="round_even")


@converter("DynamicQuantizeLinear")
def dynamic_quantize(node: Node, x: Value) -> tuple[Expr, Expr, Expr]:
    """uint8 over the range of x, which is widened to hold 0; also the scale and the zero point."""
    axes = list(range(x.ndim))
    low = node.emit(R.minimum(node.emit(R.min(x.expr, axes)), scalar(0, x.dtype)))
    high = node.emit(R.maximum(node.emit(R.max(x.expr, axes)), scalar(0, x.dtype)))
    scale = node.emit(R.divide(node.emit(R.subtract(high, low)), scalar(255, x.dtype)))
    divisor = node.emit(R.where(node.emit(R.equal(scale, scalar(0, x.dtype))), scalar(1, x.dtype), scale))
    zero = node.emit(
        round_even(node, node.emit(R.clip(node.emit(R.divide(node.emit(R.negative(low)), divisor)), 0, 255)))
    )
    steps = node.emit(R.add(node.emit(round_even(node, node.emit(R.divide(x.expr, divisor)))), zero))
    return R.astype(node.emit(R.clip(steps, 0, 255)), "uint8"), scale, R.astype(zero, "uint8")


def _centred(node: Node, x: Value, zero: Value | None, per_row: bool) -> Value:
    """x - zero as int32; a zero point of more than one element is per row (of A) or per column (of B)."""
    wide = node.value(R.astype(x.expr, "int32"))
    if zero is None or (zero.constant is not None and not zero.constant.any()):
        return wide
    shift = node.value(R.astype(zero.expr, "int32"))
    if shift.ndim == 1 and shift.shape != (1,) and per_row:
        shift = node.value(R.reshape(shift.expr, shape_expr([shift.shape[0], 1])))
    return node.value(R.subtract(*broadcast(node, wide, shift)))


@converter("MatMulInteger")
def matmul_integer(node: Node, a: Value, b: Value, a_zero: Value | None = None, b_zero: Value | None = None) -> Expr:
    return R.matmul(*operands(node, _centred(node, a, a_zero, True), _centred(node, b, b_zero, False)))


@converter("ConvInteger")
def conv_integer(
    node: Node, x: Value, weight: Value, x_zero: Value | None = None, weight_zero: Value | None = None
) -> Expr:
    kernel = node.value(R.astype(weight.expr, "int32"))
    if weight_zero is not None:
        shift = node.value(R.astype(weight_zero.expr, "int32"))
        if shift.ndim == 1:
            shift = node.value(R.reshape(shift.expr, shape_expr([shift.shape[0], *[1] * (weight.ndim - 1)])))
        kernel = node.value(R.subtract(*broadcast(node, kernel, shift)))
    return convolve(node, _centred(node, x, x_zero, False).expr, kernel)


def _requantize(node: Node, x: Value, scale: Value, zero: Value) -> Expr:
    """float32 -> the type of `zero`, for the operators that end in a QuantizeLinear."""
    low, high = _LIMITS[zero.dtype]
    steps = node.emit(round_even(node, node.emit(R.divide(*broadcast(node, x, scale)))))
    shifted = node.emit(R.add(*broadcast(node, node.value(steps), node.value(R.astype(zero.expr, "float32")))))
    return R.astype(node.emit(R.clip(shifted, low, high)), zero.dtype)


@converter("QLinearMatMul")
def qlinear_matmul(
    node: Node,
    a: Value,
    a_scale: Value,
    a_zero: Value,
    b: Value,
    b_scale: Value,
    b_zero: Value,
    y_scale: Value,
    y_zero: Value,
) -> Expr:
    product = node.value(R.matmul(*operands(node, _centred(node, a, a_zero, True), _centred(node, b, b_zero, False))))
    scale = node.value(R.multiply(*broadcast(node, _row(node, a_scale), b_scale)))
    real = node.value(R.astype(product.expr, "float32"))
    wide = scale if scale.dtype == "float32" else node.value(R.astype(scale.expr, "float32"))
    out = y_scale if y_scale.dtype == "float32" else node.value(R.astype(y_scale.expr, "float32"))
    return _requantize(node, node.value(R.multiply(*broadcast(node, real, wide))), out, y_zero)


def _row(node: Node, scale: Value) -> Value:
    return (
        node.value(R.reshape(scale.expr, shape_expr([scale.shape[0], 1])))
        if scale.ndim == 1 and scale.shape != (1,)
        else scale
    )


@converter("QLinearConv")
def qlinear_conv(
    node: Node,
    x: Value,
    x_scale: Value,
    x_zero: Value,
    weight: Value,
    w_scale: Value,
    w_zero: Value,
    y_scale: Value,
    y_zero: Value,
    bias: Value | None = None,
) -> Expr:
    total = node.value(conv_integer(node, x, weight, x_zero, w_zero))
    channels = [1, -1, *[1] * (x.ndim - 2)]
    if bias is not None:
        channels[1] = bias.shape[0]
        total = node.value(R.add(total.expr, node.emit(R.reshape(bias.expr, shape_expr(channels)))))
    scale = node.value(R.multiply(x_scale.expr, w_scale.expr))
    if scale.ndim == 1 and scale.shape != (1,):
        channels[1] = scale.shape[0]
        scale = node.value(R.reshape(scale.expr, shape_expr(channels)))
    real = node.value(R.astype(total.expr, "float32"))
    return _requantize(node, node.value(R.multiply(*broadcast(node, real, scale))), y_scale, y_zero)
