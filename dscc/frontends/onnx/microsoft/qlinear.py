"""Operators between quantized tensors that onnxruntime's static quantizer writes: dequantize, compute, quantize."""

from __future__ import annotations

from typing import Any

import numpy as np

from dscc.frontends.onnx.compose import Standard
from dscc.frontends.onnx.microsoft import contrib
from dscc.frontends.onnx.microsoft.linear import channels_first, channels_last
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.values import Value

_POOL = ("auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides")
_CONV = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")


def _real(op: Standard, x: Value, scale: Value, zero: Value | None) -> Value:
    return op.DequantizeLinear(x, scale, zero)


def _quantized(op: Standard, y: Value, scale: Value, zero: Value | None, like: Value) -> Value:
    """y in the type of `like`, which is also that of a zero point that is left out."""
    return op.QuantizeLinear(y, scale, np.zeros((), like.dtype) if zero is None else zero)


@contrib("QLinearAdd", "QLinearMul")
def qlinear_binary(
    node: Node,
    a: Value,
    a_scale: Value,
    a_zero: Value | None,
    b: Value,
    b_scale: Value,
    b_zero: Value | None,
    scale: Value,
    zero: Value | None = None,
) -> Value:
    """In the order of onnxruntime's kernels (MLAS), which decides ties: Add's makes one number of the zero points."""
    op = Standard(node)
    if node.op == "QLinearMul":
        product = op.cast(mul_integer(node, a, a_zero, b, b_zero), "float32")
        ratio = op.Div(op.Mul(a_scale, b_scale), scale)
        return _saturated(op, op.Add(op.Mul(product, ratio), _number(op, zero)), a.dtype)
    ratios = [op.Div(a_scale, scale), op.Div(b_scale, scale)]
    offsets = [op.Mul(ratio, _number(op, z)) for ratio, z in zip(ratios, (a_zero, b_zero), strict=True)]
    fixed = op.Sub(_number(op, zero), op.Add(*offsets))
    right = op.Add(op.Mul(op.cast(b, "float32"), ratios[1]), fixed)
    return _saturated(op, op.Add(op.Mul(op.cast(a, "float32"), ratios[0]), right), a.dtype)


def _number(op: Standard, zero: Value | None) -> Any:
    return np.zeros((), np.float32) if zero is None else op.cast(zero, "float32")


def _saturated(op: Standard, y: Value, dtype: str) -> Value:
    """y rounded, ties to even, and held within the type. QuantizeLinear adds its zero point only after that."""
    limits = np.iinfo(dtype)
    return op.cast(op.Clip(op.Round(y), float(limits.min), float(limits.max)), dtype)


@contrib("QLinearLeakyRelu", "QLinearSigmoid")
def qlinear_unary(
    node: Node, x: Value, x_scale: Value, x_zero: Value | None, scale: Value, zero: Value | None = None
) -> Value:
    op = Standard(node)
    more: dict[str, Any] = {"alpha": node.attr("alpha", 0.01)} if node.op == "QLinearLeakyRelu" else {}
    name = node.op.removeprefix("QLinear")
    return _quantized(op, op.several(name, 1, _real(op, x, x_scale, x_zero), **more)[0], scale, zero, x)


@contrib("QLinearSoftmax")
def qlinear_softmax(
    node: Node, x: Value, x_scale: Value, x_zero: Value | None, scale: Value, zero: Value | None = None
) -> Value:
    """Up to opset 12, which the attribute `opset` states, over all axes from `axis` on."""
    op = Standard(node)
    real = _real(op, x, x_scale, x_zero)
    result = Standard(node, node.required("opset", int)).Softmax(real, axis=node.attr("axis", -1))
    return _quantized(op, result, scale, zero, x)


@contrib("QLinearReduceMean")
def qlinear_reduce_mean(
    node: Node, x: Value, x_scale: Value, x_zero: Value | None, scale: Value, zero: Value | None = None
) -> Value:
    op = Standard(node)
    mean = op.ReduceMean(_real(op, x, x_scale, x_zero), node.required("axes", list), keepdims=node.attr("keepdims", 1))
    return _quantized(op, mean, scale, zero, x)


@contrib("QLinearAveragePool")
def qlinear_average_pool(
    node: Node, x: Value, x_scale: Value, x_zero: Value | None, scale: Value, zero: Value | None = None
) -> Value:
    op, last = Standard(node), node.attr("channels_last", 0)
    real = _real(op, channels_first(op, x) if last else x, x_scale, x_zero)
    pooled = op.AveragePool(real, **{name: node.attr(name, None) for name in _POOL})
    result = _quantized(op, pooled, scale, zero, x)
    return channels_last(op, result) if last else result


@contrib("QLinearGlobalAveragePool")
def qlinear_global_average_pool(
    node: Node, x: Value, x_scale: Value, x_zero: Value | None, scale: Value, zero: Value | None = None
) -> Value:
    op = Standard(node)
    axes = list(range(1, x.ndim - 1)) if node.attr("channels_last", 0) else list(range(2, x.ndim))
    return _quantized(op, op.ReduceMean(_real(op, x, x_scale, x_zero), axes, keepdims=1), scale, zero, x)


@contrib("QLinearConcat")
def qlinear_concat(node: Node, scale: Value, zero: Value, *parts: Value) -> Value:
    """The parts are given as tensor, scale and zero point each; one that has the output's is copied as it is."""
    op = Standard(node)
    out = []
    for x, x_scale, x_zero in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        same = _alike(x_scale, scale) and _alike(x_zero, zero)
        out.append(x if same else _quantized(op, _real(op, x, x_scale, x_zero), scale, zero, x))
    return op.Concat(*out, axis=node.required("axis", int))


def _alike(a: Value, b: Value) -> bool:
    return a.constant is not None and b.constant is not None and np.array_equal(a.constant.ravel(), b.constant.ravel())


@contrib("QLinearWhere")
def qlinear_where(
    node: Node,
    condition: Value,
    x: Value,
    x_scale: Value,
    x_zero: Value,
    y: Value,
    y_scale: Value,
    y_zero: Value,
    scale: Value,
    zero: Value,
) -> Value:
    op = Standard(node)
    chosen = op.Where(condition, _real(op, x, x_scale, x_zero), _real(op, y, y_scale, y_zero))
    return _quantized(op, chosen, scale, zero, x)


@contrib("QLinearConv")
def qlinear_conv(
    node: Node,
    x: Value,
    x_scale: Value,
    x_zero: Value,
    weight: Value,
    w_scale: Value,
    w_zero: Value,
    scale: Value,
    zero: Value,
    bias: Value | None = None,
) -> Value:
    """The standard's, also with data in channels-last order; the weights are in the standard's order."""
    op, last = Standard(node), node.attr("channels_last", 0)
    data = channels_first(op, x) if last else x
    given: dict[str, Any] = {name: node.attr(name, None) for name in _CONV}
    result = op.QLinearConv(data, x_scale, x_zero, weight, w_scale, w_zero, scale, zero, bias, **given)
    return channels_last(op, result) if last else result


@contrib("QGemm")
def quantized_gemm(
    node: Node,
    a: Value,
    a_scale: Value,
    a_zero: Value,
    b: Value,
    b_scale: Value,
    b_zero: Value,
    c: Value | None = None,
    scale: Value | None = None,
    zero: Value | None = None,
) -> Value:
    """A' @ B' + C in whole numbers, scaled: float32, or quantized if there is a scale for the output."""
    op = Standard(node)
    left = op.Transpose(a, perm=[1, 0]) if node.attr("transA", 0) else a
    right = op.Transpose(b, perm=[1, 0]) if node.attr("transB", 0) else b
    total = op.MatMulInteger(left, right, a_zero, b_zero)
    total = total if c is None else op.Add(total, c)
    factor = op.Mul(op.Mul(a_scale, b_scale), node.attr("alpha", 1.0))
    real = op.Mul(op.cast(total, "float32"), factor)
    return real if scale is None else _quantized(op, real, scale, zero, a)


@contrib("MatMulIntegerToFloat")
def matmul_integer_to_float(
    node: Node,
    a: Value,
    b: Value,
    a_scale: Value,
    b_scale: Value,
    a_zero: Value | None = None,
    b_zero: Value | None = None,
    bias: Value | None = None,
) -> Value:
    op = Standard(node)
    product = op.cast(op.MatMulInteger(a, b, a_zero, b_zero), a_scale.dtype)
    real = op.Mul(product, op.Mul(a_scale, b_scale))
    return real if bias is None else op.Add(real, bias)


@contrib("DynamicQuantizeMatMul")
def dynamic_quantize_matmul(
    node: Node, a: Value, b: Value, b_scale: Value, b_zero: Value | None = None, bias: Value | None = None
) -> Value:
    """MatMulIntegerToFloat of A quantized over its own range."""
    op = Standard(node)
    codes, scale, zero = op.several("DynamicQuantizeLinear", 3, a)
    return matmul_integer_to_float(node, codes, b, scale, b_scale, zero, b_zero, bias)


@contrib("MulInteger")
def mul_integer(node: Node, a: Value, a_zero: Value | None, b: Value, b_zero: Value | None = None) -> Value:
    op = Standard(node)
    wide = [
        op.cast(x, "int32") if zero is None else op.Sub(op.cast(x, "int32"), op.cast(zero, "int32"))
        for x, zero in ((a, a_zero), (b, b_zero))
    ]
    return op.Mul(*wide)


@contrib("ReduceSumInteger")
def reduce_sum_integer(node: Node, x: Value) -> Value:
    op = Standard(node)
    kind = "int32" if x.dtype.startswith("int") else "uint32"
    return op.ReduceSum(op.cast(x, kind), node.required("axes", list), keepdims=node.attr("keepdims", 1))
