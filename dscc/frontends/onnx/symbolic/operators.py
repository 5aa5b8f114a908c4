"""ONNX's operators on arrays of symbolic elements: functions of the arithmetic, the attributes and the arrays."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx

from dscc.frontends.onnx.symbolic.arithmetic import Arithmetic, Element, Inexpressible, exact, is_expr
from dscc.frontends.onnx.values import DTYPES, Array, is_float

MAX_ELEMENTS = 4096  # of all inputs together, and of all outputs
_CASTS = frozenset(
    {"float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint32", "uint64", "bool"}
)


@dataclass(frozen=True)
class Attributes:
    """A node's attributes, by `get(name, default)`, and the type of its first input."""

    get: Callable[..., Any]
    dtype: str

    def axes(self, given: Array | None, ndim: int, name: str = "axes") -> tuple[int, ...] | None:
        axes = self.get(name) if given is None else [int(axis) for axis in given.reshape(-1)]
        return None if axes is None else tuple(axis % ndim for axis in axes)


def _indices(array: Array) -> Array:
    """Elements that have to be known numbers, as int64."""
    if any(not isinstance(e, int | bool | np.integer) for e in array.reshape(-1)):
        raise Inexpressible
    return array.astype(np.int64)


def cast_type(code: int) -> str:
    """The name of the type with this code in ONNX, if shapes may be cast to it."""
    name = DTYPES.get(code, "")
    if name not in _CASTS:
        raise Inexpressible
    return name


def _cast(arith: Arithmetic, at: Attributes, x: Array) -> Array:
    target = np.dtype(cast_type(at.get("to")))
    if target.kind == "f":
        return arith.unary(lambda e: int(e) if isinstance(e, bool) else e, x)
    if target.kind == "b":
        return arith.unary(lambda e: e if _is_condition(e) else arith.compare(operator.ne)(e, 0), x)
    return arith.unary(lambda e: tirx.Cast("int64", e) if _is_condition(e) else arith.trunc(e), x)


def _is_condition(element: Element) -> bool:
    return is_expr(element) and str(element.ty.dtype) == "bool"


def _reduce(function: Callable[[Arithmetic, Element, Element], Element]) -> Callable[..., Array]:
    def reduced(arith: Arithmetic, at: Attributes, x: Array, axes: Array | None = None) -> Array:
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
                total = arith.binary(lambda a, b: function(arith, a, b), total, parts[index : index + 1])
            out = np.moveaxis(total, 0, axis) if at.get("keepdims", 1) else total[0]
        return out if isinstance(out, np.ndarray) else np.array(out, dtype=object)

    return reduced


def _slice(
    arith: Arithmetic,
    at: Attributes,
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


def _gather(arith: Arithmetic, at: Attributes, x: Array, indices: Array) -> Array:
    return np.asarray(np.take(x, _indices(indices), axis=at.get("axis", 0)), dtype=object)


def _unsqueeze(arith: Arithmetic, at: Attributes, x: Array, axes: Array | None = None) -> Array:
    given = at.get("axes") if axes is None else axes.reshape(-1)
    return np.expand_dims(x, tuple(axis % (x.ndim + len(given)) for axis in given))


def _squeeze(arith: Arithmetic, at: Attributes, x: Array, axes: Array | None = None) -> Array:
    return np.squeeze(x, at.axes(axes, x.ndim))


def _reshape(arith: Arithmetic, at: Attributes, x: Array, shape: Array | None = None) -> Array:
    target = _indices(np.array(at.get("shape"), dtype=object) if shape is None else shape).tolist()
    return x.reshape([x.shape[i] if d == 0 and not at.get("allowzero", 0) else d for i, d in enumerate(target)])


def _split_array(arith: Arithmetic, at: Attributes, x: Array, sizes: Array | None = None) -> list[Array]:
    given = at.get("split") if sizes is None else _indices(sizes).tolist()
    if given is None:
        raise Inexpressible
    return np.split(x, np.cumsum(given)[:-1], axis=at.get("axis", 0))


def _range(arith: Arithmetic, at: Attributes, start: Array, limit: Array, delta: Array) -> Array:
    a, b, d = (_indices(x).item() for x in (start, limit, delta))
    numbers = range(a, b, d)
    if len(numbers) > MAX_ELEMENTS:
        raise Inexpressible
    return np.array(numbers, dtype=object)


def _expand(arith: Arithmetic, at: Attributes, x: Array, shape: Array) -> Array:
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(_indices(shape).tolist())))


def _tile(arith: Arithmetic, at: Attributes, x: Array, repeats: Array) -> Array:
    counts = _indices(repeats)
    if x.size * math.prod(counts.tolist()) > MAX_ELEMENTS:
        raise Inexpressible
    return np.tile(x, counts)


def _fold_binary(function: Callable[[Arithmetic, Element, Element], Element]) -> Callable[..., Array]:
    def folded(arith: Arithmetic, at: Attributes, *arrays: Array) -> Array:
        total = arrays[0]
        for array in arrays[1:]:
            total = arith.binary(lambda a, b: function(arith, a, b), total, array)
        return total

    return folded


def _mod(arith: Arithmetic, at: Attributes, a: Array, b: Array) -> Array:
    if is_float(at.dtype) or at.get("fmod", 0):
        raise Inexpressible
    return arith.binary(lambda x, y: x % arith.divisor(y), a, b)


def _div(arith: Arithmetic, at: Attributes, a: Array, b: Array) -> Array:
    return arith.binary(lambda x, y: arith.div(x, y, is_float(at.dtype)), a, b)


def _where(arith: Arithmetic, at: Attributes, condition: Array, a: Array, b: Array) -> Array:
    condition, a, b = np.broadcast_arrays(condition, a, b)
    out = np.empty(a.shape, dtype=object)
    for index in np.ndindex(a.shape):
        out[index] = arith.select(condition[index], exact(a[index]), exact(b[index]))
    return out


def _comparison(function: Callable[[Any, Any], Any]) -> Callable[..., Array]:
    return lambda arith, at, a, b: arith.binary(arith.compare(function), a, b)


def _not(arith: Arithmetic, at: Attributes, x: Array) -> Array:
    return arith.unary(lambda e: tirx.Not(e) if is_expr(e) else not e, x)


def _logical(function: Callable[[Any, Any], Any], dominant: bool) -> Callable[..., Array]:
    def scalar(a: Element, b: Element) -> Element:
        for x, y in ((a, b), (b, a)):
            if not is_expr(x):
                return dominant if bool(x) == dominant else y
        return function(a, b)

    return lambda arith, at, a, b: arith.binary(scalar, a, b)


BOOLEAN = frozenset({"Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "Not", "And", "Or"})
OPERATORS: Mapping[str, Callable[..., Any]] = {
    "Identity": lambda arith, at, x: x,
    "Cast": _cast,
    "Add": _fold_binary(Arithmetic.add),
    "Sum": _fold_binary(Arithmetic.add),
    "Sub": _fold_binary(lambda arith, a, b: arith.add(a, arith.mul(b, -1))),
    "Mul": _fold_binary(Arithmetic.mul),
    "Div": _div,
    "Mod": _mod,
    "Neg": lambda arith, at, x: arith.unary(lambda e: arith.mul(e, -1), x),
    "Min": _fold_binary(Arithmetic.minimum),
    "Max": _fold_binary(Arithmetic.maximum),
    "Floor": lambda arith, at, x: arith.unary(arith.floor, x),
    "Ceil": lambda arith, at, x: arith.unary(arith.ceil, x),
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
    "Concat": lambda arith, at, *xs: np.concatenate(xs, axis=at.get("axis", 0)),
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Reshape": _reshape,
    "Flatten": lambda arith, at, x: x.reshape(int(np.prod(x.shape[: at.get("axis", 1)])), -1),
    "Transpose": lambda arith, at, x: np.transpose(x, at.get("perm")),
    "Expand": _expand,
    "Tile": _tile,
    "Split": _split_array,
    "Range": _range,
    "ReduceProd": _reduce(Arithmetic.mul),
    "ReduceSum": _reduce(Arithmetic.add),
    "ReduceMax": _reduce(Arithmetic.maximum),
    "ReduceMin": _reduce(Arithmetic.minimum),
}
