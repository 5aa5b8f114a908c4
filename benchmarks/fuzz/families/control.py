"""If, Loop and Scan, with values captured from outside, nested, with any number of turns."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import helper

from benchmarks.fuzz.families.elementwise import binary, cast, compare, unary, where
from benchmarks.fuzz.families.index import gather
from benchmarks.fuzz.families.linear import matmul
from benchmarks.fuzz.families.movement import concat, slices, transpose
from benchmarks.fuzz.families.reduce import reduce, softmax
from benchmarks.fuzz.graph import Graph, Inner, Rejected, Value

_STEPS: tuple[Callable[[Graph], None], ...] = (
    *(unary, unary, binary, binary, binary, where, reduce, softmax, matmul, transpose, slices, concat, gather),
    *(cast, compare),
)
_FEW = 400  # elements of what a body works on: it runs several times in evaluators that are slow


def _small(v: Value) -> bool:
    return all(array.size <= _FEW for array in v.arrays) and not v.fixed


def _steps(body: Inner, least: int) -> None:
    """Some nodes of a body."""
    steps = (*_STEPS, choice) if body.depth < 2 else _STEPS
    for _ in range(8 * least):
        if len(body.nodes) >= least:
            return
        try:
            body.choose(steps)(body)
        except Rejected:
            continue


def _to(body: Inner, v: Value, like: Value) -> Value:
    """v, brought to the shape and type of `like`; Rejected if there is no simple way."""
    if v.dtype != like.dtype:
        if like.kind in "iu" and v.kind == "f":
            raise Rejected("a conversion that may overflow")
        [v] = body.add("Cast", [v], to=int(helper.np_dtype_to_tensor_dtype(like.dtype)))
    if v.shapes == like.shapes:
        return v
    [shape] = body.add("Shape", [like])
    if all(a.size == b.size for a, b in zip(v.arrays, like.arrays, strict=True)):
        return body.add("Reshape", [v, shape])[0]
    if v.ndim <= like.ndim and all(
        all(p in (1, q) for p, q in zip(a[::-1], b[::-1], strict=False))
        for a, b in zip(v.shapes, like.shapes, strict=True)
    ):
        return body.add("Expand", [v, shape])[0]
    raise Rejected("of another shape")


def _squashed(body: Inner, v: Value) -> Value:
    """v kept small, since a loop applies it over and over."""
    return body.add("Tanh", [v])[0] if v.kind == "f" else v


def _newest(body: Inner, accept: Callable[[Value], bool]) -> Value:
    found = [v for v in body.made() if accept(v)]
    if not found:
        raise Rejected("the body made no such value")
    return found[-1]


def choice(g: Graph) -> None:
    """An If whose branches give one or two values of the same type and rank, often of other sizes."""
    condition = _condition(g)
    branches = [g.inner(), g.inner()]
    for body in branches:
        _steps(body, g.integer(1, 4))
    pairs = [
        (one, other)
        for one in branches[0].made()
        for other in branches[1].made()
        if (one.dtype, one.ndim) == (other.dtype, other.ndim)
    ]
    if not pairs:
        raise Rejected("the branches made nothing alike")
    chosen = [g.choose(pairs) for _ in range(g.integer(1, 2))]
    graphs = [body.body([], [pair[n] for pair in chosen]) for n, body in enumerate(branches)]
    needed = [condition]
    for n, body in enumerate(branches):
        needed += body.captured([], [pair[n] for pair in chosen])
    node = g.node("If", [condition], len(chosen), then_branch=graphs[0], else_branch=graphs[1])
    g.attach([node], _unique(needed), list(node.output), [pair[0].dtype for pair in chosen])


def _condition(g: Graph) -> Value:
    """A scalar that is true under some bindings: of the data, of a size, or of nothing."""
    kind = g.integer(0, 2)
    if kind == 0:
        x = g.pick(lambda v: v.kind == "f" and v.ndim >= 1 and all(a.size for a in v.arrays))
        [total] = g.add("ReduceMean", [x], keepdims=0)
        return g.add("Greater", [total, g.weight(np.array(0, x.dtype))])[0]
    if kind == 1:
        x = g.pick(lambda v: v.ndim >= 1)
        [size] = g.add("Size", [x])
        return g.add("Less", [size, g.weight(np.array(int(np.median([a.size for a in x.arrays])) + 1))])[0]
    return g.weight(np.array(g.chance(0.5)))


def _unique(values: list[Value]) -> list[Value]:
    return list({v.name: v for v in values}.values())


def _count(g: Graph) -> Value:
    """A number of turns, from none to a few: known, or the size of something."""
    if g.chance(0.5):
        return g.weight(np.array(g.choose([0, 1, 2, 3, 5])))
    x = g.pick(lambda v: v.ndim >= 1 and max(v.sizes(0)) <= 9)
    [shape] = g.add("Shape", [x])
    return g.add("Gather", [shape, g.weight(np.array(0))])[0]


def loop(g: Graph) -> None:
    """A Loop with one or two states, values that it collects, and sometimes a condition that ends it early."""
    states = [g.pick(lambda v: _small(v) and v.kind in "fi") for _ in range(g.integer(1, 2))]
    turns = _count(g) if g.chance(0.9) else None
    given = [Value(g.name("i"), [np.array(0)] * g.bindings), Value(g.name("c"), [np.array(True)] * g.bindings)]
    given += [Value(g.name("s"), list(v.arrays)) for v in states]
    body = g.inner(given)
    _steps(body, g.integer(1, 4))
    after = [_squashed(body, _to(body, _newest(body, lambda v: v.dtype == s.dtype), s)) for s in given[2:]]
    if turns is None or g.chance(0.3):
        [end] = body.add("Less", [given[0], body.weight(np.array(g.integer(0, 4)))])
    else:
        [end] = body.add("Identity", [given[1]])
    collected = [_newest(body, _small)] if g.chance(0.6) else []
    collected = [body.add("Identity", [v])[0] for v in collected]
    first = g.weight(np.array(True)) if turns is None or g.chance(0.3) else None
    outputs = [end, *after, *collected]
    node = g.node("Loop", [turns, first, *states], len(outputs) - 1, body=body.body(given, outputs))
    needed = [v for v in (turns, first) if v is not None] + states + body.captured(given, outputs)
    g.attach([node], _unique(needed), list(node.output), [v.dtype for v in outputs[1:]])


def growing(g: Graph) -> None:
    """A Loop whose state is longer after every turn, as generated tokens are."""
    x = g.pick(lambda v: _small(v) and v.ndim >= 1 and min(min(s) for s in v.shapes) > 0)
    given = [Value(g.name("i"), [np.array(0)] * g.bindings), Value(g.name("c"), [np.array(True)] * g.bindings)]
    given.append(Value(g.name("s"), list(x.arrays)))
    body = g.inner(given)
    [part] = body.add("Slice", [given[2], body.ints(-1), body.ints(2**31 - 1), body.ints(0)])
    [joined] = body.add("Concat", [given[2], _squashed(body, part)], axis=0)
    [end] = body.add("Identity", [given[1]])
    node = g.node("Loop", [turns := _count(g), None, x], body=body.body(given, [end, joined]))
    g.attach([node], _unique([turns, x, *body.captured(given, [end, joined])]), list(node.output), [joined.dtype])


def scan(g: Graph) -> None:
    """A Scan over an axis of one or two values, in either direction."""
    x = g.pick(lambda v: v.kind == "f" and 1 <= v.ndim <= 3 and max(a.size for a in v.arrays) <= 2000 and not v.fixed
               and min(min(s) for s in v.shapes) > 0)  # fmt: skip
    axis = g.integer(0, x.ndim - 1)
    state = g.pick(lambda v: _small(v) and v.kind == "f")
    given = [Value(g.name("s"), list(state.arrays)), Value(g.name("e"), [a.take(0, axis) for a in x.arrays])]
    body = g.inner(given)
    _steps(body, g.integer(1, 4))
    after = _squashed(body, _to(body, _newest(body, lambda v: v.dtype == state.dtype), given[0]))
    collected = [body.add("Identity", [given[1]])[0]]
    if g.chance(0.5):
        collected.append(body.add("Identity", [_newest(body, _small)])[0])
    outputs = [after, *collected]
    direction = [1] if g.chance(0.3) else None
    node = g.node(
        "Scan", [state, x], len(outputs), body=body.body(given, outputs), num_scan_inputs=1,
        scan_input_axes=[axis - x.ndim if g.chance(0.2) else axis], scan_input_directions=direction,
        scan_output_directions=[g.integer(0, 1) for _ in collected] if g.chance(0.2) else None,
    )  # fmt: skip
    g.attach([node], _unique([state, x, *body.captured(given, outputs)]), list(node.output), [v.dtype for v in outputs])


GENERATORS = {choice: 1.5, loop: 1.5, growing: 0.5, scan: 1.0}
