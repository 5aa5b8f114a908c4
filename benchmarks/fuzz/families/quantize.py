"""Quantized forms: Q/DQ pairs around operators, and the integer operators."""

from __future__ import annotations

import numpy as np

from benchmarks.fuzz.families.linear import width
from benchmarks.fuzz.graph import Graph, Rejected, Value


def _scale(g: Graph) -> Value:
    return g.weight(np.array(g.choose([0.05, 0.1, 0.03]), np.float32))


def _zero(g: Graph, dtype: str) -> Value:
    return g.weight(np.array(g.choose([0, 3, 128]) if dtype == "uint8" else g.choose([0, -5]), dtype))


def round_trip(g: Graph) -> Value:
    """x, quantized and back."""
    x = g.pick(lambda v: v.dtype == np.float32 and not v.fixed)
    scale, zero = _scale(g), _zero(g, g.choose(["uint8", "int8"]))
    [q] = g.add("QuantizeLinear", [x, scale, zero])
    return g.add("DequantizeLinear", [q, scale, zero])[0]


def plain(g: Graph) -> None:
    round_trip(g)


def matmul(g: Graph) -> None:
    """DQ(Q(x)) @ DQ(w), with a scale for each column or one for all."""
    x = round_trip(g)
    if x.ndim < 1 or not x.static(-1):
        raise Rejected("the number of columns is symbolic")
    k, n = x.sizes(-1)[0], width(g)
    w = g.weight(g.rng.integers(-127, 128, (k, n)).astype(np.int8))
    if g.chance(0.5) and g.opset >= 13:
        scale = g.weight((g.rng.random(n) * 0.01 + 0.001).astype(np.float32))
        [d] = g.add("DequantizeLinear", [w, scale, g.weight(np.zeros(n, np.int8))], axis=1)
    else:
        [d] = g.add("DequantizeLinear", [w, g.weight(np.array(0.004, np.float32)), g.weight(np.array(0, np.int8))])
    [y] = g.add("MatMul", [x, d])
    if g.chance(0.5):
        [y] = g.add("Add", [y, g.weight(g.content("float32", (n,)))])
    if g.chance(0.5):
        g.add("QuantizeLinear", [y, _scale(g), _zero(g, "uint8")])


def integers(g: Graph) -> None:
    """MatMulInteger behind DynamicQuantizeLinear, as ONNX's dynamic quantization writes it."""
    x = g.pick(lambda v: v.dtype == np.float32 and v.ndim >= 2 and v.static(-1) and not v.fixed)
    k, n = x.sizes(-1)[0], width(g)
    q, scale, zero = g.add("DynamicQuantizeLinear", [x], outputs=3)
    w = g.weight(g.rng.integers(-127, 128, (k, n)).astype(np.int8))
    [y] = g.add("MatMulInteger", [q, w, zero, g.weight(np.array(0, np.int8))])
    [y] = g.add("Cast", [y], to=1)
    g.add("Mul", [y, g.add("Mul", [scale, g.weight(np.array(0.004, np.float32))])[0]])


def conv(g: Graph) -> None:
    """ConvInteger and QLinearConv."""
    x = g.pick(lambda v: v.dtype == np.float32 and v.ndim == 4 and v.static(1) and not v.fixed)
    c, out = x.sizes(1)[0], int(g.choose([1, 4, 16]))
    sx, zx = _scale(g), _zero(g, "uint8")
    [q] = g.add("QuantizeLinear", [x, sx, zx])
    w = g.weight(g.rng.integers(-127, 128, (out, c, 3, 3)).astype(np.int8))
    pads = [1, 1, 1, 1] if g.chance(0.6) else None
    if g.chance(0.5):
        g.add("ConvInteger", [q, w, zx], pads=pads)
        return
    sw, zw, sy, zy = g.weight(np.array(0.004, np.float32)), g.weight(np.array(0, np.int8)), _scale(g), _zero(g, "uint8")
    bias = [g.weight(g.rng.integers(-500, 500, out).astype(np.int32))] if g.chance(0.5) else []
    g.add("QLinearConv", [q, sx, zx, w, sw, zw, sy, zy, *bias], pads=pads)


def product(g: Graph) -> None:
    """QLinearMatMul."""
    x = g.pick(lambda v: v.dtype == np.float32 and v.ndim >= 2 and v.static(-1) and not v.fixed)
    k, n = x.sizes(-1)[0], width(g)
    sx, zx = _scale(g), _zero(g, "uint8")
    [q] = g.add("QuantizeLinear", [x, sx, zx])
    w = g.weight(g.rng.integers(0, 256, (k, n)).astype(np.uint8))
    g.add("QLinearMatMul", [q, sx, zx, w, g.weight(np.array(0.004, np.float32)), _zero(g, "uint8"),
                                  _scale(g), _zero(g, "uint8")])  # fmt: skip


GENERATORS = {plain: 1.0, matmul: 1.0, integers: 0.7, conv: 0.7, product: 0.5}
