"""Sequences and optionals, and what is known of a value before the model runs: its kind.

A sequence or optional is an array object of TVM at run time, an optional one of no or one item. Where the graph makes
it from values that are known one by one, it stays a list of these while compiling, and nothing of it is left in the
code.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import onnx
import tvm
import tvm_ffi
from tvm import relax

from dscc import library
from dscc.elements import STRING, carrier
from dscc.errors import FrontendError
from dscc.frontends.onnx.shapes import Dims, reshaped, shape_expr
from dscc.frontends.onnx.values import DTYPES, Array, Dim, Value, constant, element_type, identifier, plain
from dscc.runtime.strings import encode

_CODES = {name: code for code, name in DTYPES.items()} | {STRING: onnx.TensorProto.STRING}


@dataclass(frozen=True)
class TensorKind:
    """A tensor of elements of type `dtype` (see dscc/elements.py). An unknown dimension is None, and so is `dims` where
    not even the rank is known.
    """

    dtype: str
    dims: tuple[Dim | None, ...] | None

    def __str__(self) -> str:
        shape = "unknown rank" if self.dims is None else ", ".join("?" if d is None else str(d) for d in self.dims)
        return f"{self.dtype}[{shape}]"


@dataclass(frozen=True)
class SequenceKind:
    """A sequence of tensors. An `empty` one has had no element so far: what its elements are is still open."""

    element: TensorKind
    empty: bool = False

    def __str__(self) -> str:
        return f"sequence of {self.element}"


@dataclass(frozen=True)
class OptionalKind:
    element: TensorKind | SequenceKind

    def __str__(self) -> str:
        return f"optional {self.element}"


Kind = TensorKind | SequenceKind | OptionalKind


class Container(Value):
    """A sequence or optional: the array `expr`, or items that are known one by one, or both."""

    kind: SequenceKind | OptionalKind

    def __init__(
        self,
        name: str,
        builder: relax.BlockBuilder,
        kind: SequenceKind | OptionalKind,
        *,
        expr: relax.Expr | None = None,
        items: Sequence[Value] | None = None,
    ):
        tensor = kind.element if isinstance(kind.element, TensorKind) else kind.element.element
        super().__init__(name, builder, expr=expr, dtype=tensor.dtype)  # not coded: its tensors may be
        self.kind = kind
        self.items = None if items is None else tuple(items)

    @property
    def shape(self) -> tuple[Dim, ...]:
        raise ValueError(f"'{self.name}' is of type {self.kind}; the operator takes tensors")

    def _materialise(self) -> relax.Expr:
        if self.items is None:
            raise ValueError(f"value '{self.name}' has neither an expression nor content")
        made = library.call("sequence", [item.expr for item in self.items], relax.AnyType())
        return self._builder.emit(made, identifier(self.name))


class Strings(Value):
    """A tensor of strings, which compiled code hands on to another engine; `content` if it is known."""

    def __init__(
        self,
        name: str,
        builder: relax.BlockBuilder,
        dims: tuple[Dim | None, ...] | None,
        *,
        expr: relax.Expr | None = None,
        content: Array | None = None,
    ):
        super().__init__(name, builder, expr=expr, dtype=carrier(STRING), element=STRING)
        self.kind = TensorKind(STRING, dims)
        self._content = content

    @property
    def shape(self) -> tuple[Dim, ...]:
        raise ValueError(f"'{self.name}' has strings in it; the operator takes numbers")

    @property
    def constant(self) -> Array | None:
        return self._content

    def _materialise(self) -> relax.Expr:
        if self._content is None:
            raise ValueError(f"value '{self.name}' has neither an expression nor content")
        return constant(encode(self._content))


def sequence(builder: relax.BlockBuilder, dims: Dims, element: str, items: Sequence[Value]) -> Container:
    """A sequence of tensors that are known one by one."""
    kind = SequenceKind(TensorKind(element, ()), empty=True)
    for item in items:
        kind = SequenceKind(_join_element(dims, kind, kind_of(item)))
    return Container("", builder, kind, items=items)


def known(name: str, builder: relax.BlockBuilder, data: Array) -> Value:
    """A constant of numbers or of strings."""
    if data.dtype.kind in "OSU":
        return Strings(name, builder, data.shape, content=data.astype(object))
    return Value(name, builder, data=data)


def kind_of(value: Value) -> Any:
    if isinstance(value, Container | Strings):
        return value.kind
    if value.data is None and value.expr.ty.shape is None:
        return TensorKind(value.element, None)
    return TensorKind(value.element, value.shape)


def _join_element(dims: Dims, into: SequenceKind, element: TensorKind) -> TensorKind:
    return element if into.empty else join(dims, into.element, element)


def join(dims: Dims, a: Any, b: Any) -> Any:
    """The kind of a value that is one of two; ValueError if there is none."""
    if isinstance(a, OptionalKind) or isinstance(b, OptionalKind):
        parts = [kind.element if isinstance(kind, OptionalKind) else kind for kind in (a, b)]
        return OptionalKind(join(dims, *parts))
    if isinstance(a, SequenceKind) and isinstance(b, SequenceKind) and (a.empty or b.empty):
        if a.element.dtype == b.element.dtype:
            return b if a.empty else a
    elif isinstance(a, SequenceKind) and isinstance(b, SequenceKind):
        return SequenceKind(join(dims, a.element, b.element))
    elif isinstance(a, TensorKind) and isinstance(b, TensorKind) and a.dtype == b.dtype:
        if a.dims is None or b.dims is None or len(a.dims) != len(b.dims):
            return TensorKind(a.dtype, None)
        same = [x is not None and y is not None and dims.equal(x, y) for x, y in zip(a.dims, b.dims, strict=True)]
        return TensorKind(a.dtype, tuple(x if keep else None for x, keep in zip(a.dims, same, strict=True)))
    raise ValueError(f"it is {a} in one case and {b} in the other")


def restrict(kind: Any, symbols: Collection[str]) -> Any:
    """The kind with all dimensions unknown that are not made of these symbols."""
    if isinstance(kind, SequenceKind | OptionalKind):
        return replace(kind, element=restrict(kind.element, symbols))
    if kind.dims is None:
        return kind
    return TensorKind(
        kind.dtype, tuple(d if d is not None and symbols_of(d) <= set(symbols) else None for d in kind.dims)
    )


def symbols_of(dim: Dim) -> set[str]:
    """The names of the symbols that a dimension is made of."""
    found: list[tvm.ir.Var] = []
    if isinstance(dim, tvm.ir.Expr):
        tvm_ffi.structural_walk(dim, (tvm.ir.Var, found.append))
    return {var.name for var in found}


def from_type(proto: onnx.TypeProto, what: str) -> Any:
    """The kind of a declared type. Dimensions that the model names are not known: each element may have its own."""
    field = proto.WhichOneof("value")
    if field == "optional_type":
        return OptionalKind(from_type(proto.optional_type.elem_type, what))
    if field == "sequence_type":
        return SequenceKind(from_type(proto.sequence_type.elem_type, what))
    if field != "tensor_type":
        raise FrontendError(
            f"{what} is a {field or 'value without a type'}; supported: tensors, sequences and optionals"
        )
    tensor = proto.tensor_type
    dims = [dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else None for dim in tensor.shape.dim]
    strings = tensor.elem_type == onnx.TensorProto.STRING
    element = STRING if strings else element_type(tensor.elem_type, what)
    return TensorKind(element, tuple(dims) if tensor.HasField("shape") else None)


def to_type(kind: Any) -> onnx.TypeProto:
    """The kind as ONNX writes it; symbols are unknown dimensions."""
    if isinstance(kind, SequenceKind):
        return onnx.helper.make_sequence_type_proto(to_type(kind.element))
    if isinstance(kind, OptionalKind):
        return onnx.helper.make_optional_type_proto(to_type(kind.element))
    dims = None if kind.dims is None else [dim if isinstance(dim, int) else None for dim in kind.dims]
    return onnx.helper.make_tensor_type_proto(_CODES[kind.dtype], dims)


def tvm_type(dims: Dims, kind: Any, hint: str) -> relax.Type:
    """The type of a variable of this kind; unknown dimensions become new symbols."""
    if not isinstance(kind, TensorKind) or kind.dtype == STRING:
        return relax.AnyType()
    if kind.dims is None:
        return relax.TensorType(dtype=carrier(kind.dtype), ndim=-1)
    shape = [dims.symbol(f"{hint}_{axis}", 0) if dim is None else dim for axis, dim in enumerate(kind.dims)]
    return relax.TensorType(shape_expr(shape), carrier(kind.dtype))


def result_type(kind: Any) -> relax.Type:
    """The type that a call's result of this kind has before its unknown dimensions get symbols."""
    if not isinstance(kind, TensorKind) or kind.dtype == STRING:
        return relax.AnyType()
    if kind.dims is None or any(dim is None for dim in kind.dims):
        return relax.TensorType(dtype=carrier(kind.dtype), ndim=-1 if kind.dims is None else len(kind.dims))
    return relax.TensorType(shape_expr(kind.dims), carrier(kind.dtype))


def wrap(builder: relax.BlockBuilder, dims: Dims, kind: Any, expr: relax.Expr, name: str = "") -> Value:
    """The value of this kind that an expression computes; where dimensions are unknown they get symbols, read from the
    tensor when the model runs.
    """
    if not isinstance(kind, TensorKind):
        return Container(name, builder, kind, expr=expr)
    if kind.dtype == STRING:
        return Strings(name, builder, kind.dims, expr=expr)
    hint = identifier(name) if name else "d"
    if kind.dims is not None and any(dim is None for dim in kind.dims):
        if not isinstance(expr, relax.Var):
            expr = builder.emit(expr, hint)
        expr = builder.match_cast(expr, tvm_type(dims, _unproved(kind), hint), hint)
        expr = _restated(builder, kind, expr)
    return Value(name, builder, expr=expr, element=kind.dtype)


def _unproved(kind: TensorKind) -> TensorKind:
    """The kind with dimensions that are expressions unknown: a match_cast to defined symbols would crash TVM 0.27."""
    assert kind.dims is not None  # its callers have seen to it
    return TensorKind(kind.dtype, tuple(dim if isinstance(dim, int) else None for dim in kind.dims))


def _restated(builder: relax.BlockBuilder, kind: TensorKind, expr: relax.Expr) -> relax.Expr:
    """`expr` with the dimensions that `kind` knows by expressions; whoever made the kind has proved them."""
    assert kind.dims is not None  # its callers have seen to it
    found = [plain(dim) for dim in expr.ty.shape.values]
    shape = [have if known is None else known for have, known in zip(found, kind.dims, strict=True)]
    if all(isinstance(dim, int | None) for dim in kind.dims):
        return expr
    return builder.emit(reshaped(expr, shape))


def describe(value: Value) -> str:
    """How the module names the type of an input or output: the element type of a tensor; of a sequence or optional
    and of a tensor of unknown rank, what `dscc.record` makes a description of it from.
    """
    kind, around = kind_of(value), []
    while not isinstance(kind, TensorKind):
        around.append("sequence" if isinstance(kind, SequenceKind) else "optional")
        empty, kind = getattr(kind, "empty", False), kind.element
        kind = TensorKind(kind.dtype, None) if empty else kind
    if not around and kind.dims is not None and kind.dtype != STRING:
        return kind.dtype
    dims = None if kind.dims is None else [dim if isinstance(dim, int) else None for dim in kind.dims]
    return json.dumps([around, kind.dtype, dims])
