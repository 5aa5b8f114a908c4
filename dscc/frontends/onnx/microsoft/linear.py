"""Products with transpositions, factors and activations fused into them."""

from __future__ import annotations

from dscc.frontends.onnx.compose import Standard
from dscc.frontends.onnx.microsoft import contrib
from dscc.frontends.onnx.microsoft.activation import activate, fused_attributes
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.values import Value

_CONV = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")


@contrib("FusedMatMul", "TransposeMatMul", "FusedMatMulActivation")
def fused_matmul(node: Node, a: Value, b: Value) -> Value:
    """alpha * A' @ B', and an activation."""
    op = Standard(node)
    left = _turned(op, a, node.attr("transBatchA", 0), node.attr("transA", 0))
    right = _turned(op, b, node.attr("transBatchB", 0), node.attr("transB", 0))
    product = op.MatMul(left, right)
    alpha = node.attr("alpha", 1.0)
    if alpha != 1:
        product = op.Mul(product, alpha)
    if node.op != "FusedMatMulActivation":
        return product
    if node.attr("activation", "") == "Softmax":
        return op.Softmax(product, axis=node.attr("activation_axis", -1))
    return activate(node, product, *fused_attributes(node))


def _turned(op: Standard, x: Value, batch: int, matrix: int) -> Value:
    """x with its first axis moved to the rows, for `batch`, then with rows and columns exchanged, for `matrix`."""
    order = list(range(x.ndim))
    if batch and x.ndim > 2:
        order = [*order[1:-1], 0, order[-1]]
    if matrix and x.ndim > 1:
        order[-2:] = order[:-3:-1]
    return x if order == sorted(order) else op.Transpose(x, perm=order)


@contrib("FusedGemm")
def fused_gemm(node: Node, a: Value, b: Value, c: Value | None = None) -> Value:
    given = {name: node.attr(name, None) for name in ("alpha", "beta", "transA", "transB")}
    return activate(node, Standard(node).Gemm(a, b, c, **given), *fused_attributes(node))


@contrib("GemmFastGelu")
def gemm_fast_gelu(node: Node, a: Value, b: Value, bias: Value | None = None) -> Value:
    op = Standard(node)
    product = op.MatMul(a, b)
    return op.Gelu(product if bias is None else op.Add(product, bias), approximate="tanh")


@contrib("FusedConv")
def fused_conv(node: Node, x: Value, weight: Value, bias: Value | None = None, more: Value | None = None) -> Value:
    """A convolution, a value that is added to it, and an activation."""
    op = Standard(node)
    result = op.Conv(x, weight, bias, **{name: node.attr(name, None) for name in _CONV})
    return activate(node, result if more is None else op.Add(result, more), *fused_attributes(node))


@contrib("NhwcConv", "NhwcFusedConv")
def nhwc_conv(node: Node, x: Value, weight: Value, bias: Value | None = None, more: Value | None = None) -> Value:
    """FusedConv with data, sum and result in channels-last order; the weights are in the standard's order."""
    op = Standard(node)
    result = op.Conv(channels_first(op, x), weight, bias, **{name: node.attr(name, None) for name in _CONV})
    result = channels_last(op, result)
    return activate(node, result if more is None else op.Add(result, more), *fused_attributes(node))


@contrib("NhwcMaxPool")
def nhwc_max_pool(node: Node, x: Value) -> Value:
    op = Standard(node)
    names = ("auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "strides")
    return channels_last(op, op.MaxPool(channels_first(op, x), **{name: node.attr(name, None) for name in names}))


def channels_first(op: Standard, x: Value) -> Value:
    """(n, *spatial, c) -> (n, c, *spatial)."""
    return op.Transpose(x, perm=[0, x.ndim - 1, *range(1, x.ndim - 1)])


def channels_last(op: Standard, x: Value) -> Value:
    """(n, c, *spatial) -> (n, *spatial, c)."""
    return op.Transpose(x, perm=[0, *range(2, x.ndim), 1])


@contrib("MatMulInteger16")
def matmul_integer_16(node: Node, a: Value, b: Value) -> Value:
    op = Standard(node)
    return op.MatMul(op.cast(a, "int32"), op.cast(b, "int32"))
