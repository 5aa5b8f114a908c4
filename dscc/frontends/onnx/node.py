"""What a converter sees of the node that it converts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import onnx
from tvm import relax, tirx

from dscc.errors import FrontendError, UnsupportedError
from dscc.frontends.onnx.shapes import Dims, named, require_equal, reshaped, restate, shape_expr, symbols
from dscc.frontends.onnx.values import Array, Dim, Value, identifier, numpy_dtype, plain, static, tensor_array

if TYPE_CHECKING:
    from dscc.frontends.onnx.convert import Importer

T = TypeVar("T")
LONG = 16  # a dimension with as many mentions of symbols gets a symbol of its own
MOST_COMPUTED = 4096  # numbers that steer an operator and are read when the model runs; each becomes a symbol
_KINDS = {int: "INT", bool: "INT", float: "FLOAT", str: "STRING", list: "INTS or FLOATS", tuple: "INTS or FLOATS"}


class Node:
    """One node of the graph: its attributes, and the means to write Relax for it.

    Attributes:
        op, domain, opset: the operator, its domain ("" is ONNX's own) and the version of that domain that the model
        imports. bb: the block builder that writes `main`. dims: arithmetic on symbolic dimensions.
    """

    def __init__(
        self,
        proto: onnx.NodeProto,
        label: str,
        opset: int,
        importer: Importer,
        attributes: Mapping[str, onnx.AttributeProto],
    ):
        self.proto = proto
        self.op = proto.op_type
        self.domain = proto.domain
        self.label = label
        self.opset = opset
        self.importer = importer
        self.bb: relax.BlockBuilder = importer.bb
        self.dims: Dims = importer.dims
        self.attributes = attributes
        self.scope: dict[str, Value] = {}
        self.opsets: Mapping[str, int] = {}
        self.bound: Mapping[str, onnx.AttributeProto] = {}

    def attr(self, name: str, default: T = None) -> T:  # type: ignore[assignment]
        """The attribute, or `default`; strings are decoded, tensors are NumPy arrays."""
        attribute = self.attributes.get(name)
        if attribute is None:
            return default
        value: Any = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            value = self._text(name, value)
        elif isinstance(value, onnx.TensorProto):
            value = tensor_array(value, f"{self.label}: attribute '{name}'")
        elif attribute.type in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS):
            value = list(value)
        elif attribute.type == onnx.AttributeProto.STRINGS:
            value = [self._text(name, text) for text in value]
        if self.domain not in ("", "ai.onnx") and default is not None:
            self._require_kind(name, value, type(default))
        return value

    def _text(self, name: str, value: bytes) -> str:
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise self.error(f"attribute '{name}' is no text in UTF-8") from None

    def required(self, name: str, kind: type | None = None) -> Any:
        """An attribute that the operator cannot do without.

        Args:
            kind: of an operator that the standard does not know, since only those of its own operators are checked.
        """
        if name not in self.attributes:
            raise self.error(f"attribute '{name}' is missing; the operator requires it")
        value: Any = self.attr(name)
        if kind is not None:
            self._require_kind(name, value, kind)
        return value

    def _require_kind(self, name: str, value: Any, kind: type) -> None:
        wanted = {float: int | float, bool: int, tuple: list}.get(kind, kind)
        if not isinstance(value, wanted):
            found = onnx.AttributeProto.AttributeType.Name(self.attributes[name].type)
            raise self.error(f"attribute '{name}' is of type {found}, expected {_KINDS.get(kind, kind.__name__)}")

    def error(self, text: str) -> FrontendError:
        """What is wrong with the node: no engine could run it."""
        return FrontendError(f"{self.label}: {text}")

    def unsupported(self, text: str) -> UnsupportedError:
        """What dscc lacks for a node that is valid ONNX: the fallback engine may run it."""
        return UnsupportedError(f"{self.label}: {text}")

    def value(self, item: Any, name: str = "") -> Value:
        """A Relax expression or an array as a Value; an expression is bound to a variable called after `name`."""
        if isinstance(item, Value):
            return item
        if isinstance(item, np.ndarray | np.generic):
            return Value(name, self.bb, data=np.asarray(item))
        return Value(name, self.bb, expr=self.emit(item, name))

    def retype(self, value: Any, element: str) -> Value:
        """Bit patterns as elements of the type that they are of."""
        found = self.value(value)
        if found.data is not None:
            return Value(found.name, self.bb, data=found.data.view(numpy_dtype(element)))
        return Value(found.name, self.bb, expr=found.expr, element=element)

    def symbolic(self, elements: Sequence[Any] | Array, dtype: str = "int64") -> Value:
        """Content that is known in terms of the model's dimensions; a plain array if all of it are numbers."""
        data = np.empty(np.shape(elements), dtype=object)
        data[...] = elements
        return self.known(data, dtype)

    def known(self, data: Array, dtype: str) -> Value:
        """An array of objects as a Value of type `dtype`: of numbers if there are only numbers in it."""
        if all(isinstance(element, int | float | np.number | np.bool_) for element in data.reshape(-1)):
            return Value("", self.bb, data=data.astype(numpy_dtype(dtype)))
        return Value("", self.bb, data=data, dtype=dtype)

    def emit(self, expr: relax.Expr, name: str = "") -> relax.Var:
        """Bind an expression to a variable called after `name`, or after the node's first output. Where Relax knows
        only the rank of the result, its dimensions become symbols, taken from the tensor.
        """
        hint = identifier(name or next(filter(None, self.proto.output), ""))
        if not isinstance(expr, relax.Var):
            expr = self.bb.normalize(expr)
            # There is nothing to compute, or to sum, and few of TVM's operators have thought of that.
            if _is_empty(expr.ty) or _sums_nothing(expr):
                expr = relax.op.zeros(expr.ty.shape, str(expr.ty.dtype))
        var = self.bb.emit(expr, hint) if not isinstance(expr, relax.Var) else expr
        if isinstance(var.ty, relax.TensorType) and var.ty.shape is None:
            if var.ty.ndim < 0:
                raise self.unsupported("the rank of the result is not known while compiling; it has to be")
            symbols = [self.dims.symbol(f"{hint or 'd'}_{axis}", 0) for axis in range(var.ty.ndim)]
            var = self.bb.match_cast(var, relax.TensorType(shape_expr(symbols), str(var.ty.dtype)), hint)
        return self._in_short(var, hint)

    def _in_short(self, x: relax.Var, name: str) -> relax.Var:
        """x with a symbol for each dimension that is a long expression: all that follow would carry it."""
        shape = x.ty.shape if isinstance(x.ty, relax.TensorType) else ()
        long = [len(symbols(dim)) >= LONG and not _is_plain_sum(dim) for dim in shape]
        if not any(long):
            return x
        short = [self.name_dim(dim, "size") if is_long else dim for dim, is_long in zip(shape, long, strict=True)]
        return self.bb.emit(reshaped(x, short), name)

    def te(self, function: Callable[..., Any], *args: Any, name: str, **kwargs: Any) -> relax.Expr:
        """A call of a kernel written as a TE compute; `name` is the kernel's."""
        tensors = [tensor for arg in args for tensor in (arg if isinstance(arg, list | tuple) else [arg])]
        types = [tensor.ty for tensor in tensors if isinstance(tensor, relax.Expr)]
        if any(isinstance(ty, relax.TensorType) and ty.shape is None for ty in types):
            raise self.unsupported("the rank of an input is known only when the model runs; it has to be known")
        return self.bb.call_te(function, *args, primfunc_name_hint=name, **kwargs)

    def numbers(self, value: Value, what: str) -> list[Any]:
        """Content that has to be known in numbers while compiling."""
        if value.constant is None:
            raise self.unsupported(f"{what} ('{value.name}') is computed when the model runs; it must be constant")
        return value.constant.reshape(-1).tolist()

    def ints(self, value: Value, what: str, signed: bool = True) -> list[Dim]:
        """Integers that steer the operator, as dimensions: known ones as they are, computed ones as new symbols read
        from the tensor.
        """
        if value.data is not None:
            return [self.dims.simplify(element) for element in value.data.reshape(-1).tolist()]
        if value.ndim > 1 or not isinstance(length := (value.shape[0] if value.ndim else 1), int):
            raise self.unsupported(f"{what} ('{value.name}') must be a list of known length, got shape {value.shape}")
        if length > MOST_COMPUTED:
            raise self.error(f"{what} ('{value.name}') are {length} computed numbers; allowed: {MOST_COMPUTED}")
        tensor = value.expr if value.ndim else self.emit(reshaped(value.expr, [1]))
        if value.dtype != "int64":
            tensor = self.emit(relax.op.astype(tensor, "int64"))
        if length == 0:
            return []
        hint = identifier(value.name)
        symbols: list[Dim] = [
            self.dims.signed_symbol(hint) if signed else self.dims.symbol(hint, 0) for _ in range(length)
        ]
        self.bb.match_cast(self.bb.emit(relax.op.tensor_to_shape(tensor)), relax.ShapeType(symbols))
        return symbols

    def name_dim(self, dim: Dim, name: str) -> Dim:
        """A symbol of its own for a computed dimension, where the expression would burden all kernels after it: a
        division by symbols is slow, and in TVM 0.27 two of them in one index fail ("Binding of variable rmod").
        """
        return named(self.bb, self.dims, dim, name)

    def require_equal(self, actual: Dim, expected: Dim, what: str) -> None:
        """Refuse to go on unless actual == expected; what cannot be decided now is checked when the model runs."""
        if not require_equal(self.bb, self.dims, actual, expected):
            raise self.error(f"{what} is {plain(actual)}, expected {plain(expected)}")

    def require_at_least(self, size: Dim, least: Dim, what: str) -> None:
        """Refuse to go on unless size >= least, as `require_equal` does.

        A kernel that takes a place modulo a size needs it: modulo 0 ends the process.
        """
        if self.dims.at_least(size, least, decides=False):
            return
        if not require_equal(self.bb, self.dims, self.dims.minimum(size, least), least):
            raise self.error(f"{what} is {plain(size)}, expected at least {plain(least)}")

    def single(self, value: Value, what: str) -> relax.Expr:
        """A tensor of one element as one of rank 0; `what` names it."""
        if value.shape == ():
            return value.expr
        self.require_equal(self.dims.product(value.shape), 1, f"the number of elements of {what}")
        return self.emit(reshaped(value.expr, []))

    def restate(self, x: relax.Expr, shape: Sequence[Dim], what: str) -> relax.Expr:
        """x with its dimensions stated as `shape`, which is checked when the model runs where it cannot be proved."""
        stated = restate(self.bb, self.dims, x, shape)
        if stated is None:
            raise self.error(f"{what} does not fit: shape {list(x.ty.shape.values)}, expected {list(shape)}")
        return stated

    def axis(self, axis: int, ndim: int) -> int:
        """A possibly negative axis as one from 0 to ndim - 1."""
        if not -ndim <= axis < max(ndim, 1):
            raise self.error(f"axis {axis} is out of range for rank {ndim}; allowed: {-ndim} to {ndim - 1}")
        return axis + ndim if axis < 0 else axis


def _is_empty(ty: Any) -> bool:
    """Whether a tensor of this type has no elements, whatever the sizes of the inputs are."""
    return isinstance(ty, relax.TensorType) and isinstance(ty.shape, relax.ShapeExpr) and 0 in map(static, ty.shape)


def _sums_nothing(expr: relax.Expr) -> bool:
    """Whether this is a convolution over no channels, or with kernels of no elements."""
    is_conv = isinstance(expr, relax.Call) and getattr(expr.op, "name", "").startswith("relax.nn.conv")
    return is_conv and any(_is_empty(arg.ty) for arg in expr.args)


def _is_plain_sum(dim: Dim) -> bool:
    """Whether it is a sum of symbols: the rows of experts side by side, which `fuse-experts` knows by that."""
    waiting = [dim]
    while waiting:
        term = waiting.pop()
        if isinstance(term, tirx.Add):
            waiting += [term.a, term.b]
        elif not isinstance(term, tirx.Var | int | tirx.IntImm):
            return False
    return True
