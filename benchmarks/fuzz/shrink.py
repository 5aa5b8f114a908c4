"""Making a failing case small: fewer outputs, runs, nodes, symbols and attributes, as long as it fails alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import numpy as np
import onnx
from onnx import helper

from benchmarks.fuzz.build import Case
from benchmarks.fuzz.engines import Array, Refused
from benchmarks.fuzz.graph import read
from benchmarks.fuzz.judge import interpret

Fails = Callable[[Case], bool]


def shrink(case: Case, fails: Fails, seconds: float = 120.0) -> Case:
    """A smaller case that still fails, found within about `seconds`."""
    deadline = time.monotonic() + seconds
    changed = True
    while changed and time.monotonic() < deadline:
        changed = False
        for step in (_one_run, _one_output, _earlier_outputs, _fewer_nodes, _static, _fewer_attributes):
            with suppress(Refused):  # a step that needs the values of a case that no engine computes
                for smaller in step(case):
                    if time.monotonic() > deadline:
                        return case
                    if fails(smaller):
                        case, changed = smaller, True
                        break
    return case


def _one_run(case: Case) -> Iterator[Case]:
    if len(case.feeds) > 1:
        for feeds in case.feeds:
            yield Case(case.model, [feeds])


def _one_output(case: Case) -> Iterator[Case]:
    outputs = list(case.model.graph.output)
    if len(outputs) > 1:
        for output in outputs:
            yield _trimmed(case, list(case.model.graph.node), [output.name])


def _earlier_outputs(case: Case) -> Iterator[Case]:
    """The model up to a value in its middle."""
    names = {output.name for output in case.model.graph.output}
    values = interpret(case.model, case.feeds[0])
    for node in list(case.model.graph.node)[:-1]:
        for name in node.output:
            if name and name not in names and isinstance(values.get(name), np.ndarray):
                yield _trimmed(case, list(case.model.graph.node), [name])


def _fewer_nodes(case: Case) -> Iterator[Case]:
    """Runs of nodes taken out; what they computed becomes an input."""
    nodes = list(case.model.graph.node)
    size = max(1, len(nodes) // 2)
    while size:
        for at in range(0, len(nodes), size):
            kept = nodes[:at] + nodes[at + size :]
            if kept and (smaller := _cut(case, kept)) is not None:
                yield smaller
        size //= 2


def _static(case: Case) -> Iterator[Case]:
    """Symbols replaced by their sizes."""
    symbols = {d.dim_param for i in case.model.graph.input for d in i.type.tensor_type.shape.dim if d.dim_param}
    if len(case.feeds) > 1:
        return
    for group in [symbols, *([s] for s in sorted(symbols))] if len(symbols) > 1 else [symbols]:
        if not group:
            continue
        model = _copy(case.model)
        for info in model.graph.input:
            for axis, dim in enumerate(info.type.tensor_type.shape.dim):
                if dim.dim_param in group:
                    dim.dim_value = case.feeds[0][info.name].shape[axis]
        yield Case(model, case.feeds)


def _fewer_attributes(case: Case) -> Iterator[Case]:
    for n, node in enumerate(case.model.graph.node):
        for a in range(len(node.attribute)):
            model = _copy(case.model)
            del model.graph.node[n].attribute[a]
            yield Case(model, case.feeds)


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _trimmed(case: Case, nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]) -> Case:
    """The nodes that `outputs` need, with the inputs and weights that these need."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if any(name in wanted for name in node.output):
            kept.append(node)
            wanted |= read([node])
    model = _copy(case.model)
    graph = model.graph
    known = {output.name: output for output in case.model.graph.output}
    graph.ClearField("node")
    graph.node.extend(reversed(kept))
    graph.ClearField("output")
    values = interpret(case.model, case.feeds[0]) if any(name not in known for name in outputs) else {}
    for name in outputs:
        graph.output.append(known.get(name) or _output(name, values[name]))
    weights = [t for t in case.model.graph.initializer if t.name in wanted]
    inputs = [i for i in case.model.graph.input if i.name in wanted]
    graph.ClearField("initializer")
    graph.initializer.extend(weights)
    graph.ClearField("input")
    graph.input.extend(inputs)
    return Case(model, [{i.name: feeds[i.name] for i in inputs} for feeds in case.feeds])


def _cut(case: Case, kept: Sequence[onnx.NodeProto]) -> Case | None:
    """The case with only the nodes `kept`: what the others made and these need becomes inputs."""
    made = {name for node in kept for name in node.output}
    outputs = [output.name for output in case.model.graph.output if output.name in made]
    if not outputs:
        return None
    known = {i.name for i in case.model.graph.input} | {t.name for t in case.model.graph.initializer}
    missing = sorted(read(kept) - made - known - {""})
    with np.errstate(all="ignore"):
        values = [interpret(case.model, feeds) for feeds in case.feeds]
    missing = [name for name in missing if name in values[0]]  # the others are names inside subgraphs
    if not all(isinstance(values[0][name], np.ndarray) for name in missing):
        return None  # the model would get sequences
    model = _copy(case.model)
    symbols = _symbols(case)
    for name in missing:
        model.graph.input.append(_info(name, [v[name] for v in values], symbols))
    feeds = [
        {**given, **{name: found[name] for name in missing}} for given, found in zip(case.feeds, values, strict=True)
    ]
    return _trimmed(Case(model, feeds), kept, outputs)


def _symbols(case: Case) -> list[tuple[str, tuple[int, ...]]]:
    """The symbols of the inputs, each with its sizes in all runs."""
    return [
        (dim.dim_param, tuple(feeds[info.name].shape[axis] for feeds in case.feeds))
        for info in case.model.graph.input
        for axis, dim in enumerate(info.type.tensor_type.shape.dim)
        if dim.dim_param
    ]


def _output(name: str, array: Array) -> onnx.ValueInfoProto:
    code = helper.np_dtype_to_tensor_dtype(array.dtype)
    return helper.make_tensor_value_info(name, code, [None] * array.ndim)


def _info(name: str, arrays: Sequence[Array], symbols: Sequence[tuple[str, tuple[int, ...]]]) -> onnx.ValueInfoProto:
    dims: list[int | str] = []
    for axis in range(arrays[0].ndim):
        sizes = tuple(array.shape[axis] for array in arrays)
        symbol = next((symbol for symbol, found in symbols if found == sizes), f"{name}_{axis}")
        dims.append(sizes[0] if len(set(sizes)) == 1 else symbol)
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(arrays[0].dtype), dims)
