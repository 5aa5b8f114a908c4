"""Quantizing and dequantizing. Weights stay in their compact type: what becomes of them is for the passes to decide."""

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
from dscc.frontends.onnx.registry import converter
from dscc.frontends.onnx.shapes import reshaped
from dscc.frontends.onnx.values import Value, constant, element_type, is_float, numpy_dtype, scalar, static

LIMITS = {
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


def is_one(parameter: Value) -> bool:
    """Whether a scale or zero point is one number for the whole tensor."""
    return parameter.ndim == 0 or (parameter.ndim == 1 and static(parameter.shape[0]) == 1)


def is_absent(zero: Value | None) -> bool:
    """Whether there is no zero point, or it is known to be 0."""
    return zero is None or (zero.constant is not None and not zero.constant.astype(np.float32).any())


def _axis(node: Node, x: Value) -> int:
    """The axis of scales; a tensor of rank 1 has no other than its own."""
    return 0 if x.ndim == 1 else node.axis(node.attr("axis", 1), x.ndim)


def _blocked(node: Node, parameter: Value) -> bool:
    return bool(node.attr("block_size", 0)) and not is_one(parameter)


def _place(node: Node, parameter: Value, x: Value) -> At:
    """Where the element of a scale or zero point lies that belongs to an element of x: there is one, one per index of
    `axis`, or one per block along it.
    """
    if is_one(parameter):
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
    if not is_one(parameter):
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


def cast(node: Node, x: Value, dtype: str) -> Value:
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
    if not is_absent(zero):
        assert zero is not None
        wide = node.value(R.astype(x.expr, "int32" if x.dtype != "int32" else "int64"))
        shift = cast(node, _per_axis(node, _numbers(node, zero), x), wide.dtype)
        x = node.value(R.subtract(*broadcast(node, wide, shift)))
    real = node.value(R.astype(x.expr, "float32"))
    result = node.value(R.multiply(*broadcast(node, real, cast(node, _per_axis(node, scale, x), "float32"))))
    return convert(node, result, target)


def _dequantize_kernel(node: Node, x: Value, scale: Value, zero: Value | None, target: str) -> Value:
    packed = _packed(x)
    read = _read if packed is None else _unpacked(BITS[x.element])
    centre = None if is_absent(zero) else zero
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
    if target not in LIMITS and not is_float(target):
        raise node.unsupported(
            f"quantizing to '{target}' is not supported; supported: float8, float4, {', '.join(LIMITS)}"
        )
    working = _precision(node, x, scale)
    real = "float64" if working == "float64" else "float32"
    centre = None if is_absent(zero) else zero
    place, centred = _place(node, scale, x), _place(node, centre or scale, x)

    def compute(data: te.Tensor, size: te.Tensor, *shift: te.Tensor) -> te.Tensor:
        def element(*i: Any) -> Any:
            value = tirx.Cast(real, number_as(data(*i), working))
            steps = number_as(
                value / tirx.Cast(real, number_as(number(size(*place(i)), scale.element), working)), working
            )
            offset = [tirx.Cast(real, number(zero_point(*centred(i)), target)) for zero_point in shift]
            return saturated(tirx.Cast(real, steps), offset, target, bool(node.attr("saturate", 1)))

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


def saturated(steps: Expr, offset: list[Expr], target: str, saturate: bool) -> Expr:
    """Steps, rounded, and what is added to them in the type `target`; beyond its range its end."""
    if is_float(target):
        return number_as(sum(offset, start=steps) if "float8" not in target else steps, target, saturate)
    kind = str(steps.ty.dtype)
    low, high = (tirx.const(float(limit), kind) for limit in LIMITS[target])
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
