"""Mixtures of experts: MoE and QMoE. Each expert sees every token; those that it was not chosen for have weight 0."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dscc.frontends.onnx.compose import Standard
from dscc.frontends.onnx.microsoft import contrib
from dscc.frontends.onnx.microsoft.packed import Packed, known, multiply, pack, unpack
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.values import Array, Value

Product = Callable[[Value, int], Value]  # of rows with one expert's matrix, its bias included


@contrib("MoE")
def mixture(
    node: Node,
    x: Value,
    router: Value,
    first: Value,
    first_bias: Value | None,
    second: Value,
    second_bias: Value | None = None,
    third: Value | None = None,
    third_bias: Value | None = None,
) -> Value:
    """x (.., hidden), the router's logits (tokens, experts), weights (experts, columns, rows of the product)."""
    count = first.shape[0]
    if not isinstance(count, int):
        raise node.unsupported(f"the number of experts {count} is symbolic, which is not supported; it must be known")
    linear = None if third is None else _dense(node, third, third_bias)
    weights = _routing(node, router, None, count, bool(node.attr("normalize_routing_weights", 0)))
    return _mix(node, x, weights, _dense(node, first, first_bias), _dense(node, second, second_bias), linear)


def _dense(node: Node, weight: Value, bias: Value | None) -> Product:
    op = Standard(node)

    def part(value: Value, expert: int) -> Value:
        return op.Gather(value, np.int64(expert), axis=0)

    def product(x: Value, expert: int) -> Value:
        turned = (
            node.value(weight.constant[expert].T)
            if weight.constant is not None
            else op.Transpose(part(weight, expert), perm=[1, 0])
        )
        out = op.MatMul(x, turned)
        return out if bias is None else op.Add(out, part(bias, expert))

    return product


@contrib("QMoE")
def quantized_mixture(
    node: Node,
    x: Value,
    router: Value,
    first: Value,
    first_scales: Value,
    first_bias: Value | None,
    second: Value,
    second_scales: Value,
    second_bias: Value | None = None,
    third: Value | None = None,
    third_scales: Value | None = None,
    third_bias: Value | None = None,
    first_zeros: Value | None = None,
    second_zeros: Value | None = None,
    third_zeros: Value | None = None,
    router_weights: Value | None = None,
    *scales: Value | None,
) -> Value:
    """MoE with weights of 2, 4 or 8 bits, quantized in blocks along the sum or per column."""
    if node.attr("quant_type", "int") != "int" or any(scale is not None for scale in scales):
        raise node.unsupported(f"quant_type '{node.attr('quant_type', 'int')}' is not supported; 'int' is")
    if node.attr("weights_prepacked", -1) == 1:
        raise node.unsupported("weights_prepacked is 1: the weights are laid out for one device; export them plain")
    linear = (
        None
        if third is None or third_scales is None
        else _packed(node, "fc3", third, third_scales, third_bias, third_zeros)
    )
    # onnxruntime normalizes the router's own weights whatever the attribute says, and others only if it says so
    normalize = router_weights is None or bool(node.attr("normalize_routing_weights", 0))
    return _mix(
        node,
        x,
        _routing(node, router, router_weights, first.shape[0], normalize),
        _packed(node, "fc1", first, first_scales, first_bias, first_zeros),
        _packed(node, "fc2", second, second_scales, second_bias, second_zeros),
        linear,
    )


def _packed(node: Node, name: str, weight: Value, scales: Value, bias: Value | None, zeros: Value | None) -> Product:
    op = Standard(node)
    bits = node.attr(f"{name}_expert_weight_bits", node.attr("expert_weight_bits", 4))
    raw = known(node, weight, "the weight")
    factors = known(node, scales, "the scales")
    depth = raw.shape[2] * 8 // bits
    factors = factors[..., None] if factors.ndim == 2 else factors
    columns, blocks = factors.shape[1:]
    shifts = None if zeros is None else known(node, zeros, "the zero points")

    def points(expert: int) -> Array:
        if shifts is None:
            return np.full((columns, blocks), 2 ** (bits - 1), np.float32)
        if shifts.ndim == 2:  # one for each column, packed along the columns
            return unpack(shifts[expert], bits, columns).astype(np.float32)[:, None]
        return unpack(shifts[expert], bits, blocks).astype(np.float32)

    def product(x: Value, expert: int) -> Value:
        packed = Packed(
            depth,
            bits,
            -(-depth // blocks),
            pack(np.ascontiguousarray(unpack(raw[expert], bits, depth).T), bits),
            np.ascontiguousarray(factors[expert].T.astype(np.float32)),
            np.ascontiguousarray(points(expert).T),
        )
        out = multiply(node, x, packed)
        return out if bias is None else op.Add(out, op.Gather(bias, np.int64(expert), axis=0))

    return product


def _routing(node: Node, logits: Value, weights: Value | None, experts: int, normalize: bool) -> Value:
    """What each expert counts for each token: (tokens, experts), 0 but for the `k` of the best logits."""
    if node.attr("use_sparse_mixer", 0):
        raise node.unsupported("use_sparse_mixer is 1, which is not supported; export the model with plain routing")
    op, best = Standard(node), node.attr("k", 1)
    chosen = op.Softmax(op.cast(logits, "float32"), axis=-1)
    values, indices = op.several("TopK", 2, chosen, [best], axis=-1)
    if weights is not None:
        values = op.GatherElements(op.cast(weights, "float32"), indices, axis=-1)
    if normalize:
        values = op.Div(values, op.ReduceSum(values, [-1], keepdims=1))
    hot = op.OneHot(indices, np.int64(experts), np.array([0.0, 1.0], np.float32), axis=-1)
    return op.ReduceSum(op.Mul(op.Unsqueeze(values, [-1]), hot), [1], keepdims=0)


def _mix(node: Node, x: Value, weights: Value, first: Product, second: Product, third: Product | None) -> Value:
    """The sum of the experts' outputs times `weights` (tokens, experts)."""
    op, experts = Standard(node), int(weights.shape[1])
    rows = op.cast(op.Reshape(x, [-1, x.shape[-1]]), "float32") if x.ndim != 2 else op.cast(x, "float32")
    shares = op.several("Split", experts, weights, axis=1, num_outputs=experts)
    outputs = []
    for expert, share in enumerate(shares):
        hidden = _activate(node, op, first(rows, expert), None if third is None else third(rows, expert))
        outputs.append(op.Mul(second(hidden, expert), share))
    return op.cast(op.Reshape(op.Sum(*outputs), list(x.shape)), x.dtype)


def _activate(node: Node, op: Standard, x: Value, linear: Value | None) -> Value:
    name = node.attr("activation_type", "relu")
    if name == "swiglu":
        return _swiglu(node, op, x, linear)
    made = {
        "relu": lambda: op.Relu(x),
        "gelu": lambda: op.Gelu(x, approximate="tanh"),
        "silu": lambda: op.Mul(x, op.Sigmoid(x)),
        "identity": lambda: x,
    }
    if name not in made:
        raise node.error(f"unknown activation '{name}'; allowed: {', '.join(made)}, swiglu")
    return made[name]() if linear is None else op.Mul(made[name](), linear)


def _swiglu(node: Node, op: Standard, x: Value, linear: Value | None) -> Value:
    """G * sigmoid(alpha * G) * (L + beta), where G and L are clamped, and may be parts of one product."""
    fusion = node.attr("swiglu_fusion", 0)
    if fusion == 1:
        pairs = op.Reshape(x, [x.shape[0], node.dims.floordiv(x.shape[1], 2), 2])
        gate, linear = (op.Squeeze(part, [2]) for part in op.several("Split", 2, pairs, axis=2, num_outputs=2))
    elif fusion == 2:
        gate, linear = op.several("Split", 2, x, axis=1, num_outputs=2)
    else:
        gate = x
    if linear is None:
        raise node.error("swiglu_fusion is 0, but there are no weights for fc3; give them or fuse them into fc1")
    limit = node.attr("swiglu_limit", None)
    if limit is not None:
        gate, linear = op.Min(gate, limit), op.Clip(linear, -limit, limit)
    alpha, beta = node.attr("activation_alpha", 1.0), node.attr("activation_beta", 0.0)
    opened = op.Mul(gate, op.Sigmoid(gate if alpha == 1 else op.Mul(gate, alpha)))
    return op.Mul(opened, linear if beta == 0 else op.Add(linear, beta))
