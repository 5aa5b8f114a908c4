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

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx
import tvm
from tvm import relax, tirx

from dscc.elements import STRING, carrier
from dscc.errors import FrontendError, UnsupportedError
from dscc.frontends.onnx import fold, operands, patterns, registry, standard, working
from dscc.frontends.onnx.check import label
from dscc.frontends.onnx.empty import may_be_empty
from dscc.frontends.onnx.graphs import needed
from dscc.frontends.onnx.kinds import describe, from_type, kind_of, known, wrap
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.ops.control import choose_rest
from dscc.frontends.onnx.regions import RanksDiffer
from dscc.frontends.onnx.shapes import Dims, shape_expr
from dscc.frontends.onnx.symbolic.evaluator import Evaluator
from dscc.frontends.onnx.values import Array, Dim, Value, element_type, identifier, tensor_array
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
        self._symbols: dict[str, Dim] = {}
        self.contributed: set[str] = set()  # labels of the operators of plug-ins that are used
        self.nodes: dict[str, str] = {}  # names of variables to the nodes that they are outputs of
        self._may_be_empty: set[str] = set()  # names of dimensions of the inputs
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
        inputs = [info for info in graph.input if info.name not in scope]
        self._check_input_shapes(inputs)
        self._may_be_empty = may_be_empty(graph, {info.name: self._stated(info) for info in inputs})
        params = [self._parameter(info) for info in inputs]
        for info, param in zip(inputs, params, strict=True):
            scope[info.name] = self._input(info, param)
        taken = [describe(scope[info.name]) for info in inputs]
        try:
            with self.bb.function("main", params):
                with self.bb.dataflow():
                    self.elsewhere = self.cut.convert(self, scope, self._opsets)
                    outputs = [self.lookup(scope, output.name, "the graph's outputs") for output in graph.output]
                    result = self.bb.emit_output(relax.Tuple([output.expr for output in outputs]))
                self.bb.emit_func_output(result)
        except Exception:
            self.bb._end_block()  # TVM 0.27 leaves it open, and says so on standard error when the builder goes away
            raise
        module = without_unreached(self.bb.finalize())  # bodies of loops are converted until their types are found
        main = module["main"].with_attr("dscc.inputs", [info.name for info in inputs])
        main = main.with_attr("dscc.outputs", [output.name for output in graph.output])
        main = main.with_attr("dscc.input_types", taken)
        main = main.with_attr("dscc.operators", sorted(self.contributed))
        main = main.with_attr("dscc.may_be_empty", sorted(str(self._symbols[name]) for name in self._may_be_empty))
        main = main.with_attr("dscc.may_be_none", self._may_be_none(params, outputs))
        main = main.with_attr("dscc.output_types", [describe(output) for output in outputs])
        module["main"] = origins.note(main, self.nodes)
        return module

    # The inputs.

    def _check_input_shapes(self, inputs: Sequence[onnx.ValueInfoProto]) -> None:
        names = [info.name for info in inputs]
        for name in self._input_shapes:
            if name not in names:
                raise FrontendError(
                    f"unknown input '{name}' in the given shapes; the model's inputs: {', '.join(names)}"
                )

    def _parameter(self, info: onnx.ValueInfoProto) -> relax.Var:
        if _held(info):
            from_type(info.type, f"input '{info.name}'")  # or it says what is not supported
            return relax.Var(self._parameter_name(identifier(info.name, "x")), relax.AnyType())
        tensor = info.type.tensor_type
        given = self._input_shapes.get(info.name)
        if given is None and not tensor.HasField("shape"):
            raise FrontendError(
                f"input '{info.name}' has no rank in the model; give its shape, as in --input {info.name}=1x3x224x224"
            )
        if given is not None and tensor.HasField("shape") and len(given) != len(tensor.shape.dim):
            raise FrontendError(
                f"input '{info.name}' has rank {len(tensor.shape.dim)} in the model; got a shape of rank {len(given)}"
            )
        base = identifier(info.name, "x")
        dims = [
            self._symbol(dim, f"{base}_{axis}") if isinstance(dim, str) else dim
            for axis, dim in enumerate(self._stated(info))
        ]
        return relax.Var(
            self._parameter_name(base),
            relax.TensorType(shape_expr(dims), carrier(element_type(tensor.elem_type, f"input '{info.name}'"))),
        )

    def _input(self, info: onnx.ValueInfoProto, param: relax.Var) -> Value:
        if _held(info):
            return wrap(self.bb, self.dims, from_type(info.type, f"input '{info.name}'"), param, info.name)
        element = element_type(info.type.tensor_type.elem_type, f"input '{info.name}'")
        return Value(info.name, self.bb, expr=param, element=element)

    def _parameter_name(self, base: str) -> str:
        return str(self.bb.get_unique_name(base))

    def _stated(self, info: onnx.ValueInfoProto) -> list[int | str]:
        """The dimensions of an input, as they are given or declared: numbers, and names of what is left open."""
        given = self._input_shapes.get(info.name)
        if given is not None:
            return [self._given_dim(dim) for dim in given]
        return [
            dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else dim.dim_param
            for dim in info.type.tensor_type.shape.dim
        ]

    def _given_dim(self, dim: int | str) -> int | str:
        if isinstance(dim, int) and dim < 0:
            raise FrontendError(f"a dimension of {dim} was given; it must be 0 or more, or a name to leave it open")
        return dim

    def _symbol(self, name: str, fallback: str) -> Dim:
        """The symbol called `name`; one of its own where the model only says that it does not know ('', '?')."""
        if not any(character.isalnum() for character in name):
            return self.dims.symbol(fallback)
        if name not in self._symbols:
            self._symbols[name] = self.dims.symbol(identifier(name, "n"), 0 if name in self._may_be_empty else 1)
        return self._symbols[name]

    def _may_be_none(self, params: Iterable[relax.Var], outputs: Sequence[Value]) -> list[str]:
        """The symbols of the inputs with which the outputs' shapes are what they are also where they are 0: no use was
        made of their being more, or the model says itself that a dimension of every output is this one.
        """
        tensors = [param.ty for param in params if isinstance(param.ty, relax.TensorType)]
        symbols = {dim for ty in tensors for dim in ty.shape.values if isinstance(dim, tirx.Var)}
        stated = [self._as_stated(*each) for each in zip(outputs, self.model.graph.output, strict=True)]
        return sorted(str(dim) for dim in symbols if dim not in self.dims.counted_on or all(dim in s for s in stated))

    def _as_stated(self, output: Value, info: onnx.ValueInfoProto) -> set[Dim]:
        """The symbols that are dimensions of an output by what the model says and by what was found."""
        if _held(info) or not isinstance(output.expr.ty, relax.TensorType) or output.expr.ty.shape is None:
            return set()
        said = [self._symbols.get(dim.dim_param) for dim in info.type.tensor_type.shape.dim]
        found = zip(output.expr.ty.shape.values, said, strict=False)  # a model may state another rank than it has
        return {dim for dim, name in found if name is not None and dim.same_as(name)}

    # The nodes.

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
                    if split.node.proto is not proto:
                        raise split.node.unsupported(
                            f"its branches differ in the rank of what they give, inside of {said}; it has to be known"
                        ) from None
                    missing = [name for name in wanted if name not in scope]
                    made, done = choose_rest(split, [each for _, each in nodes[position + 1 :]], missing, last)
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


def _held(info: onnx.ValueInfoProto) -> bool:
    """Whether an input is something that compiled code only holds, and does not compute with: no tensor of numbers."""
    return not info.type.HasField("tensor_type") or info.type.tensor_type.elem_type == onnx.TensorProto.STRING


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
