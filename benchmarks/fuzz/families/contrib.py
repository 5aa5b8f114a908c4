"""Operators of onnxruntime's own domain, as its optimizer and its tools write them. onnxruntime computes them."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.fuzz.families.linear import scaled, width
from benchmarks.fuzz.graph import Graph, Rejected, Value

_DOMAIN = "com.microsoft"


def _rows(g: Graph) -> Value:
    """(..., width) with a width that is known."""
    return g.pick(lambda v: v.dtype == np.float32 and v.ndim in (2, 3) and v.static(-1) and not v.fixed
                  and min(min(s) for s in v.shapes) > 0)  # fmt: skip


def fused_matmul(g: Graph) -> None:
    x = _rows(g)
    k, n = x.sizes(-1)[0], width(g)
    flip = g.integer(0, 1)
    w = scaled(g, "float32", (n, k) if flip else (k, n), k)
    g.add("FusedMatMul", [x, w], domain=_DOMAIN, transB=flip, alpha=float(g.choose([1.0, 0.5])))


def fused_gemm(g: Graph) -> None:
    x = g.pick(lambda v: v.dtype == np.float32 and v.ndim == 2 and v.static(1) and not v.fixed and min(v.sizes(0)) > 0)
    k, n = x.sizes(1)[0], width(g)
    activation: dict[str, Any] = {"activation": g.choose(["Relu", "Tanh", "Sigmoid", "LeakyRelu"])}
    if activation["activation"] == "LeakyRelu":
        activation["activation_alpha"] = 0.2
    bias = g.weight(g.content("float32", (n,)))
    g.add("FusedGemm", [x, scaled(g, "float32", (k, n), k), bias], domain=_DOMAIN, **activation)


def activation(g: Graph) -> None:
    x = _rows(g)
    op = g.choose(["Gelu", "FastGelu", "BiasGelu", "QuickGelu"])
    inputs = [x]
    if op == "BiasGelu" or (op == "FastGelu" and g.chance(0.5)):
        inputs.append(g.weight(g.content("float32", (x.sizes(-1)[0],))))
    g.add(op, inputs, domain=_DOMAIN)


def skip_norm(g: Graph) -> None:
    x = g.pick(lambda v: v.dtype == np.float32 and v.ndim == 3 and v.static(-1) and not v.fixed
               and min(min(s) for s in v.shapes) > 0)  # fmt: skip
    other = g.pick(lambda v: v.dtype == x.dtype and v.shapes == x.shapes)
    simple = g.chance(0.5)
    weights = [g.weight(g.content("float32", (x.sizes(-1)[0],))) for _ in range(1 if simple else 2)]
    if g.chance(0.3):
        weights += [g.weight(g.content("float32", (x.sizes(-1)[0],)))]
    op = "SkipSimplifiedLayerNormalization" if simple else "SkipLayerNormalization"
    g.add(op, [x, other, *weights], domain=_DOMAIN, epsilon=1e-3)


def dynamic(g: Graph) -> None:
    """Products whose left operand is quantized while the model runs."""
    x = _rows(g)
    k, n = x.sizes(-1)[0], width(g)
    w = g.weight(g.rng.integers(-127, 128, (k, n)).astype(np.int8))
    scale, zero = g.weight(np.array(0.004, np.float32)), g.weight(np.array(0, np.int8))
    bias = g.weight(g.content("float32", (n,))) if g.chance(0.4) else None
    if g.chance(0.5):
        g.add("DynamicQuantizeMatMul", [x, w, scale, zero, bias][: 5 if bias is not None else 4], domain=_DOMAIN)
        return
    q, found, middle = g.add("DynamicQuantizeLinear", [x], outputs=3)
    inputs = [q, w, found, scale, middle, zero, bias]
    g.add("MatMulIntegerToFloat", inputs[: 7 if bias is not None else 6], domain=_DOMAIN)


def nbits(g: Graph) -> None:
    """A product with a weight of 4 or 8 bits in blocks."""
    x = _rows(g)
    k, block = x.sizes(-1)[0], int(g.choose([16, 32]))
    bits, n = int(g.choose([4, 4, 8])), int(g.choose([1, 4, 8, 16, 33]))
    blocks = -(-k // block)
    packed = g.weight(g.rng.integers(0, 256, (n, blocks, block * bits // 8)).astype(np.uint8))
    scales = g.weight(g.rng.uniform(0.001, 0.02, (n, blocks)).astype(np.float32))
    zeros = []
    if g.chance(0.3):
        zeros = [g.weight(g.rng.integers(0, 256, (n, -(-blocks * bits // 8))).astype(np.uint8))]
    g.add("MatMulNBits", [x, packed, scales, *zeros], domain=_DOMAIN, K=k, N=n, bits=bits, block_size=block)


def linear(g: Graph) -> None:
    """Arithmetic between quantized tensors."""
    x = _rows(g)
    kind = g.choose(["uint8", "int8"])
    scales = [g.weight(np.array(v, np.float32)) for v in (0.03, 0.05, 0.1)]
    zeros = [g.weight(np.array(v, kind)) for v in ((128, 120, 3) if kind == "uint8" else (0, -5, 7))]
    [a] = g.add("QuantizeLinear", [x, scales[0], zeros[0]])
    op = g.choose(["QLinearAdd", "QLinearMul", "QLinearSigmoid", "QLinearLeakyRelu"])
    if op in ("QLinearAdd", "QLinearMul"):
        b = g.weight(g.rng.integers(0, 100, (x.sizes(-1)[0],)).astype(kind))
        inputs = [a, scales[0], zeros[0], b, scales[1], zeros[1], scales[2], zeros[2]]
    else:
        inputs = [a, scales[0], zeros[0], scales[2], zeros[2]]
    [y] = g.add(op, inputs, domain=_DOMAIN)
    if g.chance(0.6):
        g.add("DequantizeLinear", [y, scales[2], zeros[2]])


def rotary(g: Graph) -> None:
    if len(g.inputs) > 4:
        raise Rejected("inputs")
    heads, size = int(g.choose([1, 2, 4])), int(g.choose([4, 8, 16]))
    x = g.input("float32", [g.choose([1, 2]), g.symbol(), heads * size])
    length = max(x.sizes(1))
    angles = np.arange(length)[:, None] / 10.0 ** np.arange(size // 2)
    cos, sin = (g.weight(f(angles).astype(np.float32)) for f in (np.cos, np.sin))
    start = g.ints(0)
    g.add("RotaryEmbedding", [x, start, cos, sin], domain=_DOMAIN, num_heads=heads, interleaved=g.integer(0, 1))


def heads(g: Graph) -> None:
    """MultiHeadAttention of one sequence or two."""
    if len(g.inputs) > 3:
        raise Rejected("inputs")
    count, size, batch = int(g.choose([1, 2, 4])), int(g.choose([4, 8])), g.choose([1, 2])
    q = g.input("float32", [batch, g.symbol(), count * size])
    if g.chance(0.5):
        g.add("MultiHeadAttention", [q, q, q], domain=_DOMAIN, num_heads=count, unidirectional=g.integer(0, 1))
        return
    k, v = (g.input("float32", [batch, s, count * size]) for s in [g.symbol()] * 2)
    g.add("MultiHeadAttention", [q, k, v], domain=_DOMAIN, num_heads=count)


GENERATORS = {
    fused_matmul: 0.7, fused_gemm: 0.5, activation: 0.8, skip_norm: 0.6, dynamic: 0.6, nbits: 0.8, linear: 0.8,
    rotary: 0.4, heads: 0.5,
}  # fmt: skip
