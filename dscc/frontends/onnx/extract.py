"""Nodes of a graph as a model of their own, with the weights and constants that they take inside."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import tvm_ffi

from dscc.elements import STRING
from dscc.errors import FrontendError, first_line
from dscc.frontends.onnx.kinds import OptionalKind, SequenceKind, TensorKind, from_type, kind_of
from dscc.frontends.onnx.values import DTYPES, Dim, Value

if TYPE_CHECKING:
    from dscc.frontends.onnx.convert import Importer, Scope
    from dscc.frontends.onnx.cut import Cut
    from dscc.runtime.engines import Engine

_LOG = logging.getLogger(__name__)
_OLDEST = 10  # version of the format, 2024: with functions and their overloads
MAX_BYTES = 2**31 - 1  # what a protobuf message may have
_LARGE = 4096  # elements of a weight whose content shape inference has no use for
_NAME = "dscc_"  # of dimensions, with a number
_CODES = {name: code for code, name in DTYPES.items()} | {STRING: onnx.TensorProto.STRING}


class Unheld(Exception):
    """Compiled code cannot hold an output of a region: `name`."""

    def __init__(self, name: str, reason: str):
        super().__init__(reason)
        self.name = name


class Extract:
    """The model that some nodes make.

    Attributes:
        inputs: what it gets when it runs, by name. Constants are inside.
        outputs: names of what others take of it, in the order in which it is made.
    """

    def __init__(self, cut: Cut, importer: Importer, scope: Scope, nodes: Sequence[tuple[int, onnx.NodeProto]]):
        self._cut = cut
        self._dims: list[Dim] = []
        made = [name for _, proto in nodes for name in proto.output if name]
        inside = {index for index, _ in nodes}
        taken = {name for index, names in cut.takes.items() if index not in inside for name in names} | cut.outputs
        self.outputs = [name for name in made if name in taken]
        self.inputs: dict[str, Value] = {}
        graph = onnx.GraphProto(name="region")
        for index, proto in nodes:
            graph.node.add().CopyFrom(proto)
            for name in proto.input:
                if name and name not in made:
                    importer.lookup(scope, name, f"node {index}")
        for name in dict.fromkeys(name for index, _ in nodes for name in sorted(cut.takes[index])):
            value = scope.get(name)
            if name in made or value is None:  # None: a name of a subgraph's own
                continue
            if value.constant is not None:
                graph.initializer.add().CopyFrom(onnx.numpy_helper.from_array(value.constant, name))
            else:
                self.inputs[name] = value
                graph.input.add(name=name, type=self._type(kind_of(value)))
        for name in self.outputs:
            graph.output.add(name=name)
        model = cut.model
        functions = model.functions if _calls(graph.node, model) else ()
        # Engines refuse versions of the format that they do not know, however little of it a model uses.
        version = max(_OLDEST, onnx.helper.find_min_ir_version_for(model.opset_import, ignore_unknown=True))
        self.proto = onnx.ModelProto(
            ir_version=version, graph=graph, opset_import=model.opset_import, functions=functions
        )
        inferred = self._inferred()
        for info in self.proto.graph.output:
            if info.name in inferred:
                info.type.CopyFrom(inferred[info.name])

    def text(self) -> bytes:
        """The model as a file.

        Raises:
            FrontendError: it is larger than such files may be.
        """
        if (size := self.proto.ByteSize()) > MAX_BYTES:
            raise FrontendError(f"nodes that dscc does not compile have {size} bytes of weights; allowed: {MAX_BYTES}")
        return self.proto.SerializeToString(deterministic=True)

    def output_kinds(self, engine: Engine) -> list[Any]:
        """The kinds of the outputs, as far as ONNX, the model or the engine knows them.

        Raises:
            Unheld: compiled code has no such values.
        """
        graph = self._cut.model.graph
        declared = {info.name: info.type for info in (*graph.value_info, *graph.output)}
        shapes: Sequence[Any] = engine.output_shapes() or [None] * len(self.outputs)
        return [
            self._kind(info, declared.get(info.name, onnx.TypeProto()), shape)
            for info, shape in zip(self.proto.graph.output, shapes, strict=True)
        ]

    def _kind(self, info: onnx.ValueInfoProto, declared: onnx.TypeProto, shape: Sequence[Any] | None) -> Any:
        """The kind of an output: what ONNX infers, else the rank that the model declares or that the engine knows."""
        found = onnx.TypeProto()
        found.CopyFrom(info.type if info.type.WhichOneof("value") else declared)
        tensor = found.tensor_type
        if found.HasField("tensor_type") and not tensor.elem_type:
            tensor.elem_type = declared.tensor_type.elem_type
        try:
            kind = from_type(found, f"'{info.name}'")
        except FrontendError as err:
            raise Unheld(info.name, str(err)) from err
        if not isinstance(kind, TensorKind):
            return kind
        if not info.type.tensor_type.HasField("shape"):
            if declared.tensor_type.HasField("shape"):
                shape = declared.tensor_type.shape.dim
            return TensorKind(kind.dtype, None if shape is None else tuple(None for _ in shape))
        named = [self._dim(dim.dim_param) for dim in tensor.shape.dim]
        dims = [have if name is None else name for have, name in zip(kind.dims or (), named, strict=True)]
        return TensorKind(kind.dtype, tuple(dims))

    def _type(self, kind: Any) -> onnx.TypeProto:
        """The type of an input; dimensions that are computed get names, by which they are found again in outputs."""
        if isinstance(kind, SequenceKind):
            return onnx.helper.make_sequence_type_proto(self._type(kind.element))
        if isinstance(kind, OptionalKind):
            return onnx.helper.make_optional_type_proto(self._type(kind.element))
        dims = None if kind.dims is None else [self._name(dim) for dim in kind.dims]
        return onnx.helper.make_tensor_type_proto(_CODES[kind.dtype], dims)

    def _name(self, dim: Dim | None) -> int | str | None:
        if dim is None or isinstance(dim, int):
            return dim
        for number, known in enumerate(self._dims):
            if tvm_ffi.structural_equal(known, dim):
                return f"{_NAME}{number}"
        self._dims.append(dim)
        return f"{_NAME}{len(self._dims) - 1}"

    def _dim(self, name: str) -> Dim | None:
        """What a dimension's name stands for; None for one that is new."""
        number = name.removeprefix(_NAME)
        return self._dims[int(number)] if number != name else None

    def _inferred(self) -> dict[str, onnx.TypeProto]:
        """What ONNX's shape inference makes of the outputs."""
        proto, graph = onnx.ModelProto(), self.proto.graph
        proto.opset_import.extend(self.proto.opset_import)
        proto.functions.extend(self.proto.functions)
        proto.ir_version = self.proto.ir_version
        proto.graph.name = graph.name
        proto.graph.node.extend(graph.node)
        proto.graph.input.extend(graph.input)
        proto.graph.output.extend(graph.output)
        for tensor in graph.initializer:
            if np.prod(tensor.dims, dtype=np.int64) > _LARGE:  # the inference would copy it
                proto.graph.input.add(
                    name=tensor.name, type=onnx.helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
                )
            else:
                proto.graph.initializer.add().CopyFrom(tensor)
        try:
            inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
        except Exception as err:  # noqa: BLE001  it is C++ and raises what it likes; the engine says what is wrong
            _LOG.debug("onnx's shape inference failed on a part for another engine: %s", first_line(err))
            return {}
        return {info.name: info.type for info in inferred.graph.output if info.type.WhichOneof("value")}


def _calls(nodes: Iterable[onnx.NodeProto], model: onnx.ModelProto) -> bool:
    """Whether one of the nodes, or of their graphs, calls a function of the model."""
    functions = {(function.domain, function.name) for function in model.functions}
    return any(
        (node.domain, node.op_type) in functions
        or any(_calls(graph.node, model) for a in node.attribute for graph in (a.g, *a.graphs))
        for node in nodes
    )
