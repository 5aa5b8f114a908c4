"""Operators that move data: transposes, joins, cuts, pads, resizes and reshapes with known targets."""

from __future__ import annotations

import numpy as np

from benchmarks.fuzz.graph import Graph, Rejected, Value


def transpose(g: Graph) -> None:
    x = g.pick(lambda v: v.ndim >= 2)
    perm = [int(a) for a in g.rng.permutation(x.ndim)]
    g.add("Transpose", [x], perm=None if g.chance(0.15) else perm)


def reshape(g: Graph) -> None:
    """To a target of 0s, numbers and at most one -1."""
    x = g.pick(lambda v: v.ndim >= 1)
    kind = g.integer(0, 4)
    if kind == 0:
        target = [-1]
    elif kind == 1:  # merge two neighbours
        at = g.integer(0, max(x.ndim - 2, 0))
        target = [0] * at + [-1] + [s if len(set(x.sizes(a))) == 1 else -1
                                    for a, s in enumerate(x.arrays[0].shape) if a > at + 1]  # fmt: skip
    elif kind == 2:  # split one
        axis = g.integer(0, x.ndim - 1)
        factor = g.choose([f for f in (1, 2, 3, 4, 5, 8) if all(s % f == 0 for s in x.sizes(axis))])
        parts = [factor, -1] if g.chance(0.5) else [-1, factor]
        target = [0] * axis + parts + [_known(x, a) for a in range(axis + 1, x.ndim)]
    elif kind == 3:
        target = [0 if g.chance(0.6) or not x.static(a) else x.sizes(a)[0] for a in range(x.ndim)]
    else:
        target = [-1, _known(x, x.ndim - 1)]
    g.add("Reshape", [x, g.ints(*target)])


def _known(x: Value, axis: int) -> int:
    if not x.static(axis):
        raise Rejected("a dimension behind the open one is symbolic")
    return x.sizes(axis)[0]


def flatten(g: Graph) -> None:
    x = g.pick(lambda v: v.ndim >= 1)
    g.add("Flatten", [x], axis=g.integer(-x.ndim, x.ndim))


def squeeze(g: Graph) -> None:
    x = g.pick(lambda v: any(set(v.sizes(a)) == {1} for a in range(v.ndim)))
    axes = [a for a in range(x.ndim) if set(x.sizes(a)) == {1}]
    axes = sorted(axes[: g.integer(1, len(axes))])
    if g.opset >= 13:
        g.add("Squeeze", [x, g.ints(*axes)])
    else:
        g.add("Squeeze", [x], axes=axes)


def unsqueeze(g: Graph) -> None:
    x = g.pick(lambda v: v.ndim < 5)
    axes = sorted({g.integer(0, x.ndim) for _ in range(g.integer(1, 2))})
    if g.chance(0.3) and len(axes) == 1:
        axes = [-1]
    if g.opset >= 13:
        g.add("Unsqueeze", [x, g.ints(*axes)])
    else:
        g.add("Unsqueeze", [x], axes=axes)


def concat(g: Graph) -> None:
    x = g.pick(lambda v: v.ndim >= 1)
    axis = g.integer(0, x.ndim - 1)

    def fits(v: Value) -> bool:
        return v.dtype == x.dtype and v.ndim == x.ndim and all(
            v.sizes(a) == x.sizes(a) for a in range(x.ndim) if a != axis
        )  # fmt: skip

    parts = [x, *(g.pick(fits) for _ in range(g.integer(1, 2)))]
    if all(x.static(a) for a in range(x.ndim) if a != axis) and g.chance(0.3):
        shape = [g.integer(1, 3) if a == axis else x.sizes(a)[0] for a in range(x.ndim)]
        parts.insert(g.integer(0, 1), g.weight(g.content(x.dtype.name, shape)))
    g.add("Concat", parts, axis=axis - x.ndim if g.chance(0.3) else axis)


def split(g: Graph) -> None:
    x = g.pick(lambda v: v.ndim >= 1)
    axis = g.integer(0, x.ndim - 1)
    smallest = min(x.sizes(axis))
    if x.static(axis) and smallest >= 2 and g.chance(0.6):
        cut = g.integer(1, smallest - 1)
        if g.opset >= 13:
            g.add("Split", [x, g.ints(cut, smallest - cut)], outputs=2, axis=axis)
        else:
            g.add("Split", [x], outputs=2, axis=axis, split=[cut, smallest - cut])
        return
    parts = g.choose([p for p in (1, 2, 3) if all(s % p == 0 for s in x.sizes(axis))])
    g.add("Split", [x], outputs=parts, axis=axis, num_outputs=parts if g.opset >= 18 else None)


def slices(g: Graph) -> None:
    """Slices with negative, open and clipped bounds and steps."""
    x = g.pick(lambda v: v.ndim >= 1)
    count = g.integer(1, min(2, x.ndim))
    axes = sorted(int(a) for a in g.rng.choice(x.ndim, count, replace=False))
    starts, ends, steps = [], [], []
    for axis in axes:
        size = min(x.sizes(axis))
        step = g.choose([1, 1, 1, 2, 3, -1, -2])
        start, end = g.choose([0, 1, -size, -1, size // 2]), g.choose([size, -1, 2**31 - 1, 2**63 - 1, size // 2 + 1])
        if step < 0:
            start, end = g.choose([-1, size - 1, 2**31 - 1]), g.choose([-(2**63) + 1, 0, -size - 1, -9999])
        starts.append(start)
        ends.append(end)
        steps.append(step)
    given = [g.ints(*starts), g.ints(*ends), g.ints(*axes), g.ints(*steps)]
    g.add("Slice", [x, *given[: 4 if any(s != 1 for s in steps) else 3]])


def pad(g: Graph) -> None:
    x = g.pick(lambda v: (v.kind == "f" and 1 <= v.ndim <= 4) or (v.dtype in (np.int32, np.int64) and v.ndim >= 1))
    mode = g.choose(["constant", "constant", "edge", "reflect", "wrap"])
    if mode == "wrap" and g.opset < 19:
        raise Rejected(mode)
    low = -1 if mode == "constant" and g.chance(0.2) else 0
    reach = [min(x.sizes(a)) - 1 if mode == "reflect" else min(x.sizes(a)) if mode == "wrap" else 3
             for a in range(x.ndim)] * 2  # fmt: skip
    pads = [g.integer(low, min(2, r)) if g.chance(0.6) else 0 for r in reach]
    inputs = [x, g.ints(*pads)]
    if mode == "constant" and g.chance(0.5):
        inputs.append(g.weight(np.array(g.choose([1, 0, 2]), x.dtype)))
    g.add("Pad", inputs, mode=None if mode == "constant" and g.chance(0.5) else mode)


def expand(g: Graph) -> None:
    x = g.pick(lambda v: v.ndim <= 4)
    shape = [g.choose([1, 2, 3]) if set(x.sizes(a)) == {1} else 1 for a in range(x.ndim)]
    g.add("Expand", [x, g.ints(*([2] if g.chance(0.3) else []), *shape)])


def tile(g: Graph) -> None:
    x = g.pick(lambda v: 1 <= v.ndim <= 4)
    g.add("Tile", [x, g.ints(*(g.choose([1, 1, 2, 3]) for _ in range(x.ndim)))])


def resize(g: Graph) -> None:
    x = g.pick(lambda v: v.dtype == np.float32 and v.ndim in (3, 4) and not v.fixed)
    mode = g.choose(["nearest", "nearest", "linear", "linear", "cubic"])
    if mode == "cubic" and x.ndim != 4:
        raise Rejected("cubic")
    factors = [g.choose([1.0, 2.0, 2.0, 0.5, 1.5, 3.0]) for _ in range(x.ndim - 2)]
    transform = g.choose(["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"])
    extra = {"nearest_mode": g.choose(["round_prefer_floor", "floor", "ceil"])} if mode == "nearest" else {}
    empty = g.weight(np.array([], np.float32))
    if all(x.static(a) for a in range(2, x.ndim)) and g.chance(0.4) and x.static(0) and x.static(1):
        sizes = [x.sizes(0)[0], x.sizes(1)[0], *(max(1, int(x.sizes(a + 2)[0] * f)) for a, f in enumerate(factors))]
        inputs = [x, None, None, g.ints(*sizes)] if g.opset >= 13 else [x, empty, empty, g.ints(*sizes)]
    else:
        scales = g.weight(np.array([1.0, 1.0, *factors], np.float32))
        inputs = [x, None if g.opset >= 13 else empty, scales]
    g.add("Resize", inputs, mode=mode, coordinate_transformation_mode=transform, **extra)


def blocks(g: Graph) -> None:
    x = g.pick(lambda v: v.kind == "f" and v.ndim == 4 and v.static(1))
    if g.chance(0.5):
        g.add("DepthToSpace", [x], blocksize=2, mode=g.choose(["DCR", "CRD"]))
    else:
        g.add("SpaceToDepth", [x], blocksize=2)


def triangle(g: Graph) -> None:
    x = g.pick(lambda v: v.ndim >= 2 and v.kind == "f")
    if g.opset < 14:
        raise Rejected("Trilu")
    offset = [g.weight(np.array(g.integer(-2, 2)))] if g.chance(0.5) else []
    g.add("Trilu", [x, *offset], upper=g.integer(0, 1))


GENERATORS = {
    transpose: 5.0, reshape: 4.0, flatten: 1.0, squeeze: 1.5, unsqueeze: 2.0, concat: 4.0, split: 3.0, slices: 4.0,
    pad: 3.0, expand: 1.5, tile: 1.0, resize: 2.5, blocks: 1.0, triangle: 1.0,
}  # fmt: skip
