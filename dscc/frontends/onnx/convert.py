"""From an ONNX graph to a Relax function: one walk over the nodes, each given to its converter.

A node is handled by the first of these that can:

1. its inputs are numbers: it is computed now (`fold.py`)
2. its inputs are shapes: it is evaluated on dimensions (`symbolic/`)
3. it has a converter (`registry.py`, `ops/`)
4. it calls a function of the model, or the standard defines it as a function of other operators: the body is
converted in its place

What none of them can handle is another engine's matter, if that may be (`cut.py`).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx
import tvm
from tvm import relax

from dscc.elements import STRING
from dscc.errors import FrontendError, UnsupportedError
from dscc.frontends.onnx import fold, operands, patterns, registry, standard, working
from dscc.frontends.onnx.check import label
from dscc.frontends.onnx.graphs import needed
from dscc.frontends.onnx.inputs import Inputs
from dscc.frontends.onnx.kinds import describe, kind_of, known
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.ops.control import choose_rest
from dscc.frontends.onnx.regions import RanksDiffer
from dscc.frontends.onnx.shapes import Dims
from dscc.frontends.onnx.symbolic.evaluator import Evaluator
from dscc.frontends.onnx.values import Array, Dim, Value, tensor_array
from dscc.passes import origins
from dscc.passes.graph import without_unreached

if TYPE_CHECKING:
    from dscc.fallback import Region
    from dscc.frontends.onnx.cut import Cut

Scope = dict[str, Value]
# What TVM raises for operands that do not fit (errors of its C++ are marked, see `_misfit`), and what Python does where
# a dimension is asked for that an operand does not have, or something is divided by one of 0. Anything else is a bug
# here.
_MISFITS = (RuntimeError, ValueError, IndexError, ZeroDivisionError)

_LOG = logging.getLogger(__name__)


class Importer:
    """Reads one model; `bb` and `dims` are shared by all its nodes."""

    def __init__(self, model: onnx.ModelProto, input_shapes: Mapping[str, Sequence[Dim]], cut: Cut):
        self.model = model
        self.cut = cut
        self.elsewhere: list[Region] = []  # what the module calls of the cut
        self.bb = relax.BlockBuilder()
        self.dims = Dims()
        self.evaluator = Evaluator(self.dims)
        self.regions = 0  # how many there are
        self.splits = 0  # how many Ifs we are inside of that took in what follows them
        self._input_shapes = input_shapes
        self.contributed: set[str] = set()  # labels of the operators of plug-ins that are used
        self.nodes: dict[str, str] = {}  # names of variables to the nodes that they are outputs of
        self._functions = {(registry.canonical_domain(f.domain), f.name): f for f in model.functions}
        self._opsets = _opsets(model.opset_import)

    def run(self) -> tvm.IRModule:
        graph = self.model.graph
        scope: Scope = {}
        for tensor in graph.initializer:
            scope[tensor.name] = known(tensor.name, self.bb, tensor_array(tensor, f"weight '{tensor.name}'"))
        for sparse in graph.sparse_initializer:
            raise FrontendError(
                f"weight '{sparse.values.name}' is sparse; only dense weights are supported; export it as dense ones"
            )
        inputs = Inputs(graph, scope, self._input_shapes, self.bb, self.dims)
        scope |= zip(inputs.names, inputs.values, strict=True)
        taken = [describe(value) for value in inputs.values]
        try:
            with self.bb.function("main", inputs.params):
                with self.bb.dataflow():
                    self.elsewhere = self.cut.convert(self, scope, self._opsets)
                    outputs = [self.lookup(scope, output.name, "the graph's outputs") for output in graph.output]
                    result = self.bb.emit_output(relax.Tuple([output.expr for output in outputs]))
                self.bb.emit_func_output(result)
        except Exception:
            self.bb._end_block()  # TVM 0.27 leaves it open, and says so on standard error when the builder goes away
            raise
        module = without_unreached(self.bb.finalize())  # bodies of loops are converted until their types are found
        main = module["main"].with_attr("dscc.inputs", inputs.names)
        main = main.with_attr("dscc.outputs", [output.name for output in graph.output])
        main = main.with_attr("dscc.input_types", taken)
        main = main.with_attr("dscc.operators", sorted(self.contributed))
        main = main.with_attr("dscc.may_be_empty", inputs.may_be_empty())
        main = main.with_attr("dscc.may_be_none", inputs.may_be_none(outputs, graph.output))
        main = main.with_attr("dscc.output_types", [describe(output) for output in outputs])
        module["main"] = origins.note(main, self.nodes)
        return module

    def convert(
        self,
        nodes: Iterable[tuple[int, onnx.NodeProto]],
        scope: Scope,
        opsets: Mapping[str, int],
        bound: Mapping[str, onnx.AttributeProto],
        wanted: Sequence[str],
        last: bool = False,
        refused: Callable[[int, UnsupportedError], None] | None = None,
    ) -> None:
        """Convert nodes in order; their outputs are added to `scope`.

        Args:
            bound: attributes of the function that the nodes are the body of.
            wanted: the names in `scope` that are needed afterwards.
            last: these are outputs of the model, whose rank may stay open.
            refused: what sees to the outputs of a node that has no compiled form; else it is an error.
        """
        nodes = list(nodes)
        for position, (index, proto) in enumerate(nodes):
            said = label(index, proto)
            inputs = [self.lookup(scope, name, said) if name else None for name in proto.input]
            attributes = {a.name: a for a in _bind(proto.attribute, bound)}
            try:
                try:
                    outputs = self._node(proto, said, inputs, opsets, attributes, scope, bound)
                except RanksDiffer as split:
                    if split.proto is not proto:
                        raise split.node.unsupported(
                            f"its branches differ in the rank of what they give, inside of {said}; it has to be known"
                        ) from None
                    missing = [name for name in wanted if name not in scope]
                    try:
                        made, done = choose_rest(split, [each for _, each in nodes[position + 1 :]], missing, last)
                    except (RanksDiffer, FrontendError) as err:
                        if split.otherwise is None:
                            raise
                        _LOG.debug(
                            "%s: open dimensions are taken for larger than 1, since not both ranks fit: %s", said, err
                        )
                        outputs = split.otherwise
                    else:
                        scope.update(made)
                        if done:
                            return
                        continue
            except UnsupportedError as err:
                if refused is None:
                    raise
                refused(index, err)
                continue
            except FrontendError:
                raise
            except Exception as err:
                if misfit := self._misfit(Node(proto, said, 1, self, attributes), inputs, opsets, err):
                    raise misfit from err
                raise
            for name, value in zip(proto.output, outputs, strict=False):
                if name:
                    value.name = value.name or name
                    operands.check_output(said, value)
                    scope[name] = value
                    if refused is not None and value.bound is not None:  # this is the model's graph, no function's body
                        self.nodes.setdefault(value.bound, proto.name or f"{qualified(proto)} {name}")

    def lookup(self, scope: Scope, name: str, user: str) -> Value:
        if name not in scope:
            raise FrontendError(
                f"{user}: '{name}' is used before any node or input makes it; the graph is damaged or not sorted"
            )
        return scope[name]

    def _node(
        self,
        proto: onnx.NodeProto,
        label: str,
        inputs: list[Value | None],
        opsets: Mapping[str, int],
        attributes: Mapping[str, onnx.AttributeProto],
        scope: Scope,
        bound: Mapping[str, onnx.AttributeProto],
    ) -> Sequence[Value]:
        domain = registry.canonical_domain(proto.domain)
        opset = opsets.get(domain, 1)
        node = Node(proto, label, opset, self, attributes)
        node.scope, node.opsets, node.bound = scope, opsets, bound
        operands.check_types(node, inputs)
        if any(value is not None and value.element == STRING for value in inputs):
            raise node.unsupported("it takes strings, and compiled code computes on numbers only")
        if not domain and "" in opsets and inputs and all(value is None or value.data is not None for value in inputs):
            if all(value is None or value.constant is not None for value in inputs):
                folded = fold.fold(
                    proto,
                    [None if value is None else value.constant for value in inputs],
                    opsets,
                    list(attributes.values()),
                )
                if folded is not None:
                    return [self._known(data, name) for data, name in zip(folded, proto.output, strict=True)]
            plain = not any(value is not None and value.coded for value in inputs)
            evaluated = self.evaluator.evaluate(proto.op_type, inputs, node.attr) if plain else None
            if evaluated is not None:
                return [node.known(data, evaluated[1]) for data in evaluated[0]]
        function = registry.find(domain, proto.op_type, opset)
        if domain and (domain, proto.op_type) not in self._functions:
            given = registry.contributed(domain, proto.op_type, opset)
            if given is not None:
                function = given.convert
                self.contributed.add(given.label())
        if function is not None:
            variables: Mapping[str, str] = {}
            if any(value is not None and value.coded for value in inputs) and not registry.heeds_patterns(function):
                inputs, variables = patterns.as_patterns(node, inputs)
            inputs, narrower = working.widened(node, inputs)
            operands.check_count(node, function, inputs)
            result = function(node, *inputs)
            results = result if isinstance(result, tuple | list) else (result,)
            values = [node.value(item, name) for item, name in zip(results, proto.output, strict=False)]
            return working.narrowed(node, patterns.retyped(node, values, variables), narrower)
        return self._expand(node, inputs, opsets)

    def _misfit(
        self, node: Node, inputs: Sequence[Value | None], opsets: Mapping[str, int], err: Exception
    ) -> FrontendError | None:
        """What is wrong with a node whose conversion failed, or None if that is a bug of ours."""
        node.opset, node.opsets = opsets.get(registry.canonical_domain(node.domain), 1), opsets
        reason = operands.refusal(node, inputs)
        if reason is None and not isinstance(err, _MISFITS) and not hasattr(err, "__tvm_ffi_error__"):
            return None
        shapes = ", ".join("none" if value is None else str(kind_of(value)) for value in inputs)
        return node.error(f"inputs of types {shapes} do not fit the operator: {reason or _reason(err)}")

    def _known(self, data: Array, name: str) -> Value:
        return Value(name, self.bb, data=data)

    def _expand(self, node: Node, inputs: Sequence[Value | None], opsets: Mapping[str, int]) -> Sequence[Value]:
        """Convert the body of the function that the node calls or that defines its operator."""
        domain = registry.canonical_domain(node.domain)
        body = self._functions.get((domain, node.op)) or standard.body(
            node.proto, node.opset, inputs, node.attributes.values()
        )
        if body is None:
            raise UnsupportedError(
                f"operator '{node.op}' of domain '{domain or 'ai.onnx'}', version {node.opset}, is not supported "
                f"(at {node.label}); export the model without it, or with an opset that defines it by other operators",
                f"operator '{node.op}' of domain '{domain or 'ai.onnx'}', version {node.opset}, is not supported",
            )
        scope: Scope = {name: value for name, value in zip(body.input, inputs, strict=False) if value is not None}
        absent = [name for name in body.input if name not in scope]
        bound = (
            standard.defaults(node.proto, node.opset)
            | {attribute.name: attribute for attribute in body.attribute_proto}
            | dict(node.attributes)
        )
        inner = dict(opsets) | _opsets(body.opset_import)
        wanted = [inside for inside, outside in zip(body.output, node.proto.output, strict=False) if outside]
        nodes = [(index, _without(proto, absent)) for index, proto in needed(body.node, wanted)]
        try:
            self.convert(nodes, scope, inner, bound, wanted)
        except FrontendError as err:
            raise type(err)(f"{node.label}, in its body: {err}") from err
        absent_output = Value("", self.bb, data=np.empty(0))
        return [scope.get(name, absent_output) for name in body.output]

    def call(
        self,
        node: Node,
        proto: onnx.NodeProto,
        inputs: list[Value | None],
        opsets: Mapping[str, int],
        attributes: Mapping[str, onnx.AttributeProto],
    ) -> list[Value]:
        """The outputs of the operator `proto`, which `node` is made of; see compose.py."""
        return list(self._node(proto, node.label, inputs, opsets, attributes, node.scope, node.bound))

    def subgraph(self, node: Node, graph: onnx.GraphProto, scope: Scope, last: bool = False) -> list[Value]:
        """Convert a subgraph of `node`, which sees the names in `scope`, in the current place. Its outputs.

        Args:
            last: these are outputs of the model, whose rank may stay open.
        """
        for tensor in graph.initializer:
            scope[tensor.name] = known(tensor.name, self.bb, tensor_array(tensor, f"weight '{tensor.name}'"))
        names = [output.name for output in graph.output]
        self.convert(needed(graph.node, names), scope, node.opsets, node.bound, names, last)
        return [self.lookup(scope, name, node.label) for name in names]


def _opsets(imports: Iterable[onnx.OperatorSetIdProto]) -> dict[str, int]:
    return {registry.canonical_domain(opset.domain): opset.version for opset in imports}


def qualified(proto: onnx.NodeProto) -> str:
    return f"{proto.domain}.{proto.op_type}" if registry.canonical_domain(proto.domain) else proto.op_type


def _reason(err: BaseException) -> str:
    """The first line of what TVM says, without the printed operator that it begins with."""
    if overflow := re.search(r"exceeds range of \w+", str(err)):
        return f"a number {overflow[0]}"
    text = re.sub(r"In ir\.Op\(.*?support_level=\d+\), ", "", str(err))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0] if lines else type(err).__name__


def _without(proto: onnx.NodeProto, absent: Sequence[str]) -> onnx.NodeProto:
    """A node of a function's body with the inputs left out that the call leaves out."""
    if not any(name in absent for name in proto.input):
        return proto
    copy = onnx.NodeProto()
    copy.CopyFrom(proto)
    copy.input[:] = ["" if name in absent else name for name in proto.input]
    return copy


def _bind(
    attributes: Iterable[onnx.AttributeProto], bound: Mapping[str, onnx.AttributeProto]
) -> Iterable[onnx.AttributeProto]:
    """Attributes with references to those of the surrounding function resolved; one that the call leaves out is left
    out.
    """
    for attribute in attributes:
        if not attribute.ref_attr_name:
            yield attribute
        elif attribute.ref_attr_name in bound:
            copy = onnx.AttributeProto()
            copy.CopyFrom(bound[attribute.ref_attr_name])
            copy.name = attribute.name
            yield copy
