"""Sequences and optionals, between tensors that go in and tensors that come out."""

from __future__ import annotations

import numpy as np

from benchmarks.fuzz.chain import Chain
from benchmarks.fuzz.graph import Graph, Rejected, Value


def _alike(g: Graph, free: int | None) -> list[Value]:
    """Two to four tensors of one type and rank, of one shape but for the axis `free`."""
    x = g.pick(lambda v: v.ndim >= 1 and not v.fixed)

    def fits(v: Value) -> bool:
        return (v.dtype, v.ndim) == (x.dtype, x.ndim) and all(
            v.sizes(a) == x.sizes(a) for a in range(x.ndim) if free is None or a != free % x.ndim
        )

    return [x, *(g.pick(fits) for _ in range(g.integer(1, 3)))]


def built(g: Graph) -> None:
    """A sequence that is put together, changed, and taken apart or joined."""
    stack = g.chance(0.3)
    parts = _alike(g, None if stack else -1)
    chain, length = Chain(g), len(parts)
    sequence = chain.add("SequenceConstruct", list(parts))
    for _ in range(g.integer(0, 2)):
        if g.chance(0.6):
            at = [g.weight(np.array(g.integer(-length, length)))] if g.chance(0.5) else []
            sequence = chain.add("SequenceInsert", [sequence, g.choose(parts), *at])
            length += 1
        elif length > 1:
            sequence = chain.add("SequenceErase", [sequence, g.weight(np.array(g.integer(-length, length - 1)))])
            length -= 1
    names = []
    if g.chance(0.7):
        names.append(chain.add("ConcatFromSequence", [sequence], axis=0 if stack else -1, new_axis=int(stack)))
    if g.chance(0.4) or not names:
        names.append(chain.add("SequenceAt", [sequence, g.weight(np.array(g.integer(-length, length - 1)))]))
    if g.chance(0.3):
        names.append(chain.add("SequenceLength", [sequence]))
    chain.attach(*names)


def split(g: Graph) -> None:
    """A tensor cut into a sequence, an element of which is used, or all of them."""
    x = g.pick(lambda v: v.ndim >= 1 and not v.fixed and min(v.sizes(0)) >= 2)
    axis = 0 if g.chance(0.7) else x.ndim - 1
    smallest = min(x.sizes(axis))
    chain = Chain(g)
    kind = g.integer(0, 2)
    if kind == 0:
        sequence = chain.add("SplitToSequence", [x], axis=axis, keepdims=g.integer(0, 1))
    elif kind == 1 and smallest >= 2:
        sequence = chain.add("SplitToSequence", [x, g.weight(np.array(g.integer(1, smallest)))], axis=axis)
    elif x.static(axis) and smallest >= 2:
        cut = g.integer(1, smallest - 1)
        sequence = chain.add("SplitToSequence", [x, g.ints(cut, smallest - cut)], axis=axis)
    else:
        raise Rejected("nothing to cut")
    if g.chance(0.5):
        chain.attach(chain.add("SequenceAt", [sequence, g.weight(np.array(g.choose([0, -1])))]))
    elif kind == 0:
        chain.attach(chain.add("SequenceLength", [sequence]))
    else:
        chain.attach(chain.add("ConcatFromSequence", [sequence], axis=axis))


def mapped(g: Graph) -> None:
    """SequenceMap: a body for every element."""
    if g.opset < 17:
        raise Rejected("SequenceMap")
    x = g.pick(lambda v: v.ndim >= 1 and v.kind == "f" and not v.fixed and 2 <= min(v.sizes(0)) <= max(v.sizes(0)) <= 9)
    element = Value(g.name("e"), [array[:1] for array in x.arrays])
    body = g.inner([element])
    [y] = body.add(g.choose(["Relu", "Neg", "Exp", "Tanh"]), [element])
    chain = Chain(g)
    sequence = chain.add("SplitToSequence", [x], axis=0)
    sequence = chain.add("SequenceMap", [sequence], body=body.body([element], [y]))
    chain.attach(chain.add("ConcatFromSequence", [sequence], axis=0))


def optional(g: Graph) -> None:
    """A tensor through an optional, with the question whether there is one."""
    if g.opset < 15:
        raise Rejected("Optional")
    chain = Chain(g)
    held = chain.add("Optional", [g.pick(lambda v: not v.fixed)])
    names = [chain.add("OptionalGetElement", [held])]
    if g.chance(0.3):
        names.append(chain.add("OptionalHasElement", [held]))
    chain.attach(*names)


GENERATORS = {built: 1.2, split: 1.2, mapped: 0.4, optional: 0.3}
