"""Relax operators on NumPy arrays, for what is cheap to compute while compiling.

Only operators whose result in NumPy is TVM's to the last bit or nearly so, and that fold to something that is worth
keeping: there is no convolution here, and nothing that makes weights larger (`dscc/passes/cleanup/fold_constants.py`
sees to the size).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tvm import relax

from dscc.passes.values import attr, numbers

Array = np.ndarray
Operands = Sequence[Array | list[Array] | relax.Expr]  # constants as arrays; anything else as it is written in the call

UNARY: dict[str, Callable[[Array], Array]] = {
    "negative": np.negative, "abs": np.abs, "exp": np.exp, "log": np.log, "sqrt": np.sqrt, "square": np.square,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "tanh": np.tanh, "sin": np.sin, "cos": np.cos, "floor": np.floor, "ceil": np.ceil,
    "round": np.round, "trunc": np.trunc, "sign": np.sign, "logical_not": np.logical_not, "bitwise_not": np.bitwise_not,
    "isnan": np.isnan, "isinf": np.isinf, "isfinite": np.isfinite, "nn.relu": lambda x: np.maximum(x, 0),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)), "erf": np.vectorize(math.erf, otypes=[float]),
}  # fmt: skip

BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "add": np.add, "subtract": np.subtract, "multiply": np.multiply, "power": np.power, "maximum": np.maximum,
    "minimum": np.minimum, "floor_divide": np.floor_divide, "floor_mod": np.mod, "mod": np.fmod, "equal": np.equal,
    "not_equal": np.not_equal, "less": np.less, "less_equal": np.less_equal, "greater": np.greater,
    "greater_equal": np.greater_equal, "logical_and": np.logical_and, "logical_or": np.logical_or,
    "logical_xor": np.logical_xor, "bitwise_and": np.bitwise_and, "bitwise_or": np.bitwise_or,
    "bitwise_xor": np.bitwise_xor, "matmul": np.matmul,
}  # fmt: skip

REDUCE: dict[str, Callable[..., Array]] = {
    "sum": np.sum, "mean": np.mean, "max": np.max, "min": np.min, "prod": np.prod,
    "variance": lambda x, **over: np.var(x, dtype=np.float64, **over).astype(x.dtype),
    "std": lambda x, **over: np.std(x, dtype=np.float64, **over).astype(x.dtype),
}  # fmt: skip


class NotFoldable(Exception):
    """The call is not one that is evaluated here."""


def evaluate(call: relax.Call, operands: Operands) -> Array | list[Array]:
    """The result of `call` on constants; a list for operators that return a tuple.

    Raises:
        NotFoldable: the operator is not known here, or an argument of it is open.
    """
    name = str(call.op.name).removeprefix("relax.")
    with np.errstate(all="ignore"):
        if name in UNARY:
            return UNARY[name](_array(operands[0]))
        if name in BINARY:
            return BINARY[name](_array(operands[0]), _array(operands[1]))
        if name in REDUCE:
            return REDUCE[name](_array(operands[0]), axis=attr(call, "axis"), keepdims=attr(call, "keepdims"))
        if name in _SPECIAL:
            return _SPECIAL[name](call, operands)
    raise NotFoldable(name)


def _array(operand: Array | list[Array] | relax.Expr) -> Array:
    if isinstance(operand, np.ndarray):
        return operand
    raise NotFoldable


def _written(operand: Array | list[Array] | relax.Expr) -> tuple[int, ...]:
    """Integers written into the call: a shape, axes, bounds."""
    found = None if isinstance(operand, np.ndarray | list) else numbers(operand)
    if found is None:
        raise NotFoldable
    return tuple(int(n) for n in found)


def _divide(call: relax.Call, ops: Operands) -> Array:
    a, b = _array(ops[0]), _array(ops[1])
    if a.dtype.kind == "f":
        return a / b
    if not np.all(b):
        raise NotFoldable
    return (np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b))).astype(a.dtype)  # towards zero, as in C


def _concat(call: relax.Call, ops: Operands) -> Array:
    if not isinstance(ops[0], list):
        raise NotFoldable
    return np.concatenate(ops[0], axis=attr(call, "axis") or 0)


def _stack(call: relax.Call, ops: Operands) -> Array:
    if not isinstance(ops[0], list):
        raise NotFoldable
    return np.stack(ops[0], axis=attr(call, "axis"))


def _split(call: relax.Call, ops: Operands) -> list[Array]:
    return np.split(_array(ops[0]), attr(call, "indices_or_sections"), axis=attr(call, "axis"))


def _strided_slice(call: relax.Call, ops: Operands) -> Array:
    data = _array(ops[0])
    axes, begin, end = (_written(op) for op in ops[1:4])
    strides = _written(ops[4]) if len(ops) > 4 else (1,) * len(axes)
    cut = [slice(None)] * data.ndim
    for axis, low, high, step in zip(axes, begin, end, strides, strict=True):
        # An end below -size with a negative step means "down to and with the first element", which a slice writes as
        # None.
        cut[axis] = slice(low, None if step < 0 and high < -data.shape[axis] else high, step)
    return data[tuple(cut)]


def _take(call: relax.Call, ops: Operands) -> Array:
    data, indices, axis = _array(ops[0]), _array(ops[1]), attr(call, "axis")
    size = data.size if axis is None else data.shape[axis]
    if np.any(indices < 0) or np.any(indices >= size):
        raise NotFoldable  # what TVM makes of those depends on the mode
    return np.take(data, indices, axis=axis)


def _squeeze(call: relax.Call, ops: Operands) -> Array:
    return np.squeeze(_array(ops[0]), attr(call, "axis"))


def _expand_dims(call: relax.Call, ops: Operands) -> Array:
    return np.expand_dims(_array(ops[0]), attr(call, "axis"))


def _clip(call: relax.Call, ops: Operands) -> Array:
    low, high = (_bound(op) for op in ops[1:3])
    data = _array(ops[0])
    return np.clip(data, low, high).astype(data.dtype)


def _bound(operand: Array | list[Array] | relax.Expr) -> float:
    found = None if isinstance(operand, np.ndarray | list) else numbers(operand)
    if found is None:
        raise NotFoldable
    return found[0]


def _filled(value: float) -> Callable[[relax.Call, Operands], Array]:
    return lambda call, ops: np.full(_written(ops[0]), value, str(attr(call, "dtype")))


_SPECIAL: dict[str, Callable[[relax.Call, Operands], Any]] = {
    "divide": _divide,
    "concat": _concat,
    "stack": _stack,
    "split": _split,
    "strided_slice": _strided_slice,
    "take": _take,
    "squeeze": _squeeze,
    "expand_dims": _expand_dims,
    "clip": _clip,
    "where": lambda call, ops: np.where(_array(ops[0]), _array(ops[1]), _array(ops[2])),
    "reshape": lambda call, ops: _array(ops[0]).reshape(_written(ops[1])),
    "flatten": lambda call, ops: _array(ops[0]).reshape(-1),
    "permute_dims": lambda call, ops: np.transpose(_array(ops[0]), attr(call, "axes")),
    "broadcast_to": lambda call, ops: np.broadcast_to(_array(ops[0]), _written(ops[1])),
    "astype": lambda call, ops: _array(ops[0]).astype(str(attr(call, "dtype"))),
    "tile": lambda call, ops: np.tile(_array(ops[0]), attr(call, "repeats")),
    "full": lambda call, ops: np.broadcast_to(_array(ops[1]), _written(ops[0])),
    "zeros": _filled(0),
    "ones": _filled(1),
    "zeros_like": lambda call, ops: np.zeros_like(_array(ops[0])),
    "ones_like": lambda call, ops: np.ones_like(_array(ops[0])),
    "arange": lambda call, ops: np.arange(*(_bound(op) for op in ops), dtype=str(attr(call, "dtype"))),
    "shape_to_tensor": lambda call, ops: np.array(_written(ops[0]), "int64"),
}
