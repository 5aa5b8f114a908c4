"""Shapes that the graph computes, from Shape to the operator that takes them."""

from __future__ import annotations

import numpy as np

from benchmarks.fuzz.graph import Graph, Rejected, Value


def extents(g: Graph, x: Value) -> list[Value]:
    """Every dimension of x as a list of one number, taken from its shape in one of the usual ways."""
    [shape] = g.add("Shape", [x])
    found = []
    for axis in range(x.ndim):
        kind = g.integer(0, 2)
        if kind == 0:
            found += g.add("Slice", [shape, g.ints(axis), g.ints(axis + 1)])
        elif kind == 1:
            [scalar] = g.add("Gather", [shape, g.weight(np.array(axis))])
            found += (
                g.add("Unsqueeze", [scalar, g.ints(0)]) if g.opset >= 13 else g.add("Unsqueeze", [scalar], axes=[0])
            )
        else:
            found += g.add("Gather", [shape, g.ints(axis)])
    return found


def computed_reshape(g: Graph) -> None:
    """Merge, split or swap the names of dimensions by a target that is put together."""
    x = g.pick(lambda v: v.ndim >= 2)
    dims = extents(g, x)
    kind = g.integer(0, 3)
    if kind == 0:
        [merged] = g.add("Mul", dims[:2])
        dims = [merged, *dims[2:]]
    elif kind == 1:
        axis = g.integer(0, x.ndim - 1)
        factor = g.choose([f for f in (1, 2, 3, 4) if all(s % f == 0 for s in x.sizes(axis))])
        [quotient] = g.add("Div", [dims[axis], g.ints(factor)])
        dims = [*dims[:axis], quotient, g.ints(factor), *dims[axis + 1 :]]
    elif kind == 2:
        dims[g.integer(0, x.ndim - 1)] = g.ints(-1)
    else:
        dims = [dims[0], g.ints(-1)]
    [target] = g.add("Concat", dims, axis=0)
    g.add("Reshape", [x, target])


def computed_expand(g: Graph) -> None:
    """x stretched to the shape of another value."""
    goal = g.pick(lambda v: v.ndim >= 1)
    shape = [goal.sizes(a)[0] if goal.static(a) and g.chance(0.5) else 1 for a in range(goal.ndim)]
    x = g.weight(g.content("float32", shape))
    if g.chance(0.3):
        x = g.pick(lambda v: v.dtype == np.float32 and v.ndim <= goal.ndim)
    g.add("Expand", [x, g.add("Shape", [goal])[0]])


def filled(g: Graph) -> None:
    """ConstantOfShape of a computed shape, added to something of that shape."""
    x = g.pick(lambda v: v.dtype == np.float32 and v.ndim >= 1)
    [shape] = g.add("Shape", [x])
    value = np.array([g.choose([0.0, 1.0, -2.5])], np.float32)
    from onnx import numpy_helper

    [y] = g.add("ConstantOfShape", [shape], value=numpy_helper.from_array(value))
    g.add("Add", [x, y])


def positions(g: Graph) -> None:
    """0, 1, ..., n - 1 from a dimension, used as indices or as numbers."""
    x = g.pick(lambda v: v.ndim >= 1)
    axis = g.integer(0, x.ndim - 1)
    [shape] = g.add("Shape", [x])
    [size] = g.add("Gather", [shape, g.weight(np.array(axis))])
    zero, one = g.weight(np.array(0)), g.weight(np.array(g.choose([1, 1, 2])))
    [index] = g.add("Range", [zero, size, one])
    if g.chance(0.5):
        g.add("Gather", [x, index], axis=axis)
    else:
        g.add("Cast", [index], to=1)


def computed_slice(g: Graph) -> None:
    """Half of a dimension, or all but the last, with bounds from the shape."""
    x = g.pick(lambda v: v.ndim >= 1)
    axis = g.integer(0, x.ndim - 1)
    size = extents(g, x)[axis]
    op, other = g.choose([("Div", 2), ("Sub", 1), ("Mul", 2), ("Div", 3)])
    [end] = g.add(op, [size, g.ints(other)])
    start = g.ints(g.choose([0, 1, -2]))
    bounds = [start, end] if g.chance(0.6) else [end, g.ints(2**63 - 1)]
    g.add("Slice", [x, *bounds, g.ints(axis)])


def computed_resize(g: Graph) -> None:
    """An image brought to the size of another."""
    x = g.pick(lambda v: v.dtype == np.float32 and v.ndim == 4 and not v.fixed and v.static(0) and v.static(1))
    [shape] = g.add("Shape", [x])
    [head] = g.add("Slice", [shape, g.ints(0), g.ints(2)])
    [tail] = g.add("Slice", [shape, g.ints(2), g.ints(4)])
    [tail] = g.add("Mul", [tail, g.ints(2)])
    [sizes] = g.add("Concat", [head, tail], axis=0)
    mode, transform = g.choose([("nearest", "asymmetric"), ("linear", "half_pixel"), ("linear", "align_corners")])
    g.add("Resize", [x, None, None, sizes], mode=mode, coordinate_transformation_mode=transform,
          nearest_mode="floor" if mode == "nearest" else None)  # fmt: skip


def computed_pad(g: Graph) -> None:
    """The last dimension padded to a multiple."""
    x = g.pick(lambda v: v.kind == "f" and v.ndim >= 1)
    size = extents(g, x)[-1]
    [rest] = g.add("Mod", [size, g.ints(4)])
    [missing] = g.add("Sub", [g.ints(4), rest])
    [pads] = g.add("Concat", [g.ints(*([0] * (2 * x.ndim - 1))), missing], axis=0)
    g.add("Pad", [x, pads])


def size_arithmetic(g: Graph) -> None:
    """The number of elements as a number of the graph: a mean written out."""
    x = g.pick(lambda v: v.dtype == np.float32 and v.ndim >= 1 and all(a.size for a in v.arrays))
    [count] = g.add("Cast", [g.add("Size", [x])[0]], to=1)
    [total] = g.add("ReduceSum", [x], keepdims=0)
    g.add("Div", [total, count])


def mask(g: Graph) -> None:
    """A causal mask from computed positions, added to a square of scores."""
    x = g.pick(lambda v: v.dtype == np.float32 and v.ndim >= 2 and v.sizes(-1) == v.sizes(-2))
    [size] = g.add("Gather", [g.add("Shape", [x])[0], g.weight(np.array(x.ndim - 1))])
    [index] = g.add("Range", [g.weight(np.array(0)), size, g.weight(np.array(1))])
    if g.opset < 13:
        raise Rejected("Unsqueeze")
    [row], [column] = g.add("Unsqueeze", [index, g.ints(0)]), g.add("Unsqueeze", [index, g.ints(1)])
    [allowed] = g.add("LessOrEqual", [row, column])
    g.add("Where", [allowed, x, g.weight(np.array(-100.0, np.float32))])


GENERATORS = {
    computed_reshape: 4.0, computed_expand: 2.0, filled: 1.0, positions: 1.5, computed_slice: 2.0,
    computed_resize: 1.0, computed_pad: 1.0, size_arithmetic: 0.7, mask: 1.0,
}  # fmt: skip
