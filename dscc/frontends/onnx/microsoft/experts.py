"""Mixtures of experts: MoE and QMoE, as a router and one function that runs the chosen experts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from tvm import relax, tirx
from tvm.ir import Expr, Var

from dscc.frontends.onnx.compose import Standard
from dscc.frontends.onnx.microsoft import contrib
from dscc.frontends.onnx.microsoft.nbits import known
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.values import Value
from dscc.schedule.codes.define import unpack
from dscc.schedule.experts import formula
from dscc.schedule.experts.define import define
from dscc.schedule.experts.mixture import Mixture, Storage


@dataclass(frozen=True)
class _Weight:
    """A weight of all experts, (experts, columns, depth), with what belongs to it."""

    storage: Storage
    depth: int
    codes: Value
    bias: Value | None
    scales: Value | None = None
    zeros: Value | None = None

    @property
    def columns(self) -> int:
        return int(self.codes.shape[1])


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
    ids, shares = _routing(node, router, None, bool(node.attr("normalize_routing_weights", 0)))
    linear = None if third is None else _dense(node, third, third_bias)
    return _mix(node, x, ids, shares, _dense(node, first, first_bias), _dense(node, second, second_bias), linear)


def _dense(node: Node, weight: Value, bias: Value | None) -> _Weight:
    op = Standard(node)
    if any(not isinstance(extent, int) for extent in weight.shape):
        raise node.unsupported(f"the shape {list(weight.shape)} of a weight is symbolic, which is not supported")
    half = weight.dtype == "float16" and weight.constant is not None
    codes = weight if half else op.cast(weight, "float32")
    return _Weight(Storage(16 if half else 32), int(weight.shape[2]), codes, bias and op.cast(bias, "float32"))


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
    # onnxruntime normalizes the router's own weights whatever the attribute says, and others only if it says so
    normalize = router_weights is None or bool(node.attr("normalize_routing_weights", 0))
    ids, shares = _routing(node, router, router_weights, normalize)
    linear = (
        None
        if third is None or third_scales is None
        else _packed(node, "fc3", third, third_scales, third_bias, third_zeros)
    )
    return _mix(
        node,
        x,
        ids,
        shares,
        _packed(node, "fc1", first, first_scales, first_bias, first_zeros),
        _packed(node, "fc2", second, second_scales, second_bias, second_zeros),
        linear,
    )


def _packed(node: Node, name: str, weight: Value, scales: Value, bias: Value | None, zeros: Value | None) -> _Weight:
    op = Standard(node)
    bits = node.attr(f"{name}_expert_weight_bits", node.attr("expert_weight_bits", 4))
    raw = known(node, weight, "the weight")
    factors = known(node, scales, "the scales")
    depth = raw.shape[2] * 8 // bits
    factors = factors[..., None] if factors.ndim == 2 else factors
    columns, blocks = factors.shape[1:]
    points = None
    if zeros is not None:
        shifts = known(node, zeros, "the zero points")
        # without blocks there is one for each column, packed along the columns
        points = unpack(shifts, bits, columns)[..., None] if shifts.ndim == 2 else unpack(shifts, bits, blocks)
    return _Weight(
        Storage(bits, -(-depth // blocks) if blocks > 1 else 0, 0 if points is not None else 2 ** (bits - 1)),
        depth,
        node.value(raw),
        bias and op.cast(bias, "float32"),
        node.value(factors.astype(np.float32)),
        None if points is None else node.value(points.astype(np.float32)),
    )


def _routing(node: Node, logits: Value, weights: Value | None, normalize: bool) -> tuple[Value, Value]:
    """The `k` experts with the best logits of every token, and what each of them counts."""
    if node.attr("use_sparse_mixer", 0):
        raise node.unsupported("use_sparse_mixer is 1, which is not supported; export the model with plain routing")
    op, best = Standard(node), node.attr("k", 1)
    chosen = op.Softmax(op.cast(logits, "float32"), axis=-1)
    values, indices = op.several("TopK", 2, chosen, [best], axis=-1)
    if weights is not None:
        values = op.GatherElements(op.cast(weights, "float32"), indices, axis=-1)
    if normalize:
        values = op.Div(values, op.ReduceSum(values, [-1], keepdims=1))
    return indices, values


def _mix(
    node: Node, x: Value, ids: Value, shares: Value, first: _Weight, second: _Weight, third: _Weight | None
) -> Value:
    """The sum of the chosen experts' outputs times their shares."""
    op = Standard(node)
    rows = op.cast(op.Reshape(x, [-1, x.shape[-1]]) if x.ndim != 2 else x, "float32")
    name, fusion = node.attr("activation_type", "relu"), node.attr("swiglu_fusion", 0)
    gated = name == "swiglu"
    if gated and not fusion and third is None:
        raise node.error("swiglu_fusion is 0, but there are no weights for fc3; give them or fuse them into fc1")
    if gated and fusion == 1:
        first = _parted(node, first)
    elif third is not None and not (gated and fusion == 2):
        first = _beside(node, first, third)
        gated = True
    parts = 2 if gated else 1
    given = {"x": rows, "ids": ids, "shares": shares}
    for number, weight in ((1, first), (2, second)):
        fields = {"w": weight.codes, "b": weight.bias, "s": weight.scales, "z": weight.zeros}
        given |= {f"{kind}{number}": value for kind, value in fields.items() if value is not None}
    made = Mixture(
        experts=int(first.codes.shape[0]),
        top=node.attr("k", 1),
        hidden=first.depth,
        inner=first.columns // parts,
        out=second.columns,
        parts=parts,
        operands=tuple(given),
        middle=_middle(node, name, parts, first.bias is not None),
        leave=_leave(second.bias is not None),
        first=first.storage,
        second=second.storage,
    )
    shapes = made.shapes(rows.shape[0])
    args = [node.restate(value.expr, shapes[key][0], f"'{value.name}'") for key, value in given.items()]
    func = node.bb.add_func(define(made), "experts")
    ty = relax.TensorType([tirx.IntImm("int64", d) if isinstance(d, int) else d for d in shapes["y"][0]], "float32")
    out = node.value(relax.call_tir(func, relax.Tuple(args), ty))
    return op.cast(op.Reshape(out, [*x.shape[:-1], made.out]) if x.ndim != 2 else out, x.dtype)


def _parted(node: Node, weight: _Weight) -> _Weight:
    """Columns that alternate between the two parts, as one part after the other."""
    op, half = Standard(node), weight.columns // 2

    def turned(value: Value | None) -> Value | None:
        if value is None:
            return None
        rest = list(value.shape[2:])
        pairs = op.Reshape(value, [value.shape[0], half, 2, *rest])
        return op.Reshape(op.Transpose(pairs, perm=[0, 2, 1, 3][: 3 + len(rest)]), [value.shape[0], 2 * half, *rest])

    codes = turned(weight.codes)
    assert codes is not None
    return _Weight(
        weight.storage, weight.depth, codes, turned(weight.bias), turned(weight.scales), turned(weight.zeros)
    )


def _beside(node: Node, gate: _Weight, linear: _Weight) -> _Weight:
    """The columns of both, one weight after the other."""
    op = Standard(node)
    if gate.storage != linear.storage or (gate.zeros is None) != (linear.zeros is None):
        raise node.unsupported("fc1 and fc3 are quantized in different ways, which is not supported")

    def joined(a: Value | None, b: Value | None) -> Value | None:
        if a is None and b is None:
            return None
        like = a if a is not None else b
        assert like is not None
        none = node.value(np.zeros(tuple(like.shape), np.float32))
        return op.Concat(a if a is not None else none, b if b is not None else none, axis=1)

    codes = joined(gate.codes, linear.codes)
    assert codes is not None
    return _Weight(
        gate.storage,
        gate.depth,
        codes,
        joined(gate.bias, linear.bias),
        joined(gate.scales, linear.scales),
        joined(gate.zeros, linear.zeros),
    )


def _middle(node: Node, name: str, parts: int, biased: bool) -> str:
    """The activation of the products, and the product of both parts."""
    names = {Var(key, "float32"): key for key in ("p0", "p1", "b0", "b1")}
    by = {key: var for var, key in names.items()}
    sums = [by[f"p{i}"] + by[f"b{i}"] if biased else by[f"p{i}"] for i in range(parts)]
    if name == "swiglu":
        return formula.text(_swiglu(node, *sums), names)
    made = {"relu": _relu, "gelu": _gelu, "silu": _silu, "identity": _identity}
    if name not in made:
        raise node.error(f"unknown activation '{name}'; allowed: {', '.join(made)}, swiglu")
    opened = made[name](sums[0])
    return formula.text(opened if parts == 1 else opened * sums[1], names)


def _leave(biased: bool) -> str:
    names = {Var(key, "float32"): key for key in ("p", "b", "share")}
    p, b, share = names
    return formula.text((p + b if biased else p) * share, names)


def _number(value: float) -> Expr:
    return tirx.const(value, "float32")


def _relu(x: Expr) -> Expr:
    return tirx.max(_number(0.0), x)  # the constant first: NaN stays NaN


def _identity(x: Expr) -> Expr:
    return x


def _silu(x: Expr) -> Expr:
    return x * tirx.sigmoid(x)


def _gelu(x: Expr) -> Expr:
    inner = _number(math.sqrt(2 / math.pi)) * (x + _number(0.044715) * x * x * x)
    return _number(0.5) * x * (_number(1.0) + tirx.tanh(inner))


def _swiglu(node: Node, gate: Expr, linear: Expr) -> Expr:
    """G * sigmoid(alpha * G) * (L + beta), where G and L are clamped."""
    limit = node.attr("swiglu_limit", None)
    if limit is not None:
        gate = tirx.min(_number(limit), gate)
        linear = tirx.max(_number(-limit), tirx.min(_number(limit), linear))
    alpha, beta = node.attr("activation_alpha", 1.0), node.attr("activation_beta", 0.0)
    opened = gate * tirx.sigmoid(gate if alpha == 1 else gate * _number(alpha))
    return opened * (linear if beta == 0 else linear + _number(beta))
