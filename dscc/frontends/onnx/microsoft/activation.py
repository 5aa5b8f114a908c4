"""Activations with something added, and those that are fused behind a product."""

from __future__ import annotations

from typing import Any

import numpy as np

from dscc.frontends.onnx.compose import Standard
from dscc.frontends.onnx.microsoft import contrib
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.values import Value

# What may stand behind a product, and which of the standard's attributes its parameters are, in their order.
_FUSED: dict[str, tuple[str, ...]] = {
    "Relu": (),
    "Tanh": (),
    "Sigmoid": (),
    "Softplus": (),
    "Softsign": (),
    "HardSwish": (),
    "Gelu": (),
    "LeakyRelu": ("alpha",),
    "Elu": ("alpha",),
    "ThresholdedRelu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "Selu": ("alpha", "gamma"),
}


def activate(node: Node, x: Value, name: str, parameters: list[float | None]) -> Value:
    """The activation `name` of x; parameters that are None have the standard's defaults. No name: x itself."""
    op = Standard(node)
    if not name:
        return x
    if name == "Clip":
        low, high = parameters if len(parameters) == 2 else (None, None)
        return op.Clip(x, low, high)
    if name == "QuickGelu":
        return _quick_gelu(op, x, parameters[0] if parameters and parameters[0] is not None else 1.702)
    if name not in _FUSED:
        raise node.error(f"unknown activation '{name}'; supported: Clip, QuickGelu, {', '.join(_FUSED)}")
    named: dict[str, Any] = dict(zip(_FUSED[name], parameters, strict=False))
    return op.several(name, 1, x, **named)[0]


def fused_attributes(node: Node) -> tuple[str, list[float | None]]:
    """The activation of FusedConv (`activation_params`) or FusedGemm (`activation_alpha` and so on)."""
    name = node.attr("activation", "")
    listed = node.attr("activation_params", None)
    if listed is not None:
        return name, list(listed)
    gamma = [node.attr("activation_gamma", None)] if name == "Selu" else [node.attr("activation_beta", None)]
    return name, [node.attr("activation_alpha", None), *gamma]


def _quick_gelu(op: Standard, x: Value, alpha: float) -> Value:
    return op.Mul(x, op.Sigmoid(x if alpha == 1 else op.Mul(x, alpha)))


@contrib("QuickGelu")
def quick_gelu(node: Node, x: Value) -> Value:
    return _quick_gelu(Standard(node), x, node.attr("alpha", 1.702))


@contrib("FastGelu")
def fast_gelu(node: Node, x: Value, bias: Value | None = None) -> Value:
    op = Standard(node)
    return op.Gelu(x if bias is None else op.Add(x, bias), approximate="tanh")


@contrib("BiasGelu")
def bias_gelu(node: Node, x: Value, bias: Value) -> Value:
    op = Standard(node)
    return op.Gelu(op.Add(x, bias))


@contrib("BiasSplitGelu")
def bias_split_gelu(node: Node, x: Value, bias: Value) -> Value:
    """Of x + bias the left half times the Gelu of the right half."""
    op = Standard(node)
    left, right = op.several("Split", 2, op.Add(x, bias), axis=-1, num_outputs=2)
    return op.Mul(left, op.Gelu(right))


@contrib("ScaledSiLU")
def scaled_silu(node: Node, x: Value, scale: Value | None = None) -> Value:
    op = Standard(node)
    alpha = node.attr("alpha", 1.0)
    scaled = op.Mul(x, op.cast(scale, x.dtype) if scale is not None else alpha)
    return op.Mul(scaled, op.Sigmoid(scaled))


@contrib("GatedAdd")
def gated_add(node: Node, x: Value, y: Value, gate: Value) -> Value:
    op = Standard(node)
    return op.Add(x, op.Mul(y, gate))


@contrib("BiasAdd")
def bias_add(node: Node, x: Value, bias: Value, skip: Value) -> Value:
    op = Standard(node)
    return op.Add(op.Add(x, bias), skip)


@contrib("BiasSoftmax")
def bias_softmax(node: Node, x: Value, bias: Value) -> Value:
    """Softmax over all axes from `axis` on. The bias lacks the axes that it is repeated over: the first ones, or with
    is_inner_broadcast the last ones before `axis`.
    """
    op = Standard(node)
    axis = node.axis(node.attr("axis", 1), x.ndim)
    if node.required("is_inner_broadcast", int) and bias.ndim < x.ndim:
        split = axis - (x.ndim - bias.ndim)
        bias = op.Reshape(bias, [*bias.shape[:split], *[1] * (x.ndim - bias.ndim), *bias.shape[split:]])
    total = op.Add(x, bias)
    if axis == x.ndim - 1:
        return op.Softmax(total, axis=-1)
    flat = op.Reshape(total, [*x.shape[:axis], node.dims.product(x.shape[axis:])])
    return op.Reshape(op.Softmax(flat, axis=-1), list(x.shape))


@contrib("BiasDropout")
def bias_dropout(
    node: Node,
    x: Value,
    bias: Value,
    residual: Value | None = None,
    ratio: Value | None = None,
    training: Value | None = None,
) -> tuple[Value, ...]:
    """In inference nothing is dropped."""
    _require_inference(node, training)
    op = Standard(node)
    total = op.Add(x, bias)
    outputs = [total if residual is None else op.Add(total, residual)]
    if len(node.proto.output) > 1:
        outputs.append(op.Expand(np.array(True), list(x.shape)))
    return tuple(outputs)


def _require_inference(node: Node, training: Value | None) -> None:
    if training is not None and (training.constant is None or training.constant.any()):
        raise node.error("training_mode may be true; only inference is supported; export the model in evaluation mode")
