"""Activation functions: Relax's operator where there is one, else arithmetic that the fusion passes see through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import te, tirx
from tvm.relax import Expr
from tvm.relax import op as R

from dscc.frontends.onnx.broadcast import broadcast
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.registry import converter
from dscc.frontends.onnx.shapes import equals, reshaped
from dscc.frontends.onnx.values import Value, scalar


@converter("Relu")
def relu(node: Node, x: Value) -> Expr:
    return R.nn.relu(x.expr)


@converter("Sigmoid")
def sigmoid(node: Node, x: Value) -> Expr:
    return R.sigmoid(x.expr)


@converter("LeakyRelu")
def leaky_relu(node: Node, x: Value) -> Expr:
    return R.nn.leakyrelu(x.expr, node.attr("alpha", 0.01))


@converter("PRelu")
def prelu(node: Node, x: Value, slope: Value) -> Expr:
    """Before opset 7 the slopes were one for each channel."""
    if node.opset < 7 and slope.ndim == 1 and x.ndim > 2:
        slope = node.value(reshaped(slope.expr, [slope.shape[0], *[1] * (x.ndim - 2)]))
    a, b = broadcast(node, x, slope)
    return R.where(R.less(a, scalar(0, x.dtype)), R.multiply(a, b), a)


@converter("Elu")
def elu(node: Node, x: Value) -> Expr:
    return _where_positive(x, x.expr, R.multiply(scalar(node.attr("alpha", 1.0), x.dtype), _expm1(x)))


@converter("Celu")
def celu(node: Node, x: Value) -> Expr:
    alpha = scalar(node.attr("alpha", 1.0), x.dtype)
    negative = R.multiply(alpha, R.subtract(R.exp(R.divide(x.expr, alpha)), scalar(1, x.dtype)))
    return _where_positive(x, x.expr, negative)


@converter("Selu")
def selu(node: Node, x: Value) -> Expr:
    alpha, gamma = node.attr("alpha", 1.67326319217681884765625), node.attr("gamma", 1.05070102214813232421875)
    return R.multiply(scalar(gamma, x.dtype), _where_positive(x, x.expr, R.multiply(scalar(alpha, x.dtype), _expm1(x))))


def _expm1(x: Value) -> Expr:
    return R.subtract(R.exp(x.expr), scalar(1, x.dtype))


def _where_positive(x: Value, positive: Expr, negative: Expr) -> Expr:
    return R.where(R.greater(x.expr, scalar(0, x.dtype)), positive, negative)


@converter("ThresholdedRelu")
def thresholded_relu(node: Node, x: Value) -> Expr:
    return R.where(R.greater(x.expr, scalar(node.attr("alpha", 1.0), x.dtype)), x.expr, scalar(0, x.dtype))


@converter("HardSigmoid")
def hard_sigmoid(node: Node, x: Value) -> Expr:
    return _hard_sigmoid(x, node.attr("alpha", 0.2), node.attr("beta", 0.5))


def _hard_sigmoid(x: Value, alpha: float, beta: float) -> Expr:
    return R.clip(R.add(R.multiply(x.expr, scalar(alpha, x.dtype)), scalar(beta, x.dtype)), 0.0, 1.0)


@converter("HardSwish")
def hard_swish(node: Node, x: Value) -> Expr:
    # The standard defines it by a HardSigmoid, whose attributes are single: doubles get that sixth too.
    return R.multiply(x.expr, _hard_sigmoid(x, float(np.float32(1 / 6)), 0.5))


@converter("Softplus")
def softplus(node: Node, x: Value) -> Expr:
    return R.nn.softplus(x.expr)


@converter("Softsign")
def softsign(node: Node, x: Value) -> Expr:
    return R.divide(x.expr, R.add(scalar(1, x.dtype), R.abs(x.expr)))


@converter("Mish")
def mish(node: Node, x: Value) -> Expr:
    return R.multiply(x.expr, R.tanh(softplus(node, x)))


@converter("Gelu")
@converter("Gelu", domain="com.microsoft")
def gelu(node: Node, x: Value) -> Expr:
    return (R.nn.gelu_tanh if node.attr("approximate", "none") == "tanh" else R.nn.gelu)(x.expr)


@converter("Swish")
def swish(node: Node, x: Value) -> Expr:
    alpha = node.attr("alpha", 1.0)
    return (
        R.nn.silu(x.expr) if alpha == 1 else R.multiply(x.expr, R.sigmoid(R.multiply(x.expr, scalar(alpha, x.dtype))))
    )


@converter("Shrink")
def shrink(node: Node, x: Value) -> Expr:
    bias, lambd = scalar(node.attr("bias", 0.0), x.dtype), node.attr("lambd", 0.5)
    below = R.where(R.less(x.expr, scalar(-lambd, x.dtype)), R.add(x.expr, bias), scalar(0, x.dtype))
    return R.where(R.greater(x.expr, scalar(lambd, x.dtype)), R.subtract(x.expr, bias), below)


@converter("Softmax", since=13)
def softmax(node: Node, x: Value) -> Expr:
    return R.nn.softmax(x.expr, node.axis(node.attr("axis", -1), x.ndim))


@converter("LogSoftmax", since=13)
def log_softmax(node: Node, x: Value) -> Expr:
    return R.nn.log_softmax(x.expr, node.axis(node.attr("axis", -1), x.ndim))


@converter("Softmax", since=1)
def softmax_flat(node: Node, x: Value) -> Expr:
    return _flat(node, x, R.nn.softmax)


@converter("LogSoftmax", since=1)
def log_softmax_flat(node: Node, x: Value) -> Expr:
    return _flat(node, x, R.nn.log_softmax)


def _flat(node: Node, x: Value, function: Callable[[Expr, int], Expr]) -> Expr:
    """Up to opset 12 the axes from `axis` on were one."""
    axis = node.axis(node.attr("axis", 1), x.ndim)
    if axis == x.ndim - 1:
        return function(x.expr, axis)
    flat = node.emit(reshaped(x.expr, [*x.shape[:axis], node.dims.product(x.shape[axis:])]))
    return reshaped(node.emit(function(flat, axis)), x.shape)


@converter("Hardmax", since=13)
def hardmax(node: Node, x: Value) -> Expr:
    return _hot(node, x.expr, node.axis(node.attr("axis", -1), x.ndim))


@converter("Hardmax", since=1)
def hardmax_flat(node: Node, x: Value) -> Expr:
    return _flat(node, x, lambda flat, axis: _hot(node, flat, axis))


def _hot(node: Node, x: Expr, axis: int) -> Expr:
    """1 at the first largest element along `axis`, 0 elsewhere, in the type of `x`."""
    one, zero = (tirx.const(number, str(x.ty.dtype)) for number in (1, 0))

    def compute(at: te.Tensor, shape: Any) -> te.Tensor:
        return te.compute(
            list(shape), lambda *i: tirx.Select(equals(at(*i[:axis], *i[axis + 1 :]), i[axis]), one, zero), name="hot"
        )

    return node.te(compute, node.emit(R.argmax(x, axis)), x.ty.shape, name="hardmax")
