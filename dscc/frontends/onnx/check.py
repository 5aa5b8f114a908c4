"""Whether a model keeps the rules that every ONNX model has to keep: each breach is one line, with the node's number.

onnx's own checker is not used: it copies the whole model, wants every operator to be the standard's, and says which
node is meant only by its type. What is checked here is what the front end relies on. What needs the types and shapes of
values is checked where a node is converted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import onnx
from onnx import AttributeProto, TensorProto

from dscc.errors import FrontendError
from dscc.frontends.onnx import external, schemas

MIN_OPSET = 1
DEEPEST = 30  # subgraphs within subgraphs; protobuf's own readers stop at about 33
MOST_NODES = 10**6
MOST_ELEMENTS = 2**40  # of a tensor whose shape the model states: 1 TB of bytes
UNKNOWN_DIM = -1  # how some exporters write a dimension that they do not know

_FIELDS = {
    AttributeProto.FLOAT: "f", AttributeProto.INT: "i", AttributeProto.STRING: "s", AttributeProto.TENSOR: "t",
    AttributeProto.GRAPH: "g", AttributeProto.SPARSE_TENSOR: "sparse_tensor", AttributeProto.TYPE_PROTO: "tp",
    AttributeProto.FLOATS: "floats", AttributeProto.INTS: "ints", AttributeProto.STRINGS: "strings",
    AttributeProto.TENSORS: "tensors", AttributeProto.GRAPHS: "graphs",
    AttributeProto.SPARSE_TENSORS: "sparse_tensors", AttributeProto.TYPE_PROTOS: "type_protos",
}  # fmt: skip


def check(model: onnx.ModelProto, what: str) -> None:
    """Check a model without looking at the content of its weights.

    Args:
        what: how errors call the model.

    Raises:
        FrontendError: a rule is broken.
    """
    if not model.HasField("graph") or not (model.graph.node or model.graph.output):
        raise FrontendError(f"{what} is not an ONNX model: it has no graph; export or download it again")
    if not model.graph.output:
        raise FrontendError(
            f"{what} has a graph without outputs, so there is nothing to compute; export it again with outputs"
        )
    opsets = _opsets(model.opset_import, what)
    _refuse_recursion(model)
    for function in model.functions:
        place = f"in function '{_text(function.name)}', "
        inner = opsets | _opsets(function.opset_import, f"function '{_text(function.name)}'")
        known = set(function.input)
        _check_nodes(function.node, known, inner, place, 0)
        for name in function.output:
            if name not in known:
                raise FrontendError(f"function '{_text(function.name)}': nothing makes its output '{_text(name)}'")
    _check_graph(model.graph, frozenset(), opsets, "", 0)


def label(index: int, node: onnx.NodeProto) -> str:
    """How errors call a node: `node 3 'last' (Conv)`."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    kind = f"{_text(domain)}.{_text(node.op_type)}" if domain else _text(node.op_type)
    return f"node {index}" + (f" '{_text(node.name)}'" if node.name else "") + f" ({kind})"


def tensors(model: onnx.ModelProto) -> Iterator[tuple[str, TensorProto, bool]]:
    """Every tensor of a model: what errors call it, itself, and whether it is in an attribute of a node, be it as a
    weight of a subgraph.
    """
    yield from _graph_tensors(model.graph, False)
    for function in model.functions:
        yield from _node_tensors(function.node)


def _text(name: Any) -> str:
    """A name for an error; protobuf gives one that is not UTF-8 as bytes."""
    text = name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
    return text if len(text) <= 120 else f"{text[:80]}...{text[-30:]}"


def _graph_tensors(graph: onnx.GraphProto, inner: bool) -> Iterator[tuple[str, TensorProto, bool]]:
    for tensor in graph.initializer:
        yield f"weight '{_text(tensor.name)}'", tensor, inner
    for sparse in graph.sparse_initializer:
        yield f"weight '{_text(sparse.values.name)}'", sparse.values, True
        yield f"the indices of weight '{_text(sparse.values.name)}'", sparse.indices, True
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Iterable[onnx.NodeProto]) -> Iterator[tuple[str, TensorProto, bool]]:
    for index, node in enumerate(nodes):
        for attribute in node.attribute:
            what = f"attribute '{_text(attribute.name)}' of {label(index, node)}"
            for tensor in (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors):
                yield what, tensor, True
            sparse = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
            for both in (*sparse, *attribute.sparse_tensors):
                yield what, both.values, True
                yield what, both.indices, True
            for graph in _graphs(attribute):
                yield from _graph_tensors(graph, True)


def _graphs(attribute: AttributeProto) -> list[onnx.GraphProto]:
    return [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


# Versions and functions.


def _opsets(imports: Iterable[onnx.OperatorSetIdProto], what: str) -> dict[str, int]:
    """Version by domain, none of which is newer than the standard that is installed."""
    found: dict[str, int] = {}
    for opset in imports:
        domain = "" if opset.domain == "ai.onnx" else opset.domain
        if found.setdefault(domain, opset.version) != opset.version:
            shown = _text(domain) or "ai.onnx"
            raise FrontendError(f"{what} imports versions {found[domain]} and {opset.version} of domain '{shown}'")
        if domain == "":
            newest = onnx.defs.onnx_opset_version()
        elif domain == "ai.onnx.ml":
            newest = max(s.since_version for s in onnx.defs.get_all_schemas_with_history() if s.domain == domain)
        else:
            newest = 2**31
        if not MIN_OPSET <= opset.version <= newest:
            shown = f" of domain '{_text(domain)}'" if domain else ""
            raise FrontendError(
                f"{what} uses opset {opset.version}{shown}; supported: {MIN_OPSET} to {newest}; convert it or update "
                f"onnx"
            )
    if not found:
        raise FrontendError(f"{what} names no opset version; an ONNX model imports at least one")
    return found


def _refuse_recursion(model: onnx.ModelProto) -> None:
    """A function may not call itself, by way of others either; and all calls, written out, must end in a model that can
    be compiled: twenty functions that call each other twice are a million nodes.
    """
    functions: dict[tuple[str, str], onnx.FunctionProto] = {}
    for function in model.functions:
        if functions.setdefault((function.domain, function.name), function).overload == function.overload:
            if functions[function.domain, function.name] is not function:
                raise FrontendError(f"function '{_text(function.name)}' is defined twice")
    calls = {key: list(_calls(function.node)) for key, function in functions.items()}
    sizes: dict[tuple[str, str], int] = {}
    for start in functions:
        path = [start]
        stack = [iter(calls[start])]
        while stack:
            callee = next(stack[-1], None)
            if callee is None:
                done = path.pop()
                stack.pop()
                sizes[done] = sum(1 + sizes.get(call, 0) for call in calls[done])
            elif callee in path:
                names = " -> ".join(f"'{_text(name)}'" for _, name in [*path[path.index(callee) :], callee])
                raise FrontendError(f"functions of the model call themselves: {names}; ONNX knows no recursion")
            elif callee in functions and callee not in sizes:
                path.append(callee)
                stack.append(iter(calls[callee]))
    total = sum(1 + sizes.get(call, 0) for call in _calls(model.graph.node))
    if total > MOST_NODES:
        raise FrontendError(f"the model is {total} nodes when its functions are written out; allowed: {MOST_NODES}")


def _calls(nodes: Iterable[onnx.NodeProto]) -> Iterator[tuple[str, str]]:
    for node in nodes:
        yield node.domain, node.op_type
        for attribute in node.attribute:
            for graph in _graphs(attribute):
                yield from _calls(graph.node)


# Graphs.


def _check_graph(graph: onnx.GraphProto, outer: frozenset[str], opsets: dict[str, int], place: str, depth: int) -> None:
    if depth > DEEPEST:
        raise FrontendError(f"{place}subgraphs are nested more than {DEEPEST} deep")
    own: set[str] = set()
    for info in graph.input:
        if info.name in own:
            raise FrontendError(f"{place}two inputs are called '{_text(info.name)}'; names must be unique")
        own.add(info.name)
        _check_type(info, f"{place}input")
    weights: set[str] = set()
    for tensor in graph.initializer:
        if tensor.name in weights:
            raise FrontendError(f"{place}two weights are called '{_text(tensor.name)}'; names must be unique")
        if not tensor.name:
            raise FrontendError(f"{place}a weight has no name, so that no node can take it; export the model again")
        weights.add(tensor.name)
    own |= weights | {sparse.values.name for sparse in graph.sparse_initializer}
    names = _check_nodes(graph.node, own, opsets, place, depth, outer)
    for output in graph.output:
        if output.name not in names and output.name not in outer:
            raise FrontendError(
                f"{place}the graph's outputs: nothing makes '{_text(output.name)}'; the graph is damaged"
            )
        _check_type(output, f"{place}output")


def _check_type(info: onnx.ValueInfoProto, what: str) -> None:
    if isinstance(info.name, bytes):
        raise FrontendError(f"{what} '{_text(info.name)}' has a name that is not UTF-8")
    elements = 1
    for dim in info.type.tensor_type.shape.dim:
        if isinstance(dim.dim_param, bytes):
            raise FrontendError(f"{what} '{_text(info.name)}' has a dimension whose name is not UTF-8")
        if dim.HasField("dim_value") and dim.dim_value < UNKNOWN_DIM:
            raise FrontendError(
                f"{what} '{_text(info.name)}' has a dimension of {dim.dim_value}; it must be 0 or more, or a name"
            )
        elements *= max(dim.dim_value, 1)
    if elements > MOST_ELEMENTS:
        shape = [dim.dim_value if dim.HasField("dim_value") else _text(dim.dim_param) or "?"
                 for dim in info.type.tensor_type.shape.dim]  # fmt: skip
        raise FrontendError(
            f"{what} '{_text(info.name)}' has shape {shape}, which is {elements} elements; allowed: {MOST_ELEMENTS}"
        )


def check_tensor(tensor: TensorProto, what: str) -> None:
    """Check the dims of a tensor, and that its bytes are as many as these ask for.

    Raises:
        FrontendError: they are not.
    """
    if any(dim < 0 for dim in tensor.dims):
        raise FrontendError(f"{what} has shape {list(tensor.dims)}; a dimension may not be negative")
    elements = math.prod(tensor.dims)
    if elements > MOST_ELEMENTS:
        raise FrontendError(f"{what} has shape {list(tensor.dims)}: {elements} elements; allowed: {MOST_ELEMENTS}")
    size = external.byte_size(tensor)
    if tensor.HasField("raw_data") and not external.is_external(tensor) and size not in (None, len(tensor.raw_data)):
        raise FrontendError(external.damaged(what, tensor, len(tensor.raw_data)))


# Nodes.


def _check_nodes(
    nodes: Sequence[onnx.NodeProto],
    known: set[str],
    opsets: dict[str, int],
    place: str,
    depth: int,
    outer: frozenset[str] = frozenset(),
) -> set[str]:
    """Check nodes in their order; `known` are the names of the graph so far, to which theirs are added."""
    for index, node in enumerate(nodes):
        what = f"{place}{label(index, node)}"
        _refuse_bytes(node, what)
        for name in node.input:
            if name and name not in known and name not in outer:
                raise _unmade(nodes, index, name, what)
        _check_attributes(node, what)
        schema = _schema(node, opsets, what)
        if schema is not None:
            _check_signature(node, schema, what)
        for attribute in node.attribute:
            for graph in _graphs(attribute):
                inner = f"{what}, in its subgraph '{_text(attribute.name)}': "
                _check_graph(graph, outer | known, opsets, inner, depth + 1)
        for name in node.output:
            if name and name in known:
                raise FrontendError(
                    f"{what}: its output '{_text(name)}' is the name of another value; names must be unique"
                )
            if name:
                known.add(name)
    return known


def _refuse_bytes(node: onnx.NodeProto, what: str) -> None:
    names = (node.name, node.op_type, node.domain, *node.input, *node.output, *(a.name for a in node.attribute))
    for name in names:
        if isinstance(name, bytes):
            raise FrontendError(f"{what}: the name '{_text(name)}' is not UTF-8; the model is damaged")


def _unmade(nodes: Sequence[onnx.NodeProto], index: int, name: str, what: str) -> FrontendError:
    """Why the input `name` of a node is not there yet."""
    makers = {output: i for i, node in enumerate(nodes) for output in node.output if output}
    if name not in makers:
        return FrontendError(
            f"{what}: '{_text(name)}' is used before any node or input makes it; the graph is damaged or not sorted"
        )
    seen, waiting = {makers[name]}, [makers[name]]
    while waiting:
        for needed in nodes[waiting.pop()].input:
            maker = makers.get(needed) if needed else None
            if maker is not None and maker not in seen:
                seen.add(maker)
                waiting.append(maker)
    if index in seen:
        return FrontendError(
            f"{what}: '{_text(name)}' depends on this node's own output, by way of "
            f"{label(makers[name], nodes[makers[name]])}; a graph may have no cycle"
        )
    return FrontendError(
        f"{what}: '{_text(name)}' is made only later, by {label(makers[name], nodes[makers[name]])}; nodes must be "
        f"sorted"
    )


def _check_attributes(node: onnx.NodeProto, what: str) -> None:
    """One attribute of a name, and each holds what its type says. Very old models leave the type out: it is added."""
    for name, count in Counter(attribute.name for attribute in node.attribute).items():
        if count > 1:
            raise FrontendError(f"{what}: attribute '{_text(name)}' is given {count} times")
    for attribute in node.attribute:
        if attribute.ref_attr_name:
            continue
        if attribute.type == AttributeProto.UNDEFINED:
            filled = {field.name for field, _ in attribute.ListFields()}
            kinds = [kind for kind, field in _FIELDS.items() if field in filled]
            if len(kinds) != 1:
                raise FrontendError(f"{what}: attribute '{_text(attribute.name)}' has no type")
            attribute.type = kinds[0]
        elif attribute.type not in _FIELDS:
            raise FrontendError(f"{what}: attribute '{_text(attribute.name)}' has the unknown type {attribute.type}")


def _schema(node: onnx.NodeProto, opsets: dict[str, int], what: str) -> Any:
    """None for an operator of somebody else's, or of a function of the model: whether it is supported is seen later."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    opset = opsets.get(domain, 1)
    found = schemas.schema(domain, node.op_type, opset)
    known = schemas.versions(domain, node.op_type)
    if found is None and known:
        raise FrontendError(
            f"{what}: the operator came with opset {known[0].since_version}, and the model imports {opset}; export it "
            f"with a newer opset"
        )
    return found


def _check_signature(node: onnx.NodeProto, schema: Any, what: str) -> None:
    """How many inputs and outputs a node has, and which attributes, as the standard defines its operator."""
    for kind, names, least, most in (
        ("inputs", node.input, schema.min_input, schema.max_input),
        ("outputs", node.output, schema.min_output, schema.max_output),
    ):
        if not least <= len(names) <= most:
            allowed = str(least) if least == most else f"{least} to {most}" if most < 2**31 - 1 else f"{least} or more"
            raise FrontendError(f"{what} has {len(names)} {kind}; the operator takes {allowed}")
    single = onnx.defs.OpSchema.FormalParameterOption.Single
    for position, (name, formal) in enumerate(zip(node.input, schema.inputs, strict=False)):
        if not name and formal.option == single:
            raise FrontendError(f"{what}: input {position} ('{formal.name}') is missing; the operator requires it")
    last = schema.inputs[-1] if schema.inputs else None
    if last and last.option == onnx.defs.OpSchema.FormalParameterOption.Variadic and last.is_homogeneous:
        first = len(schema.inputs) - 1
        if "" in node.input[first:]:
            position = first + list(node.input[first:]).index("")
            raise FrontendError(f"{what}: input {position} ('{last.name}') is missing; the operator requires it")
    given = {attribute.name: attribute for attribute in node.attribute}
    for name, formal in schema.attributes.items():
        if name not in given:
            if formal.required:
                raise FrontendError(f"{what}: attribute '{name}' is missing; the operator requires it")
        elif given[name].type != int(formal.type.value):
            found = AttributeProto.AttributeType.Name(given[name].type)
            raise FrontendError(f"{what}: attribute '{name}' is of type {found}, expected {formal.type.name}")
