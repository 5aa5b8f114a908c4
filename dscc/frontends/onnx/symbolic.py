"""Evaluates operators on shapes that the graph computes, as NumPy would on numbers.

The arrays hold Python integers, booleans and `tirx` expressions over the model's symbolic dimensions. Graphs also
send shapes through floating point (Resize's scales): a float that is a fraction of a dimension is a `Ratio`, and
Floor, Ceil and Cast bring it back. What cannot be expressed gives None, and the operator is converted on a tensor of
the shape instead.
"""

from __future__ import annotations

import logging
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import tvm
from tvm import tirx

from dscc.errors import first_line
from dscc.frontends.onnx.shapes import Dims
from dscc.frontends.onnx.values import Array, Ratio, Value, is_float

_LOG = logging.getLogger(__name__)
Element = Any  # int, bool, float, Fraction, Ratio or a tirx expression
MAX_ELEMENTS = 4096


class Inexpressible(Exception):
    """The result has no form as dimensions."""


def _is_expr(x: Element) -> bool:
    return isinstance(x, tvm.ir.Expr)


def _exact(x: Element) -> Element:
    """A float as the short fraction that it was rounded from, as in 0.3333 for 1/3; whole numbers as int."""
    if isinstance(x, float | np.floating):
        if not math.isfinite(x):
            raise Inexpressible
        fraction = Fraction(float(x)).limit_denominator(4096)
        if abs(float(fraction) - float(x)) > 1e-6 * abs(float(x)):
            raise Inexpressible
        return int(fraction) if fraction.denominator == 1 else fraction
    if isinstance(x, Fraction) and x.denominator == 1:
        return int(x)
    return x


def _ratio(x: Element) -> Ratio:
    return x if isinstance(x, Ratio) else Ratio(x, Fraction(1))


class Evaluator:
    """Evaluates one operator at a time; `dims` proves what is known of the symbols."""

    def __init__(self, dims: Dims) -> None:
        self.dims = dims

    def evaluate(
        self, op: str, inputs: Sequence[Value | None], attr: Callable[..., Any]
    ) -> tuple[list[Array], str] | None:
        """The outputs' elements and their type, or None where the operator is to be converted on tensors."""
        function = _OPERATORS.get(op)
        if function is None:
            return None
        given = [None if value is None else value.data for value in inputs]
        if (
            any(value is not None and value.data is None for value in inputs)
            or sum(d.size for d in given if d is not None) > MAX_ELEMENTS
        ):
            return None
        dtype = next(value.dtype for value in inputs if value is not None)
        if op == "Where":
            dtype = inputs[1].dtype  # type: ignore[union-attr]
        arrays = [None if data is None else np.asarray(data).astype(object) for data in given]
        try:
            result = function(self, _Attributes(attr, dtype), *arrays)
        except Inexpressible:
            return None
        except (TypeError, ValueError, ArithmeticError, LookupError) as err:
            # What does not fit the operator, in a damaged model: the converter says what is wrong.
            _LOG.debug("a %s of shapes is not evaluated: %s", op, first_line(err))
            return None
        if op == "Cast":
            dtype = np.dtype(_CAST[attr("to")]).name
        elif op in _BOOLEAN:
            dtype = "bool"
        results = result if isinstance(result, list) else [result]
        if not is_float(dtype) and any(isinstance(e, Ratio | Fraction) for r in results for e in r.reshape(-1)):
            return None
        if sum(r.size for r in results) > MAX_ELEMENTS:
            return None
        return [self._finish(r, dtype) for r in results], dtype

    def _finish(self, array: Array, dtype: str) -> Array:
        out = np.empty(array.shape, dtype=object)
        for index, element in np.ndenumerate(array):
            out[index] = self.dims.simplify(element) if _is_expr(element) else element
            if isinstance(element, Fraction):
                out[index] = float(element)
        return out

    def binary(self, function: Callable[[Element, Element], Element], a: Array, b: Array) -> Array:
        a, b = np.broadcast_arrays(a, b)
        out = np.empty(a.shape, dtype=object)
        for index in np.ndindex(a.shape):
            out[index] = function(_exact(a[index]), _exact(b[index]))
        return out

    def unary(self, function: Callable[[Element], Element], a: Array) -> Array:
        return self.binary(lambda x, _: function(x), a, np.zeros((), dtype=object))

    # Scalar arithmetic.

    def add(self, a: Element, b: Element) -> Element:
        if isinstance(a, Ratio | Fraction) or isinstance(b, Ratio | Fraction):
            left, right = _ratio(a), _ratio(b)
            if not (_is_expr(left.dim) or _is_expr(right.dim)):
                return _exact(left.dim * left.factor + right.dim * right.factor)
            raise Inexpressible
        return a + b

    def mul(self, a: Element, b: Element) -> Element:
        if not (_is_expr(a) or _is_expr(b) or isinstance(a, Ratio) or isinstance(b, Ratio)):
            return _exact(a * b)
        left, right = _split(a), _split(b)
        factor, dim = left[1] * right[1], self.dims.simplify(left[0] * right[0])
        return self._scaled(dim, factor)

    def div(self, a: Element, b: Element, floating: bool) -> Element:
        if isinstance(b, int) and b == 0:
            raise Inexpressible
        if floating:
            if isinstance(b, int | Fraction):
                return self.mul(a, Fraction(1) / b) if _is_expr(a) or isinstance(a, Ratio) else _exact(Fraction(a) / b)
            (top, f), (bottom, g) = _split(a), _split(b)
            if _is_expr(top) and self.dims.equal(top, bottom):
                return _exact(f / g)
            quotient = self.dims.floordiv(top, bottom)
            if self.dims.equal(quotient * bottom, top):
                return self._scaled(quotient, f / g)
            raise Inexpressible
        if not (_is_expr(a) or _is_expr(b)):
            return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
        if self.dims.at_least(a, 0) and self.dims.at_least(b, 1):
            return self.dims.floordiv(a, b)
        return tirx.truncdiv(_as_expr(a), _as_expr(b))

    def _scaled(self, dim: Element, factor: Fraction) -> Element:
        if not _is_expr(dim):
            return _exact(dim * factor)
        if factor.denominator == 1:
            return self.dims.simplify(dim * int(factor))
        return Ratio(dim, factor)

    def floor(self, x: Element) -> Element:
        if isinstance(x, Ratio):
            return self.dims.floordiv(x.dim * x.factor.numerator, x.factor.denominator)
        return math.floor(x) if isinstance(x, Fraction | float) else x

    def ceil(self, x: Element) -> Element:
        if isinstance(x, Ratio):
            return self.dims.ceildiv(x.dim * x.factor.numerator, x.factor.denominator)
        return math.ceil(x) if isinstance(x, Fraction | float) else x

    def trunc(self, x: Element) -> Element:
        if isinstance(x, Ratio):
            if not self.dims.at_least(x.dim, 0) or x.factor < 0:
                raise Inexpressible
            return self.floor(x)
        return int(x) if isinstance(x, Fraction | float) else x

    def compare(self, function: Callable[[Any, Any], Any]) -> Callable[[Element, Element], Element]:
        def compared(a: Element, b: Element) -> Element:
            if isinstance(a, Ratio) or isinstance(b, Ratio):
                raise Inexpressible
            if not (_is_expr(a) or _is_expr(b)):
                return bool(function(a, b))
            condition = _as_condition(function, _as_expr(a), _as_expr(b))
            if self.dims.proved(condition):
                return True
            return False if self.dims.proved(tirx.Not(condition)) else condition

        return compared

    def select(self, condition: Element, a: Element, b: Element) -> Element:
        if not _is_expr(condition):
            return a if condition else b
        if isinstance(a, Ratio | Fraction) or isinstance(b, Ratio | Fraction):
            raise Inexpressible
        return tirx.Select(condition, _as_expr(a), _as_expr(b))


def _split(x: Element) -> tuple[Element, Fraction]:
    """x as (dimension or 1, factor)."""
    if isinstance(x, Ratio):
        return x.dim, x.factor
    return (x, Fraction(1)) if _is_expr(x) else (1, Fraction(x))


def _as_expr(x: Element) -> Any:
    if isinstance(x, Ratio | Fraction | float):
        raise Inexpressible
    return x if _is_expr(x) else tirx.IntImm("int64", int(x))


def _as_condition(function: Callable[[Any, Any], Any], a: Any, b: Any) -> Any:
    if function is operator.eq:
        return tirx.EQ(a, b)
    return function(a, b)


@dataclass(frozen=True)
class _Attributes:
    get: Callable[..., Any]
    dtype: str

    def axes(self, given: Array | None, ndim: int, name: str = "axes") -> tuple[int, ...] | None:
        axes = self.get(name) if given is None else [int(axis) for axis in given.reshape(-1)]
        return None if axes is None else tuple(axis % ndim for axis in axes)


def _indices(array: Array) -> Array:
    if any(not isinstance(e, int | bool | np.integer) for e in array.reshape(-1)):
        raise Inexpressible
    return array.astype(np.int64)


def _cast(ev: Evaluator, at: _Attributes, x: Array) -> Array:
    target = np.dtype(_CAST.get(at.get("to")) or _inexpressible())
    if target.kind == "f":
        return ev.unary(lambda e: int(e) if isinstance(e, bool) else e, x)
    if target.kind == "b":
        return ev.unary(lambda e: ev.compare(operator.ne)(e, 0), x)
    return ev.unary(lambda e: tirx.Cast("int64", e) if _is_expr(e) and str(e.ty.dtype) == "bool" else ev.trunc(e), x)


def _inexpressible() -> Any:
    raise Inexpressible


def _reduce(function: Callable[[Evaluator, Element, Element], Element]) -> Callable[..., Array]:
    def reduced(ev: Evaluator, at: _Attributes, x: Array, axes: Array | None = None) -> Array:
        where = at.axes(axes, x.ndim)
        if where is None or not len(where):
            if at.get("noop_with_empty_axes", 0):
                return x
            where = tuple(range(x.ndim))
        out = x
        for axis in sorted(where, reverse=True):
            parts = np.moveaxis(out, axis, 0)
            if not len(parts):
                raise Inexpressible
            total = parts[0:1]
            for index in range(1, len(parts)):
                total = ev.binary(lambda a, b: function(ev, a, b), total, parts[index : index + 1])
            out = np.moveaxis(total, 0, axis) if at.get("keepdims", 1) else total[0]
        return out if isinstance(out, np.ndarray) else np.array(out, dtype=object)

    return reduced


def _slice(
    ev: Evaluator,
    at: _Attributes,
    x: Array,
    starts: Array | None = None,
    ends: Array | None = None,
    axes: Array | None = None,
    steps: Array | None = None,
) -> Array:
    begin = _indices(np.array(at.get("starts") if starts is None else starts, dtype=object)).tolist()
    end = _indices(np.array(at.get("ends") if ends is None else ends, dtype=object)).tolist()
    where = at.axes(axes, x.ndim) or tuple(range(len(begin)))
    step = [1] * len(begin) if steps is None else _indices(steps).tolist()
    index = [slice(None)] * x.ndim
    for axis, b, e, s in zip(where, begin, end, step, strict=True):
        index[axis] = slice(b, None if s < 0 and e < -x.shape[axis] else e, s)
    return x[tuple(index)]


def _gather(ev: Evaluator, at: _Attributes, x: Array, indices: Array) -> Array:
    return np.asarray(np.take(x, _indices(indices), axis=at.get("axis", 0)), dtype=object)


def _unsqueeze(ev: Evaluator, at: _Attributes, x: Array, axes: Array | None = None) -> Array:
    given = at.get("axes") if axes is None else axes.reshape(-1)
    return np.expand_dims(x, tuple(axis % (x.ndim + len(given)) for axis in given))


def _squeeze(ev: Evaluator, at: _Attributes, x: Array, axes: Array | None = None) -> Array:
    return np.squeeze(x, at.axes(axes, x.ndim))


def _reshape(ev: Evaluator, at: _Attributes, x: Array, shape: Array | None = None) -> Array:
    target = _indices(np.array(at.get("shape"), dtype=object) if shape is None else shape).tolist()
    return x.reshape([x.shape[i] if d == 0 and not at.get("allowzero", 0) else d for i, d in enumerate(target)])


def _split_array(ev: Evaluator, at: _Attributes, x: Array, sizes: Array | None = None) -> list[Array]:
    given = at.get("split") if sizes is None else _indices(sizes).tolist()
    if given is None:
        raise Inexpressible
    return np.split(x, np.cumsum(given)[:-1], axis=at.get("axis", 0))


def _range(ev: Evaluator, at: _Attributes, start: Array, limit: Array, delta: Array) -> Array:
    a, b, d = (_indices(x).item() for x in (start, limit, delta))
    numbers = range(a, b, d)
    if len(numbers) > MAX_ELEMENTS:
        raise Inexpressible
    return np.array(numbers, dtype=object)


def _expand(ev: Evaluator, at: _Attributes, x: Array, shape: Array) -> Array:
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(_indices(shape).tolist())))


def _tile(ev: Evaluator, at: _Attributes, x: Array, repeats: Array) -> Array:
    counts = _indices(repeats)
    if x.size * math.prod(counts.tolist()) > MAX_ELEMENTS:
        raise Inexpressible
    return np.tile(x, counts)


def _fold_binary(function: Callable[[Evaluator, Element, Element], Element]) -> Callable[..., Array]:
    def folded(ev: Evaluator, at: _Attributes, *arrays: Array) -> Array:
        total = arrays[0]
        for array in arrays[1:]:
            total = ev.binary(lambda a, b: function(ev, a, b), total, array)
        return total

    return folded


def _maximum(ev: Evaluator, a: Element, b: Element) -> Element:
    if not (_is_expr(a) or _is_expr(b)) and not (isinstance(a, Ratio) or isinstance(b, Ratio)):
        return max(a, b)
    _as_expr(a), _as_expr(b)
    return ev.dims.maximum(a, b)


def _minimum(ev: Evaluator, a: Element, b: Element) -> Element:
    if not (_is_expr(a) or _is_expr(b)) and not (isinstance(a, Ratio) or isinstance(b, Ratio)):
        return min(a, b)
    _as_expr(a), _as_expr(b)
    return ev.dims.minimum(a, b)


def _mod(ev: Evaluator, at: _Attributes, a: Array, b: Array) -> Array:
    if is_float(at.dtype) or at.get("fmod", 0):
        raise Inexpressible
    return ev.binary(lambda x, y: x % y, a, b)


def _div(ev: Evaluator, at: _Attributes, a: Array, b: Array) -> Array:
    return ev.binary(lambda x, y: ev.div(x, y, is_float(at.dtype)), a, b)


def _where(ev: Evaluator, at: _Attributes, condition: Array, a: Array, b: Array) -> Array:
    condition, a, b = np.broadcast_arrays(condition, a, b)
    out = np.empty(a.shape, dtype=object)
    for index in np.ndindex(a.shape):
        out[index] = ev.select(condition[index], _exact(a[index]), _exact(b[index]))
    return out


def _comparison(function: Callable[[Any, Any], Any]) -> Callable[..., Array]:
    return lambda ev, at, a, b: ev.binary(ev.compare(function), a, b)


def _not(ev: Evaluator, at: _Attributes, x: Array) -> Array:
    return ev.unary(lambda e: tirx.Not(e) if _is_expr(e) else not e, x)


def _logical(function: Callable[[Any, Any], Any], dominant: bool) -> Callable[..., Array]:
    def scalar(a: Element, b: Element) -> Element:
        for x, y in ((a, b), (b, a)):
            if not _is_expr(x):
                return dominant if bool(x) == dominant else y
        return function(a, b)

    return lambda ev, at, a, b: ev.binary(scalar, a, b)


_CAST: Mapping[int, str] = {
    1: "float32",
    2: "uint8",
    3: "int8",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
}
_BOOLEAN = frozenset({"Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "Not", "And", "Or"})
_OPERATORS: Mapping[str, Callable[..., Any]] = {
    "Identity": lambda ev, at, x: x,
    "Cast": _cast,
    "Add": _fold_binary(Evaluator.add),
    "Sum": _fold_binary(Evaluator.add),
    "Sub": _fold_binary(lambda ev, a, b: ev.add(a, ev.mul(b, -1))),
    "Mul": _fold_binary(Evaluator.mul),
    "Div": _div,
    "Mod": _mod,
    "Neg": lambda ev, at, x: ev.unary(lambda e: ev.mul(e, -1), x),
    "Min": _fold_binary(_minimum),
    "Max": _fold_binary(_maximum),
    "Floor": lambda ev, at, x: ev.unary(ev.floor, x),
    "Ceil": lambda ev, at, x: ev.unary(ev.ceil, x),
    "Equal": _comparison(operator.eq),
    "Less": _comparison(operator.lt),
    "Greater": _comparison(operator.gt),
    "LessOrEqual": _comparison(operator.le),
    "GreaterOrEqual": _comparison(operator.ge),
    "Not": _not,
    "And": _logical(tirx.And, False),
    "Or": _logical(tirx.Or, True),
    "Where": _where,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": lambda ev, at, *xs: np.concatenate(xs, axis=at.get("axis", 0)),
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Reshape": _reshape,
    "Flatten": lambda ev, at, x: x.reshape(int(np.prod(x.shape[: at.get("axis", 1)])), -1),
    "Transpose": lambda ev, at, x: np.transpose(x, at.get("perm")),
    "Expand": _expand,
    "Tile": _tile,
    "Split": _split_array,
    "Range": _range,
    "ReduceProd": _reduce(Evaluator.mul),
    "ReduceSum": _reduce(Evaluator.add),
    "ReduceMax": _reduce(_maximum),
    "ReduceMin": _reduce(_minimum),
}
