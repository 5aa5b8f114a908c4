"""Reductions, normalisations, softmax and the ones that networks write out of smaller operators."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.fuzz.graph import Graph, Rejected, Value

_REDUCTIONS = ("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "LogSum", "LogSumExp", "SumSquare")


def reduce(g: Graph) -> None:
    kind = g.choose(_REDUCTIONS)
    x = g.pick(lambda v: v.ndim > 0 and (v.kind == "f" or (v.kind in "iu" and kind in ("Sum", "Max", "Min"))))
    if x.kind != "f" and x.dtype.itemsize < 4 and (kind == "Sum" or g.opset < 12):
        raise Rejected("sums of narrow integers overflow")
    if kind == "LogSum":
        [x] = g.add("Add", [g.add("Abs", [x])[0], g.weight(np.array(0.5, x.dtype))])
    axes = sorted(int(a) for a in g.rng.choice(x.ndim, g.integer(1, x.ndim), replace=False))
    if g.chance(0.3):
        axes = [a - x.ndim for a in axes]
    keep = 0 if g.chance(0.4) else 1 if g.chance(0.5) else None
    if g.chance(0.1):
        g.add(f"Reduce{kind}", [x], keepdims=keep)
    elif g.opset >= (13 if kind == "Sum" else 18):
        g.add(f"Reduce{kind}", [x, g.ints(*axes)], keepdims=keep)
    else:
        g.add(f"Reduce{kind}", [x], axes=axes, keepdims=keep)


def arg(g: Graph) -> None:
    x = g.pick(lambda v: v.ndim > 0 and v.kind in "fi" and v.dtype.itemsize >= 4)
    axis = g.integer(-x.ndim, x.ndim - 1)
    last = 1 if g.chance(0.2) else None
    g.add(g.choose(["ArgMax", "ArgMin"]), [x], axis=axis, keepdims=g.integer(0, 1), select_last_index=last)


def softmax(g: Graph) -> None:
    x = g.floats(least=1)
    g.add(g.choose(["Softmax", "Softmax", "LogSoftmax", "Hardmax"]), [x], axis=g.integer(-x.ndim, x.ndim - 1))


def scan(g: Graph) -> None:
    x = g.pick(lambda v: (v.ndim > 0 and v.kind == "f") or v.dtype in (np.int32, np.int64))
    axis = g.weight(np.array(g.integer(-x.ndim, x.ndim - 1)))
    g.add("CumSum", [x, axis], exclusive=g.integer(0, 1), reverse=g.integer(0, 1))


def layer_norm(g: Graph) -> None:
    x = g.floats(least=2)
    axis = g.choose([-1, x.ndim - 1, -min(2, x.ndim)])
    shape = _tail(x, axis)
    weights = [g.weight(g.content(x.dtype.name, shape)) for _ in range(g.integer(1, 2))]
    if g.opset >= 23 and g.chance(0.3):
        g.add("RMSNormalization", [x, weights[0]], axis=axis)
    elif g.opset >= 17:
        g.add("LayerNormalization", [x, *weights], axis=axis, epsilon=1e-3 if g.chance(0.3) else None)
    else:
        written(g)


def _tail(x: Value, axis: int) -> list[int]:
    axes = range(axis % x.ndim, x.ndim)
    if not all(x.static(a) for a in axes):
        raise Rejected("a normalised dimension is symbolic")
    return [x.sizes(a)[0] for a in axes]


def written(g: Graph) -> None:
    """A normalisation written out: mean, difference, variance, root, as exporters do."""
    x = g.floats(least=2)
    axis = -1 if g.chance(0.7) else g.integer(0, x.ndim - 1)

    def mean(value: Value) -> Value:
        if g.opset >= 18:
            return g.add("ReduceMean", [value, g.ints(axis)])[0]
        return g.add("ReduceMean", [value], axes=[axis])[0]

    difference = g.add("Sub", [x, mean(x)])[0] if g.chance(0.7) else x
    if g.chance(0.5):
        [square] = g.add("Mul", [difference, difference])
    else:
        [square] = g.add("Pow", [difference, g.weight(np.array(2, x.dtype))])
    [root] = g.add("Sqrt", [g.add("Add", [mean(square), g.weight(np.array(1e-2, x.dtype))])[0]])
    [y] = g.add("Div", [difference, root])
    if x.static(-1) and g.chance(0.5):
        [y] = g.add("Mul", [y, g.weight(g.content(x.dtype.name, [x.sizes(-1)[0]]))])


def group_norm(g: Graph) -> None:
    x = g.pick(lambda v: v.kind == "f" and v.ndim >= 3 and v.static(1) and not v.fixed)
    c = x.sizes(1)[0]
    op = g.choose(
        ["InstanceNormalization", "GroupNormalization", "LRN", "MeanVarianceNormalization", "LpNormalization"]
    )
    weights = [g.weight(g.content(x.dtype.name, (c,))) for _ in range(2)]
    attributes: dict[str, Any] = {}
    if op == "LRN":
        g.add(op, [x], size=3)
        return
    if op == "LpNormalization":
        g.add(op, [g.add("Add", [g.add("Abs", [x])[0], g.weight(np.array(0.5, x.dtype))])[0]], p=g.integer(1, 2))
        return
    if op == "MeanVarianceNormalization":
        g.add(op, [x])
        return
    if op == "GroupNormalization":
        if g.opset < 21:
            raise Rejected(op)
        attributes["num_groups"] = g.choose([d for d in (1, 2, 4, c) if c % d == 0])
    g.add(op, [x, *weights], epsilon=1e-2, **attributes)


GENERATORS = {reduce: 5.0, arg: 1.0, softmax: 3.0, scan: 1.0, layer_norm: 2.0, written: 1.5, group_norm: 2.0}
