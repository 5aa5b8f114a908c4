"""The inputs of a model: parameters of the Relax function, whose open dimensions are symbols, one for each name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import onnx
from tvm import relax, tirx

from dscc.elements import carrier
from dscc.errors import FrontendError
from dscc.frontends.onnx.empty import may_be_empty
from dscc.frontends.onnx.kinds import from_type, wrap
from dscc.frontends.onnx.shapes import Dims, shape_expr
from dscc.frontends.onnx.values import Dim, Value, element_type, identifier


class Inputs:
    """Those of a graph that have no weight as their default.

    Attributes:
        names: of the inputs, in order. params, values: one for each.
    """

    def __init__(
        self,
        graph: onnx.GraphProto,
        weights: Mapping[str, Value],
        given: Mapping[str, Sequence[Dim]],
        bb: relax.BlockBuilder,
        dims: Dims,
    ):
        """Make the parameters, in the order of the graph's inputs.

        Args:
            given: shapes that the user gave, by name.

        Raises:
            FrontendError: one of them is of no input, or does not fit it; or an input's type or rank is not supported.
        """
        self._given, self._bb, self._dims = given, bb, dims
        self._symbols: dict[str, Dim] = {}
        infos = [info for info in graph.input if info.name not in weights]
        self.names = [info.name for info in infos]
        self._check_given()
        self._empty = may_be_empty(graph, {info.name: self._stated(info) for info in infos})
        self.params = [self._parameter(info) for info in infos]
        self.values = [self._value(info, param) for info, param in zip(infos, self.params, strict=True)]

    def _check_given(self) -> None:
        for name in self._given:
            if name not in self.names:
                raise FrontendError(
                    f"unknown input '{name}' in the given shapes; the model's inputs: {', '.join(self.names)}"
                )

    def _parameter(self, info: onnx.ValueInfoProto) -> relax.Var:
        if _held(info):
            from_type(info.type, f"input '{info.name}'")  # or it says what is not supported
            return relax.Var(self._name(identifier(info.name, "x")), relax.AnyType())
        tensor = info.type.tensor_type
        given = self._given.get(info.name)
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
            self._name(base),
            relax.TensorType(shape_expr(dims), carrier(element_type(tensor.elem_type, f"input '{info.name}'"))),
        )

    def _value(self, info: onnx.ValueInfoProto, param: relax.Var) -> Value:
        if _held(info):
            return wrap(self._bb, self._dims, from_type(info.type, f"input '{info.name}'"), param, info.name)
        element = element_type(info.type.tensor_type.elem_type, f"input '{info.name}'")
        return Value(info.name, self._bb, expr=param, element=element)

    def _name(self, base: str) -> str:
        return str(self._bb.get_unique_name(base))

    def _stated(self, info: onnx.ValueInfoProto) -> list[int | str]:
        """The dimensions of an input, as they are given or declared: numbers, and names of what is left open."""
        given = self._given.get(info.name)
        if given is not None:
            return [_given_dim(dim) for dim in given]
        return [
            dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else dim.dim_param
            for dim in info.type.tensor_type.shape.dim
        ]

    def _symbol(self, name: str, fallback: str) -> Dim:
        """The symbol called `name`; one of its own where the model only says that it does not know ('', '?')."""
        if not any(character.isalnum() for character in name):
            return self._dims.symbol(fallback)
        if name not in self._symbols:
            self._symbols[name] = self._dims.symbol(identifier(name, "n"), 0 if name in self._empty else 1)
        return self._symbols[name]

    def may_be_empty(self) -> list[str]:
        """The symbols that may be 0 by what the graph does along them."""
        return sorted(str(self._symbols[name]) for name in self._empty)

    def may_be_none(self, outputs: Sequence[Value], stated: Iterable[onnx.ValueInfoProto]) -> list[str]:
        """The symbols of the inputs with which the outputs' shapes are what they are also where they are 0: no use was
        made of their being more, or the model says itself that a dimension of every output is this one.
        """
        tensors = [param.ty for param in self.params if isinstance(param.ty, relax.TensorType)]
        symbols = {dim for ty in tensors for dim in ty.shape.values if isinstance(dim, tirx.Var)}
        said = [self._as_stated(*each) for each in zip(outputs, stated, strict=True)]
        return sorted(
            str(dim) for dim in symbols if dim not in self._dims.counted_on or all(dim in some for some in said)
        )

    def _as_stated(self, output: Value, info: onnx.ValueInfoProto) -> set[Dim]:
        """The symbols that are dimensions of an output by what the model says and by what was found."""
        if _held(info) or not isinstance(output.expr.ty, relax.TensorType) or output.expr.ty.shape is None:
            return set()
        said = [self._symbols.get(dim.dim_param) for dim in info.type.tensor_type.shape.dim]
        found = zip(output.expr.ty.shape.values, said, strict=False)  # a model may state another rank than it has
        return {dim for dim, name in found if name is not None and dim.same_as(name)}


def _given_dim(dim: int | str) -> int | str:
    if isinstance(dim, int) and dim < 0:
        raise FrontendError(f"a dimension of {dim} was given; it must be 0 or more, or a name to leave it open")
    return dim


def _held(info: onnx.ValueInfoProto) -> bool:
    """Whether an input is something that compiled code only holds, and does not compute with: no tensor of numbers."""
    return not info.type.HasField("tensor_type") or info.type.tensor_type.elem_type == onnx.TensorProto.STRING
