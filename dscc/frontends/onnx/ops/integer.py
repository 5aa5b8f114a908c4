"""Products of quantized tensors, in integers: MatMulInteger, ConvInteger and what quantizes their results again."""

from __future__ import annotations

from typing import Any

from tvm import te, tirx
from tvm.relax import Expr
from tvm.relax import op as R

from dscc.frontends.onnx.broadcast import broadcast
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.ops.cast import convert
from dscc.frontends.onnx.ops.conv import convolve, with_bias
from dscc.frontends.onnx.ops.linear import operands
from dscc.frontends.onnx.ops.quantize import LIMITS, Index, cast, is_absent, is_one, saturated
from dscc.frontends.onnx.registry import converter
from dscc.frontends.onnx.shapes import reshaped
from dscc.frontends.onnx.values import Value, is_float, static

_WHOLE = ("int8", "uint8", "int16", "uint16")


def _centred(node: Node, x: Value, zero: Value | None, per_row: bool) -> Value:
    """x - zero as int32; a zero point of more than one element is per row (of A) or per column (of B)."""
    wide = node.value(R.astype(x.expr, "int32"))
    if zero is None or is_absent(zero):
        return wide
    shift = node.value(R.astype(zero.expr, "int32"))
    if shift.ndim == 1 and shift.shape != (1,) and per_row:
        shift = node.value(reshaped(shift.expr, [shift.shape[0], 1]))
    return node.value(R.subtract(*broadcast(node, wide, shift)))


@converter("MatMulInteger")
def matmul_integer(node: Node, a: Value, b: Value, a_zero: Value | None = None, b_zero: Value | None = None) -> Expr:
    """The sum of (a - a_zero) * (b - b_zero) in int32."""
    return R.matmul(*operands(node, _centred(node, a, a_zero, True), _centred(node, b, b_zero, False)))


@converter("ConvInteger")
def conv_integer(
    node: Node, x: Value, weight: Value, x_zero: Value | None = None, weight_zero: Value | None = None
) -> Expr:
    kernel = node.value(R.astype(weight.expr, "int32"))
    if weight_zero is not None:
        shift = node.value(R.astype(weight_zero.expr, "int32"))
        if shift.ndim == 1:
            shift = node.value(reshaped(shift.expr, [shift.shape[0], *[1] * (weight.ndim - 1)]))
        kernel = node.value(R.subtract(*broadcast(node, kernel, shift)))
    return convolve(node, _centred(node, x, x_zero, False).expr, kernel)


def _requantize(node: Node, x: Value, scale: Value, zero: Value) -> Value:
    """round_half_even(x * scale) + zero, saturated, in the type of `zero`; for the operators that end in a
    QuantizeLinear. x: int32, or float32 for a product of floats; scale: float32 that broadcasts over it.
    """
    real = node.value(convert(node, x, "float32"))
    product = node.value(R.multiply(*broadcast(node, real, scale)))
    if zero.element in _WHOLE:  # Relax's own operators, which follow the layout of a convolution
        steps = node.value(R.round(product.expr))
        if not is_absent(zero):
            steps = node.value(R.add(*broadcast(node, steps, cast(node, zero, "float32"))))
        low, high = (float(limit) for limit in LIMITS[zero.element])
        whole = node.emit(R.astype(node.emit(R.clip(steps.expr, low, high)), "int32"))
        return node.retype(R.astype(whole, zero.element), zero.element)

    def compute(data: te.Tensor, *shift: te.Tensor) -> te.Tensor:
        def element(*i: Any) -> Any:
            offset = [tirx.Cast("float32", z(*place(i))) for z in shift]
            return saturated(data(*i), offset, zero.element, True)

        return te.compute(data.shape, element, name="requantize")

    shape = (1,) * (x.ndim - zero.ndim) + zero.shape

    def place(index: Index) -> Index:
        return tuple(
            0 if static(dim) == 1 else i
            for i, dim in zip(index[x.ndim - zero.ndim :], shape[x.ndim - zero.ndim :], strict=True)
        )

    centre = [] if is_absent(zero) else [zero.expr]
    return node.retype(node.te(compute, product.expr, *centre, name=f"requantize_{zero.element}"), zero.element)


def _ratio(node: Node, a: Value, b: Value, y: Value) -> Value:
    """a * b / y in float32; of constants a constant."""
    a, b, y = (cast(node, scale, "float32") for scale in (a, b, y))
    if a.constant is not None and b.constant is not None and y.constant is not None:
        return node.value(a.constant * b.constant / y.constant)
    product = node.value(R.multiply(*broadcast(node, a, b)))
    return node.value(R.divide(*broadcast(node, product, y)))


@converter("QLinearMatMul", patterns=True)
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
) -> Value:
    """Integers: products of int8 add up in int32. float8: in float32, and the zero points are 0."""
    if is_float(a.element) or is_float(b.element):
        left, right = (node.value(convert(node, x, "float32")) for x in (a, b))
        product = node.value(R.matmul(*operands(node, left, right)))
    else:
        product = node.value(matmul_integer(node, a, b, a_zero, b_zero))
    return _requantize(
        node, product, _ratio(node, _row(node, a_scale), b_scale, _row(node, y_scale)), _row(node, y_zero)
    )


def _row(node: Node, scale: Value) -> Value:
    """A scale or zero point of one number per row of the product, as a column."""
    if scale.ndim != 1 or static(scale.shape[0]) == 1:
        return scale
    if scale.constant is not None:
        return node.value(scale.constant.reshape(-1, 1))
    return node.retype(reshaped(scale.expr, [scale.shape[0], 1]), scale.element)


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
) -> Value:
    total = node.value(with_bias(node, conv_integer(node, x, weight, x_zero, w_zero), bias, x.ndim))
    scale = _ratio(node, x_scale, w_scale, y_scale)
    if not is_one(scale):
        channels = [1, scale.shape[0], *[1] * (x.ndim - 2)]
        known = scale.constant
        scale = node.value(reshaped(scale.expr, channels) if known is None else known.reshape(channels))
    elif scale.ndim:
        scale = node.value(reshaped(scale.expr, []) if scale.constant is None else scale.constant.reshape(()))
    return _requantize(node, total, scale, y_zero)
