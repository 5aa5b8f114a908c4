"""What a name of the ONNX graph stands for while the graph is read.

A `Value` is a tensor of the Relax function, or content that is known while compiling, or both:

- a weight is a NumPy array; it becomes a `relax.const` when an operator first needs it as a tensor, and only once;
- a shape that the graph computes is a small array whose elements are integers and `tirx` expressions over the model's
  symbolic dimensions. Operators on such arrays are evaluated while compiling (symbolic/), so that a Reshape finds
  dimensions, not a tensor.
"""

from __future__ import annotations

import keyword
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import onnx
import tvm
from onnx import TensorProto
from tvm import relax, tirx

from dscc import constants
from dscc.elements import carrier, coded
from dscc.elements import numpy_dtype as numpy_dtype
from dscc.errors import FrontendError, UnsupportedError
from dscc.frontends.onnx import external

Dim = Any  # an int or a tirx expression of type int64
Array = np.ndarray[Any, np.dtype[Any]]

# ONNX's codes of the element types, and their names in `dscc.elements`.
DTYPES: dict[int, str] = {
    TensorProto.FLOAT: "float32",
    TensorProto.DOUBLE: "float64",
    TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "bfloat16",
    TensorProto.INT8: "int8",
    TensorProto.INT16: "int16",
    TensorProto.INT32: "int32",
    TensorProto.INT64: "int64",
    TensorProto.UINT8: "uint8",
    TensorProto.UINT16: "uint16",
    TensorProto.UINT32: "uint32",
    TensorProto.UINT64: "uint64",
    TensorProto.BOOL: "bool",
    TensorProto.FLOAT8E4M3FN: "float8_e4m3fn",
    TensorProto.FLOAT8E4M3FNUZ: "float8_e4m3fnuz",
    TensorProto.FLOAT8E5M2: "float8_e5m2",
    TensorProto.FLOAT8E5M2FNUZ: "float8_e5m2fnuz",
    TensorProto.FLOAT8E8M0: "float8_e8m0fnu",
    TensorProto.FLOAT6E2M3: "float6_e2m3fn",
    TensorProto.FLOAT6E3M2: "float6_e3m2fn",
    TensorProto.FLOAT4E2M1: "float4_e2m1fn",
    TensorProto.INT4: "int4",
    TensorProto.UINT4: "uint4",
    TensorProto.INT2: "int2",
    TensorProto.UINT2: "uint2",
    TensorProto.COMPLEX64: "complex64",
}


def element_type(elem_type: int, what: str) -> str:
    """The name of an ONNX element type; `what` is named in the error."""
    if elem_type not in DTYPES:
        name = TensorProto.DataType.Name(elem_type) if elem_type in TensorProto.DataType.values() else str(elem_type)
        raise UnsupportedError(
            f"{what} has element type '{name}'; supported: {', '.join(sorted(set(DTYPES.values())))}"
        )
    return DTYPES[elem_type]


def is_float(dtype: str) -> bool:
    return dtype.startswith(("float", "bfloat"))


_LONGEST_NAME = 200


def identifier(name: str, default: str = "v") -> str:
    """`name` as an identifier that TVMScript prints and reads back: `/layer.0/Add:0` becomes `layer_0_Add_0`."""
    text = re.sub(r"\W+", "_", name[-_LONGEST_NAME:], flags=re.ASCII).strip("_") or default
    return f"{default}_{text}" if text[0].isdigit() or keyword.iskeyword(text) else text


def static(dim: Dim) -> int | None:
    """The value of a dimension that is known now, or None."""
    if isinstance(dim, int | np.integer):
        return int(dim)
    return int(dim.value) if isinstance(dim, tirx.IntImm) else None


def plain(dim: Dim) -> Dim:
    """A dimension as a Python int where it is one."""
    number = static(dim)
    return dim if number is None else number


def constant(data: Array) -> relax.Expr:
    """A Relax constant of exactly the array's type, or of its bit patterns where another type carries it."""
    return constants.constant(coded(data))


def scalar(value: float, dtype: str) -> relax.Expr:
    """A rank-0 constant."""
    return constant(np.asarray(value).astype(numpy_dtype(dtype)))


@dataclass(frozen=True)
class Ratio:
    """An element of symbolic content of type float: `dim * factor` for a symbolic dim."""

    dim: Any
    factor: Fraction


class Value:
    """One value of the ONNX graph: an expression of the Relax function, or known content, or both.

    Attributes:
        name: as the model spells it.
        data: the content if it is known: an array of its own type, or of objects (int, bool, float, `tirx`
        expressions) if it is symbolic. element: the name of the element type (`dscc.elements`). dtype: TVM's name of
        the type of `expr`: another one than `element` where TVM carries it as bit patterns (`coded`).
    """

    def __init__(
        self,
        name: str,
        builder: relax.BlockBuilder,
        *,
        expr: relax.Expr | None = None,
        data: Array | None = None,
        dtype: str | None = None,
        element: str | None = None,
        outer: Value | None = None,
    ):
        self.name = name
        self.data = data
        self._builder = builder
        self._expr = expr
        self._outer = outer  # the same constant in a graph around this one: it becomes a tensor only once
        named = dtype or (str(expr.ty.dtype) if expr is not None else str(data.dtype) if data is not None else "")
        self.element: str = element or named
        self.dtype: str = carrier(self.element) if element or data is not None else named

    @property
    def coded(self) -> bool:
        """Whether the elements of `expr` are the bit patterns of another type."""
        return self.dtype != self.element

    @property
    def bound(self) -> str | None:
        """The name of the variable that is bound to it, if there is one."""
        return str(self._expr.name) if isinstance(self._expr, relax.Var) else None

    @property
    def symbolic(self) -> bool:
        """Whether the content is known, but only in terms of the model's dimensions."""
        return self.data is not None and self.data.dtype == object

    @property
    def materialised(self) -> bool:
        """Whether there is an expression for it already."""
        return self._expr is not None

    @property
    def constant(self) -> Array | None:
        """The content if it is known in numbers."""
        return None if self.symbolic else self.data

    @property
    def shape(self) -> tuple[Dim, ...]:
        if self.data is not None:
            return tuple(self.data.shape)
        if self.expr.ty.shape is None:
            raise ValueError(
                f"the rank of '{self.name}' is known only when the model runs; the operator has to know it"
            )
        return tuple(plain(dim) for dim in self.expr.ty.shape.values)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def expr(self) -> relax.Expr:
        """The value as a tensor of the Relax function; known content becomes one when it is first asked for."""
        if self._expr is None:
            self._expr = self._materialise()
        return self._expr

    def _materialise(self) -> relax.Expr:
        if self.data is None:
            raise ValueError(f"value '{self.name}' has neither an expression nor content")
        if not self.symbolic:
            return constant(self.data) if self._outer is None else self._outer.expr
        elements = self.data.reshape(-1).tolist()
        tensor = relax.op.shape_to_tensor(relax.ShapeExpr([_whole(element) for element in elements]))
        if self.data.ndim != 1:
            tensor = relax.op.reshape(self._builder.emit(tensor), relax.ShapeExpr(list(self.data.shape)))
        if self.dtype != "int64":
            tensor = relax.op.astype(self._builder.emit(tensor), self.dtype)
        factors = [_factor(element) for element in elements]
        if any(factor != 1 for factor in factors):
            scale = np.array(factors).astype(numpy_dtype(self.dtype)).reshape(self.data.shape)
            tensor = relax.op.multiply(self._builder.emit(tensor), constant(scale))
        return self._builder.emit(tensor, identifier(self.name))


def _whole(element: Any) -> Any:
    """The part of an element of symbolic content that is a dimension; the rest is `_factor`."""
    if isinstance(element, Ratio):
        return element.dim
    if isinstance(element, tvm.ir.Expr):
        return element if str(element.ty.dtype) == "int64" else tirx.Cast("int64", element)
    return int(element) if element == int(element) else 1


def _factor(element: Any) -> float:
    if isinstance(element, Ratio):
        return float(element.factor)
    return float(element) if isinstance(element, float) and element != int(element) else 1.0


def tensor_array(tensor: TensorProto, what: str) -> Array:
    """The content of a tensor; a view of the protobuf's bytes, or of the file they are in, where it can be."""
    if tensor.data_type != TensorProto.STRING:
        element_type(tensor.data_type, what)
    if external.is_external(tensor):
        return external.mapped(tensor)
    try:
        return onnx.numpy_helper.to_array(tensor)
    except (ValueError, TypeError, RuntimeError) as err:
        raise FrontendError(f"{what} is damaged: {err}") from err
