"""Operators that read or write at indices, sort, or have outputs whose size depends on the data."""

from __future__ import annotations

import numpy as np

from benchmarks.fuzz.graph import Graph, Rejected, Value


def _indices(g: Graph, size: int, shape: tuple[int, ...]) -> Value:
    if not size:
        raise Rejected("nothing to index")
    low = -size if g.chance(0.3) else 0
    return g.weight(g.rng.integers(low, size, shape).astype(g.choose(["int64", "int64", "int32"])))


def _fits(v: Value, sizes: tuple[int, ...]) -> bool:
    return all(not a.size or (-s <= a.min() and a.max() < s) for a, s in zip(v.arrays, sizes, strict=True))


def gather(g: Graph) -> None:
    x = g.pick(lambda v: v.ndim >= 1)
    axis = g.integer(0, x.ndim - 1)
    smallest = min(x.sizes(axis))
    shape = g.choose([(), (1,), (3,), (2, 2)])
    if g.chance(0.3):
        sizes = x.sizes(axis)
        found = g.pick(lambda v: v.dtype in (np.int32, np.int64) and v.ndim <= 2 and _fits(v, sizes))
        g.add("Gather", [x, found], axis=axis)
        return
    g.add("Gather", [x, _indices(g, smallest, shape)], axis=axis - x.ndim if g.chance(0.3) else axis)


def embedding(g: Graph) -> None:
    """Rows of a table, chosen by an input of integers."""
    if len(g.inputs) > 4:
        raise Rejected("inputs")
    ids = g.input(g.choose(["int64", "int32"]), [g.symbol() if g.chance(0.7) else 3 for _ in range(g.integer(1, 2))])
    for array in ids.arrays:
        np.abs(array, out=array)
    g.add("Gather", [g.weight(g.content("float32", (10, int(g.choose([4, 8, 16, 33]))))), ids])


def gather_elements(g: Graph) -> None:
    x = g.pick(lambda v: v.ndim >= 1 and all(v.static(a) for a in range(v.ndim)) and v.arrays[0].size > 0)
    axis = g.integer(0, x.ndim - 1)
    shape = list(x.arrays[0].shape)
    shape[axis] = g.integer(1, 4)
    g.add("GatherElements", [x, _indices(g, x.sizes(axis)[0], tuple(shape))], axis=axis)


def gather_nd(g: Graph) -> None:
    x = g.pick(lambda v: v.ndim >= 1 and min(min(s, default=1) for s in v.shapes) > 0)
    depth = g.integer(1, x.ndim)
    limits = [min(x.sizes(a)) for a in range(depth)]
    count = g.integer(1, 4)
    rows = np.stack([g.rng.integers(0, limit, count) for limit in limits], axis=-1)
    g.add("GatherND", [x, g.weight(rows)])


def scatter(g: Graph) -> None:
    x = g.pick(lambda v: v.kind in "fi" and v.dtype.itemsize >= 4 and v.ndim >= 1 and min(min(s) for s in v.shapes) > 0)
    reduction = g.choose([None, None, "add", "mul", "max", "min"])
    if reduction and g.opset < (18 if reduction in ("max", "min") else 16):
        raise Rejected("reduction")
    if g.chance(0.5):
        axis = g.integer(0, x.ndim - 1)
        if not all(x.static(a) for a in range(x.ndim)):
            raise Rejected("ScatterElements on a symbolic shape")
        shape = list(x.arrays[0].shape)
        shape[axis] = min(g.integer(1, 3), shape[axis])
        picks = g.rng.permutation(shape[axis] if reduction else x.sizes(axis)[0])[: shape[axis]]
        where = [1] * x.ndim
        where[axis] = shape[axis]
        indices = np.broadcast_to(picks.reshape(where), shape).copy()
        g.add("ScatterElements", [x, g.weight(indices), g.weight(g.content(x.dtype.name, shape))], axis=axis,
              reduction=reduction)  # fmt: skip
        return
    rows = g.rng.permutation(min(x.sizes(0)))[: g.integer(1, 3)].reshape(-1, 1)
    if not all(x.static(a) for a in range(1, x.ndim)):
        raise Rejected("ScatterND on a symbolic shape")
    updates = g.content(x.dtype.name, (len(rows), *x.arrays[0].shape[1:]))
    g.add("ScatterND", [x, g.weight(rows), g.weight(updates)], reduction=reduction)


def top_k(g: Graph) -> None:
    x = g.pick(lambda v: v.kind in "fi" and v.dtype.itemsize >= 4 and v.ndim >= 1)
    axis = g.integer(0, x.ndim - 1)
    k = g.integer(1, max(1, min(5, min(x.sizes(axis)))))
    g.add("TopK", [x, g.ints(k)], outputs=2, axis=axis, largest=g.integer(0, 1))


def one_hot(g: Graph) -> None:
    x = g.pick(lambda v: v.dtype in (np.int64, np.int32) and v.ndim <= 3)
    values = g.weight(np.array([0, 1], g.choose(["float32", "int64"])))
    g.add("OneHot", [x, g.weight(np.array(g.integer(2, 12))), values], axis=g.choose([-1, 0]))


def data_dependent(g: Graph) -> None:
    """Outputs whose size depends on the data; every binding has a few elements."""
    op = g.choose(["NonZero", "Compress", "Unique"])
    if op == "NonZero":
        [y] = g.add(op, [g.pick(lambda v: v.ndim >= 1)])
        if g.chance(0.5):
            g.add("Transpose", [y], perm=[1, 0])
    elif op == "Compress":
        x = g.pick(lambda v: v.ndim >= 1)
        axis = g.integer(0, x.ndim - 1)
        condition = g.pick(lambda v: v.kind == "b" and v.ndim == 1 and v.sizes(0) == x.sizes(axis))
        g.add(op, [x, condition], axis=axis)
    else:
        x = g.pick(lambda v: v.ndim == 1 and v.kind in "fi" and v.dtype.itemsize >= 4)
        g.add(op, [x], outputs=g.choose([1, 4]), sorted=g.integer(0, 1))


def reverse_sequence(g: Graph) -> None:
    x = g.pick(lambda v: v.kind == "f" and v.ndim >= 2 and v.static(1) and min(min(s) for s in v.shapes) > 0)
    lengths = g.rng.integers(1, min(x.sizes(0)) + 1, x.sizes(1)[0])
    g.add("ReverseSequence", [x, g.weight(lengths)], time_axis=0, batch_axis=1)


GENERATORS = {
    gather: 4.0, embedding: 1.5, gather_elements: 1.0, gather_nd: 1.0, scatter: 2.0, top_k: 1.5, one_hot: 1.0,
    data_dependent: 1.5, reverse_sequence: 0.5,
}  # fmt: skip
