"""Loop and Scan: their bodies as regions, which a function in C calls once for each iteration.

What is carried from one iteration to the next may change its shape. So the types of a body are found by trial: it is
converted for the types of the initial values; dimensions that its results change become symbols of their own, and it
is converted again, until nothing changes. A state that changes its rank has that of the first iteration's result in
all others, as a rule; so where a Loop is known to begin, the first iteration goes before it. A short Loop that gathers
a sequence has all of its iterations one after the other: then the tensors of the sequence stay known one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
import tvm_ffi
from onnx import helper
from tvm import relax, tirx

from dscc import library
from dscc.elements import carrier
from dscc.frontends.onnx import broadcast, regions
from dscc.frontends.onnx.kinds import (
    Container,
    OptionalKind,
    SequenceKind,
    TensorKind,
    join,
    kind_of,
    restrict,
    result_type,
    wrap,
)
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.registry import converter
from dscc.frontends.onnx.shapes import shape_expr
from dscc.frontends.onnx.values import Dim, Value

_UNROLLED = 16  # iterations at most that are written one after the other
# Flags of the plan: see dscc/library/control.c.
_TRIPS, _UNLIMITED, _CONDITION, _SIZES, _INDEX, _GOES_ON = 1, 2, 4, 8, 16, 32


@dataclass
class Iteration:
    """What a loop does, in the terms that Loop and Scan share.

    Attributes:
        body: its inputs are named in `index`, `condition`, `slices` and `states`; its outputs are the condition, if
            `decides`, then one for each state, then those that are stacked.
        trips: how often at most; None is without a limit. begins: whether it begins at all; None is yes.
        initial: of what is carried. scanned: tensors whose first axis is walked along, slice by slice.
        backwards: for each of those that are scanned, and `stacked_backwards` for each that is stacked: from the end.
        first: what the index of the first iteration is.
    """

    body: onnx.GraphProto
    trips: Value | None
    begins: Value | None
    decides: bool
    initial: list[Value]
    states: list[str]
    index: str = ""
    condition: str = ""
    scanned: list[Value] = field(default_factory=list)
    slices: list[str] = field(default_factory=list)
    backwards: list[bool] = field(default_factory=list)
    stacked_backwards: list[bool] = field(default_factory=list)
    first: int = 0

    def enters(self) -> bool:
        """Whether there is an iteration, whatever the inputs of the model are."""
        begins = self.begins is None or (self.begins.constant is not None and bool(self.begins.constant.item()))
        return begins and (
            self.trips is None or (self.trips.constant is not None and int(self.trips.constant.item()) > 0)
        )

    def index_shape(self) -> tuple[int, ...]:
        """A scalar, or one element where the body says so: as PyTorch's older exporter counts."""
        declared = self.body.input[0].type.tensor_type.shape
        return (1,) * (len(declared.dim) == 1)

    def gathers(self) -> bool:
        """Whether it is a short Loop that carries a sequence whose tensors are known one by one."""
        short = self.trips is not None and self.trips.constant is not None and self.trips.constant.item() <= _UNROLLED
        return bool(self.index) and short and any(_is_listed(value) for value in self.initial)

    def ended(self) -> bool:
        """Whether no iteration is left, and nothing was to be stacked."""
        stacked = len(self.body.output) - len(self.states) - int(self.decides)
        spent = self.trips is not None and self.trips.constant is not None and self.trips.constant.item() <= 0
        return spent and not stacked


def _is_listed(value: Value) -> bool:
    return isinstance(value, Container) and isinstance(value.kind, SequenceKind) and value.items is not None


@converter("Loop", patterns=True)
def loop(node: Node, trips: Value | None, begins: Value | None, *initial: Value | None) -> list[Value]:
    """The last values of what is carried, then for each scan output the values of all iterations, stacked."""
    body = node.required("body")
    names = [info.name for info in body.input]
    if len(names) != len(initial) + 2 or len(body.output) < len(initial) + 1:
        raise node.error(
            f"its body has {len(names)} inputs and {len(body.output)} outputs; "
            f"for {len(initial)} carried values it must have {len(initial) + 2}, and at least {len(initial) + 1}"
        )
    carried = [_given(node, value, name) for value, name in zip(initial, names[2:], strict=True)]
    whole = Iteration(body, trips, begins, True, carried, names[2:], index=names[0], condition=names[1])
    try:
        return run(node, whole)
    except regions.RanksDiffer:
        return run(node, replace(whole, body=_asks_a_scalar(body)))


def _asks_a_scalar(body: onnx.GraphProto) -> onnx.GraphProto:
    """A body whose condition is a scalar, whatever rank the branches of an If give their one element.

    PyTorch's older exporter writes `while a and b` so: If(a) {b} {False}, where b compares what has one dimension.
    """
    graph = onnx.GraphProto()
    graph.CopyFrom(body)
    asked = graph.output[0].name
    scalar, no_dims = f"{asked} as a scalar", f"{asked} has no dimensions"
    graph.initializer.append(helper.make_tensor(no_dims, onnx.TensorProto.INT64, [0], []))
    graph.node.append(helper.make_node("Reshape", [asked, no_dims], [scalar]))
    graph.output[0].CopyFrom(helper.make_tensor_value_info(scalar, onnx.TensorProto.BOOL, []))
    return graph


def _given(node: Node, value: Value | None, name: str) -> Value:
    if value is None:
        raise node.error(f"the initial value of '{name}' is missing; a Loop requires one for each carried value")
    return value


def run(node: Node, it: Iteration) -> list[Value]:
    """Convert a loop; its results are what `loop` says."""
    if it.ended():
        return list(it.initial)
    if it.enters() and it.gathers():
        return _peeled(node, it)
    known = node.dims.names
    kept = _kept(it.body, it.states, 1 if it.decides else 0)
    carried = [i for i in range(len(it.states)) if i not in kept]
    kinds = [kind_of(it.initial[i]) for i in carried]
    while True:
        body = _convert(node, it, kept, carried, kinds)
        joined = [
            _joined(node, kind, restricted, it.states[i], known)
            for kind, restricted, i in zip(kinds, body.carried, carried, strict=True)
        ]
        if all(_same(a, b) for a, b in zip(kinds, joined, strict=True)):
            break
        if it.index and it.first == 0 and it.enters() and any(map(_opens, kinds, joined)):
            return _peeled(node, it)
        kinds = joined
    results = _call(node, it, body, carried, kinds, known)
    states = dict(zip(carried, results, strict=False))
    return [*(it.initial[i] if i in kept else states[i] for i in range(len(it.states))), *results[len(carried) :]]


def _opens(before: Any, after: Any) -> bool:
    """Whether the rank of a tensor is known no longer."""
    return isinstance(after, TensorKind) and after.dims is None and before.dims is not None


def _peeled(node: Node, it: Iteration) -> list[Value]:
    """A Loop whose first iteration goes before it; see the module."""
    known = {it.index: np.full(it.index_shape(), it.first), it.condition: np.array(True)}
    given = {name: Value(name, node.bb, data=data) for name, data in known.items()}
    given |= dict(zip(it.states, it.initial, strict=True))
    goes_on, *made = node.importer.subgraph(node, it.body, {**node.scope, **given})
    states, stacked = made[: len(it.states)], made[len(it.states) :]
    trips = None
    if it.trips is not None and it.trips.constant is not None:
        trips = Value(it.trips.name, node.bb, data=it.trips.constant - 1)
    results = run(node, replace(it, trips=trips, begins=goes_on, initial=states, first=it.first + 1))
    for at, value in enumerate(stacked, len(states)):
        begin = node.value(node.emit(relax.op.expand_dims(value.expr, 0)))
        results[at] = node.retype(broadcast.joined(node, [begin, results[at]], 0), value.element)
    return results


def _kept(body: onnx.GraphProto, states: Sequence[str], first: int) -> set[int]:
    """The carried values that every iteration hands on as they are: these are not carried but captured."""
    source = {node.output[0]: node.input[0] for node in body.node if node.op_type == "Identity" and not node.domain}
    found = set()
    for i, name in enumerate(states):
        output = body.output[first + i].name
        while output in source:
            output = source[output]
        if output == name:
            found.add(i)
    return found


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, TensorKind) and isinstance(b, TensorKind) and a.dims is not None and b.dims is not None:
        return [dim is None for dim in a.dims] == [dim is None for dim in b.dims]
    if type(a) is type(b) and not isinstance(a, TensorKind):
        return getattr(a, "empty", None) == getattr(b, "empty", None) and _same(a.element, b.element)
    return type(a) is type(b) and a.dims is b.dims


def _joined(node: Node, kind: Any, found: Any, name: str, known: frozenset[str]) -> Any:
    try:
        return join(node.dims, kind, restrict(found, known) if getattr(kind, "empty", False) else found)
    except ValueError as err:
        raise node.error(f"the carried value '{name}' changes its type: {err}") from err


@dataclass
class _Body:
    """A converted body.

    Attributes:
        params: of its function, in the order of the call; `index` is in it if it is used.
        carried, stacked: the kinds of what it hands on.
    """

    draft: regions.Draft
    captured: regions.Captured
    params: list[relax.Var]
    index: relax.Var
    position: tirx.Var
    goes_on: bool
    carried: list[Any]
    stacked: list[Any]


def _convert(node: Node, it: Iteration, kept: set[int], carried: list[int], kinds: list[Any]) -> _Body:
    captured = regions.Captured(node, [it.body], {it.states[i]: it.initial[i] for i in kept})
    given = {it.states[i]: captured.scope[it.states[i]] for i in kept}
    index, position = relax.Var("index", relax.TensorType([], "int64")), node.dims.symbol("i", 0)
    if it.index:
        data = np.empty(it.index_shape(), dtype=object)
        data[...] = position + it.first if it.first else position
        expr = None if it.first or data.ndim else index
        given[it.index] = Value(it.index, node.bb, data=data, element="int64", expr=expr)
    if it.condition:
        given[it.condition] = Value(it.condition, node.bb, data=np.array(True))
    params = []
    for value, name in zip(it.scanned, it.slices, strict=True):
        param, given[name] = regions.parameter(node, TensorKind(value.element, value.shape[1:]), name)
        params.append(param)
    for i, kind in zip(carried, kinds, strict=True):
        param, given[it.states[i]] = regions.parameter(node, kind, it.states[i])
        params.append(param)
    goes_on = False

    def finish(outputs: list[Value]) -> list[Value]:
        nonlocal goes_on
        first = 1 if it.decides else 0
        states, stacked = outputs[first : first + len(it.states)], outputs[first + len(it.states) :]
        goes_on = it.decides and not (outputs[0].constant is not None and bool(outputs[0].constant.item()))
        handed = [_as(node, states[i], kind) for i, kind in zip(carried, kinds, strict=True)]
        return [*(outputs[:1] if goes_on else []), *handed, *stacked]

    draft = regions.draft(node, it.body, given, [index, *params], captured, finish)
    handed = [kind_of(value) for value in draft.values[1 if goes_on else 0 :]]
    return _Body(draft, captured, params, index, position, goes_on, handed[: len(carried)], handed[len(carried) :])


def _as(node: Node, value: Value, kind: Any) -> Value:
    """A value as what is carried: an optional takes what is none as its element."""
    if isinstance(kind, OptionalKind) and not isinstance(kind_of(value), OptionalKind):
        return Container(value.name, node.bb, OptionalKind(kind_of(value)), items=[value])
    return value


def _call(
    node: Node, it: Iteration, body: _Body, carried: list[int], kinds: list[Any], known: frozenset[str]
) -> list[Value]:
    used = body.draft.used()
    inside = [param for param in body.captured.params if param in used]
    indexed = body.index in used
    own = [*([body.index] if indexed else []), *body.params]
    symbols = regions.free_symbols([body.draft], [*own, *inside])
    symbols = [body.position, *(symbol for symbol in symbols if not symbol.same_as(body.position))] if symbols else []
    sizes = [relax.Var("sizes", relax.ShapeType(symbols))] if symbols else []
    function = regions.region(node, "body", body.draft, [*sizes, *own], inside)

    trips = None if it.trips is None else it.trips.data
    begins = None if it.begins is None else it.begins.constant
    open_trips = it.trips is not None and trips is None
    open_begin = it.begins is not None and begins is None
    flags = (
        _TRIPS * open_trips | _UNLIMITED * (it.trips is None) | _CONDITION * open_begin
        | _SIZES * bool(symbols) | _INDEX * indexed | _GOES_ON * body.goes_on
    )  # fmt: skip
    count: Dim = 0 if trips is None else node.dims.simplify(trips.reshape(-1)[0])
    if begins is not None and not begins.item():
        flags, count = flags & ~_UNLIMITED, 0
    stacked = [restrict(_tensor(node, kind), known) for kind in body.stacked]
    backwards = it.stacked_backwards or [False] * len(stacked)
    plan = [flags, count, len(it.scanned), len(carried), len(stacked), *map(int, it.backwards)]
    for kind, reverse in zip(stacked, backwards, strict=True):
        dtype = tvm_ffi.dtype(carrier(kind.dtype))
        plan += [int(reverse), dtype.type_code, dtype.bits, len(kind.dims), *(0 if d is None else d for d in kind.dims)]
    arguments = [
        function,
        shape_expr(plan),
        *([it.trips.expr] if it.trips is not None and open_trips else []),
        *([it.begins.expr] if it.begins is not None and open_begin else []),
        *([shape_expr([0, *symbols[1:]])] if symbols else []),
        *(value.expr for value in it.scanned),
        *(it.initial[i].expr for i in carried),
        *(body.captured.values[param].expr for param in inside),
    ]
    certain = not (body.goes_on or open_begin or open_trips or it.trips is None) and node.dims.at_least(count, 0)
    total = [*kinds, *(TensorKind(kind.dtype, (count if certain else None, *kind.dims)) for kind in stacked)]
    result = node.bb.emit(library.call("loop", arguments, relax.TupleType([result_type(kind) for kind in total])))
    return [
        wrap(node.bb, node.dims, kind, node.bb.emit(relax.TupleGetItem(result, index)))
        for index, kind in enumerate(total)
    ]


def _tensor(node: Node, kind: Any) -> TensorKind:
    if not isinstance(kind, TensorKind) or kind.dims is None:
        raise node.error(f"its body stacks a {kind}; tensors of known rank can be stacked")
    return kind
