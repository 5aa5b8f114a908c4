"""Attention as exporters write it, with heads, masks and shared projections."""

from __future__ import annotations

import numpy as np

from benchmarks.fuzz.families.linear import scaled
from benchmarks.fuzz.graph import Graph, Rejected, Value


def _heads(g: Graph, x: Value, count: int, size: int, key: bool = False) -> Value:
    """x (batch, length, count * size) as (batch, count, length, size), or (batch, count, size, length)."""
    [y] = g.add("Reshape", [x, g.ints(0, -1 if not x.static(1) else 0, count, size)])
    return g.add("Transpose", [y], perm=[0, 2, 3, 1] if key else [0, 2, 1, 3])[0]


def attention(g: Graph) -> None:
    count, size = g.choose([1, 2, 4]), int(g.choose([4, 8, 16]))
    width = count * size
    x = g.input("float32", [g.symbol() if g.chance(0.5) else g.integer(1, 2), g.symbol(), width])
    q, k, v = (g.add("MatMul", [x, scaled(g, "float32", (width, width), width)])[0] for _ in range(3))
    if g.chance(0.5):
        [q] = g.add("Add", [q, g.weight(g.content("float32", (width,)))])
    q, v = _heads(g, q, count, size), _heads(g, v, count, size)
    k = _heads(g, k, count, size, key=True)
    [scores] = g.add("MatMul", [q, k])
    scale = np.array(1 / np.sqrt(size), np.float32)
    [scores] = g.add(*(("Mul", [scores, g.weight(scale)]) if g.chance(0.5) else ("Div", [scores, g.weight(1 / scale)])))
    kind = g.integer(0, 3)
    if kind == 0:
        past = g.input("float32", [1, 1, *(_dim(g, x, 1) for _ in range(2))])
        [scores] = g.add("Add", [scores, past])
    elif kind == 1:
        allowed = g.input("bool", [_dim(g, x, 0), 1, 1, _dim(g, x, 1)])
        for array in allowed.arrays:
            array[..., 0] = True
        [scores] = g.add("Where", [allowed, scores, g.weight(np.array(-1e4, np.float32))])
    [weights] = g.add("Softmax", [scores], axis=-1 if g.chance(0.7) else 3)
    [y] = g.add("MatMul", [weights, v])
    [y] = g.add("Transpose", [y], perm=[0, 2, 1, 3])
    [y] = g.add("Reshape", [y, g.ints(0, 0, width)])
    if g.chance(0.5):
        [y] = g.add("MatMul", [y, scaled(g, "float32", (width, width), width)])
        g.add("Add", [y, x])


def _dim(g: Graph, x: Value, axis: int) -> int | str:
    return next(i.dims[axis] for i in g.inputs if i.value is x)


def operator(g: Graph) -> None:
    """The standard's own Attention."""
    if g.opset < 23:
        raise Rejected("Attention")
    count, size = g.choose([1, 2, 4]), int(g.choose([4, 8, 16]))
    shared = g.choose([h for h in (1, 2, 4) if count % h == 0])
    batch, length, past = g.choose([1, 2]), g.symbol(), g.symbol()
    q = g.input("float32", [batch, count, length, size])
    k, v = (g.input("float32", [batch, shared, past, size]) for _ in range(2))
    mask = []
    if g.chance(0.3):
        mask = [g.input(g.choose(["float32", "bool"]), [1, 1, length, past])]
        if mask[0].kind == "b":
            for array in mask[0].arrays:
                array[..., 0] = True
    causal = 1 if g.chance(0.3) and not mask else None
    g.add("Attention", [q, k, v, *mask], is_causal=causal, softcap=2.0 if g.chance(0.1) else None)


def rotary(g: Graph) -> None:
    """The rotation of halves as decoders write it: x * cos + concat(-x2, x1) * sin."""
    x = g.pick(lambda v: v.dtype == np.float32 and v.ndim >= 3 and v.static(-1) and v.sizes(-1)[0] % 2 == 0)
    half = x.sizes(-1)[0] // 2
    [a] = g.add("Slice", [x, g.ints(0), g.ints(half), g.ints(-1)])
    [b] = g.add("Slice", [x, g.ints(half), g.ints(2**63 - 1), g.ints(-1)])
    [turned] = g.add("Concat", [g.add("Neg", [b])[0], a], axis=-1)
    cos, sin = (g.weight(g.content("float32", (2 * half,))) for _ in range(2))
    g.add("Add", [g.add("Mul", [x, cos])[0], g.add("Mul", [turned, sin])[0]])


GENERATORS = {attention: 1.2, operator: 1.0, rotary: 0.7}
