"""Quantized operators. Weights stay in their compact type: what becomes of them is for the passes to decide."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import te, tirx
from tvm.relax import Expr
from tvm.relax import op as R

from dscc.elements import BITS
from dscc.frontends.onnx.broadcast import broadcast
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.ops.cast import convert, number, number_as
from dscc.frontends.onnx.ops.conv import convolve, with_bias
from dscc.frontends.onnx.ops.linear import operands
from dscc.frontends.onnx.registry import converter
from dscc.frontends.onnx.shapes import reshaped
from dscc.frontends.onnx.values import Value, constant, element_type, is_float, numpy_dtype, scalar, static

_LIMITS = {
    "int8": (-128, 127),
    "uint8": (0, 255),
    "int16": (-32768, 32767),
    "uint16": (0, 65535),
    "int4": (-8, 7),
    "uint4": (0, 15),
    "int2": (-2, 1),
    "uint2": (0, 3),
}

Index = tuple[Any, ...]
At = Callable[[Index], Index]


def _one(parameter: Value) -> bool:
    """Whether a scale or zero point is one number for the whole tensor."""
    return parameter.ndim == 0 or (parameter.ndim == 1 and static(parameter.shape[0]) == 1)


def _absent(zero: Value | None) -> bool:
    """Whether there is no zero point, or it is known to be 0."""
    return zero is None or (zero.constant is not None and not zero.constant.astype(np.float32).any())


def _axis(node: Node, x: Value) -> int:
    """The axis of scales; a tensor of rank 1 has no other than its own."""
    return 0 if x.ndim == 1 else node.axis(node.attr("axis", 1), x.ndim)


def _blocked(node: Node, parameter: Value) -> bool:
    return bool(node.attr("block_size", 0)) and not _one(parameter)


def _place(node: Node, parameter: Value, x: Value) -> At:
    """Where the element of a scale or zero point lies that belongs to an element of x: there is one, one per index of
    `axis`, or one per block along it.
    """
    if _one(parameter):
        return lambda index: (0,) * parameter.ndim
    axis, block = _axis(node, x), node.attr("block_size", 0)
    if not block:
        node.require_equal(parameter.shape[0], x.shape[axis], "the number of scales")
        return lambda index: (index[axis],)
    for at, dim in enumerate(x.shape):
        wanted = node.dims.ceildiv(dim, block) if at == axis else dim
        node.require_equal(parameter.shape[at], wanted, "a dimension of the scale's blocks")
    return lambda index: (*index[:axis], tirx.truncdiv(index[axis], tirx.const(block, "int64")), *index[axis + 1 :])


def _per_axis(node: Node, parameter: Value, x: Value) -> Value:
    """A scale or zero point of one element, or per `axis`, shaped to broadcast over x."""
    shape: list[Any] = []
    if not _one(parameter):
        shape = [1] * x.ndim
        shape[_axis(node, x)] = parameter.shape[0]
    if parameter.constant is not None and all(isinstance(dim, int) for dim in shape):
        return node.value(parameter.constant.reshape(shape))
    return node.value(reshaped(parameter.expr, shape))


def _numbers(node: Node, x: Value) -> Value:
    """4- and 2-bit integers as int8 or uint8; a constant stays one, of a byte an element."""
    if x.element not in BITS or is_float(x.element):
        return x
    wide = "uint8" if x.element.startswith("u") else "int8"
    return node.value(x.constant.astype(wide)) if x.constant is not None else node.value(convert(node, x, wide))


def _cast(node: Node, x: Value, dtype: str) -> Value:
    """x in another type; a constant stays one."""
    if x.dtype == dtype:
        return x
    if x.constant is not None:
        return node.value(x.constant.astype(numpy_dtype(dtype)))
    return node.value(R.astype(x.expr, dtype))


@converter("DequantizeLinear", patterns=True)
@converter("DequantizeLinear", domain="com.microsoft", patterns=True)
def dequantize(node: Node, x: Value, scale: Value, zero: Value | None = None) -> Expr | Value:
    """(x - zero) * scale in float32, rounded once to the type asked for.

    Integers with a scale per tensor or axis: in plain arithmetic on the constant, so that a pass can see and move each
    part. Blocks and narrow floats: in a kernel.
    """
    asked = node.attr("output_dtype", 0)
    target = element_type(asked, node.label) if asked else scale.element
    if is_float(x.element) or _blocked(node, scale) or scale.coded:
        return _dequantize_kernel(node, x, scale, zero, target)
    x = _numbers(node, x)
    if not _absent(zero):
        assert zero is not None
        wide = node.value(R.astype(x.expr, "int32" if x.dtype != "int32" else "int64"))
        shift = _cast(node, _per_axis(node, _numbers(node, zero), x), wide.dtype)
        x = node.value(R.subtract(*broadcast(node, wide, shift)))
    real = node.value(R.astype(x.expr, "float32"))
    result = node.value(R.multiply(*broadcast(node, real, _cast(node, _per_axis(node, scale, x), "float32"))))
    return convert(node, result, target)


def _dequantize_kernel(node: Node, x: Value, scale: Value, zero: Value | None, target: str) -> Value:
    packed = _packed(x)
    read = _read if packed is None else _unpacked(BITS[x.element])
    centre = None if _absent(zero) else zero
    place, centred = _place(node, scale, x), _place(node, centre or scale, x)

    def compute(data: te.Tensor, size: te.Tensor, *shift: te.Tensor) -> te.Tensor:
        def element(*i: Any) -> Any:
            value = tirx.Cast("float32", number(read(data, i), x.element))
            if shift:
                value = value - tirx.Cast("float32", number(shift[0](*centred(i)), x.element))
            by = tirx.Cast("float32", number(size(*place(i)), scale.element))
            return number_as(value * by, target)

        return te.compute([*data.shape[:-1], *x.shape[-1:]], element, name="dequantize")

    inputs = [x.expr if packed is None else packed, scale.expr, *([] if centre is None else [centre.expr])]
    return node.retype(node.te(compute, *inputs, name=f"dequantize_{x.element}"), target)


def _packed(x: Value) -> Expr | None:
    """A constant of 4- or 2-bit elements with as many of them in a byte as it holds, the first one in the lowest bits;
    None for anything else.
    """
    if x.constant is None or x.element not in BITS or 8 % (bits := BITS[x.element]) or not x.ndim:
        return None
    count = 8 // bits
    if x.constant.size < _WORTH_PACKING or x.constant.shape[-1] % count:
        return None
    low = x.constant.view(np.uint8) & ((1 << bits) - 1)
    parts = low.reshape(*x.constant.shape[:-1], -1, count) << (np.arange(count, dtype=np.uint8) * bits)
    return constant(np.bitwise_or.reduce(parts, axis=-1))


_WORTH_PACKING = 1024  # elements


def _read(data: te.Tensor, i: Index) -> Expr:
    return data(*i)


def _unpacked(bits: int) -> Callable[[te.Tensor, Index], Expr]:
    """Reads an element of what `_packed` packed; the bits above it stay, and are for the decoder to drop."""
    count = tirx.const(8 // bits, "int64")

    def read(data: te.Tensor, i: Index) -> Expr:
        shift = tirx.Cast("uint8", tirx.truncmod(i[-1], count)) * tirx.const(bits, "uint8")
        return data(*i[:-1], tirx.truncdiv(i[-1], count)) >> shift

    return read


@converter("QuantizeLinear", patterns=True)
@converter("QuantizeLinear", domain="com.microsoft", patterns=True)
def quantize(node: Node, x: Value, scale: Value, zero: Value | None = None) -> Value:
    """saturate(round_half_even(x / scale) + zero), in one kernel: the quotient is rounded as a quotient, not as the
    product with an inverse, and what is beyond the target's range goes to its end.
    """
    asked = node.attr("output_dtype", 0)
    target = zero.element if zero is not None else element_type(asked, node.label) if asked else "uint8"
    if target not in _LIMITS and not is_float(target):
        raise node.unsupported(
            f"quantizing to '{target}' is not supported; supported: float8, float4, {', '.join(_LIMITS)}"
        )
    working = _precision(node, x, scale)
    real = "float64" if working == "float64" else "float32"
    centre = None if _absent(zero) else zero
    place, centred = _place(node, scale, x), _place(node, centre or scale, x)

    def compute(data: te.Tensor, size: te.Tensor, *shift: te.Tensor) -> te.Tensor:
        def element(*i: Any) -> Any:
            value = tirx.Cast(real, number_as(data(*i), working))
            steps = number_as(
                value / tirx.Cast(real, number_as(number(size(*place(i)), scale.element), working)), working
            )
            offset = [tirx.Cast(real, number(zero_point(*centred(i)), target)) for zero_point in shift]
            return _saturated(tirx.Cast(real, steps), offset, target, bool(node.attr("saturate", 1)))

        return te.compute(data.shape, element, name="quantize")

    inputs = [x.expr, scale.expr, *([] if centre is None else [centre.expr])]
    return node.retype(node.te(compute, *inputs, name=f"quantize_{target}"), target)


def _precision(node: Node, x: Value, scale: Value) -> str:
    """The type in which x is divided by the scale: the attribute's, else the wider one of both."""
    asked = node.attr("precision", 0)
    if asked:
        return element_type(asked, node.label)
    kinds = {x.element, scale.element}
    if not all(kind in ("float32", "float16", "bfloat16", "float8_e8m0fnu") for kind in kinds):
        return "float64"
    return x.element if len(kinds) == 1 else "float32"


def _saturated(steps: Expr, offset: list[Expr], target: str, saturate: bool) -> Expr:
    if is_float(target):
        return number_as(sum(offset, start=steps) if "float8" not in target else steps, target, saturate)
    kind = str(steps.ty.dtype)
    low, high = (tirx.const(float(limit), kind) for limit in _LIMITS[target])
    shifted = sum(offset, start=tirx.nearbyint(steps))
    return number_as(tirx.Cast("int32", tirx.min(tirx.max(shifted, low), high)), target)


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
        shift = node.value(reshaped(shift.expr, [shift.shape[0], 1]))
    return node.value(R.subtract(*broadcast(node, wide, shift)))


@converter("MatMulInteger")
def matmul_integer(node: Node, a: Value, b: Value, a_zero: Value | None = None, b_zero: Value | None = None) -> Expr:
    """The sum of (a - a_zero) * (b - b_zero) in int32."""
    return R.matmul(*operands(node, _centred(node, a, a_zero, True), _centred(node, b, b_zero, False)))


_WHOLE = ("int8", "uint8", "int16", "uint16")


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
        if not _absent(zero):
            steps = node.value(R.add(*broadcast(node, steps, _cast(node, zero, "float32"))))
        low, high = (float(limit) for limit in _LIMITS[zero.element])
        whole = node.emit(R.astype(node.emit(R.clip(steps.expr, low, high)), "int32"))
        return node.retype(R.astype(whole, zero.element), zero.element)

    def compute(data: te.Tensor, *shift: te.Tensor) -> te.Tensor:
        def element(*i: Any) -> Any:
            offset = [tirx.Cast("float32", z(*place(i))) for z in shift]
            return _saturated(data(*i), offset, zero.element, True)

        return te.compute(data.shape, element, name="requantize")

    shape = (1,) * (x.ndim - zero.ndim) + zero.shape

    def place(index: Index) -> Index:
        return tuple(
            0 if static(dim) == 1 else i
            for i, dim in zip(index[x.ndim - zero.ndim :], shape[x.ndim - zero.ndim :], strict=True)
        )

    centre = [] if _absent(zero) else [zero.expr]
    return node.retype(node.te(compute, product.expr, *centre, name=f"requantize_{zero.element}"), zero.element)


def _ratio(node: Node, a: Value, b: Value, y: Value) -> Value:
    """a * b / y in float32; of constants a constant."""
    a, b, y = (_cast(node, scale, "float32") for scale in (a, b, y))
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
    if not _one(scale):
        channels = [1, scale.shape[0], *[1] * (x.ndim - 2)]
        known = scale.constant
        scale = node.value(reshaped(scale.expr, channels) if known is None else known.reshape(channels))
    elif scale.ndim:
        scale = node.value(reshaped(scale.expr, []) if scale.constant is None else scale.constant.reshape(()))
    return _requantize(node, total, scale, y_zero)
