"""What the operands of a product are made of, if they are quantized: small integers, a zero point and a scale."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from tvm import relax
from tvm.ir import GenericConst

from dscc.passes.cleanup.evaluate import NotFoldable, evaluate
from dscc.passes.values import const, constant, dims, dtype

NARROW = ("int8", "uint8")
LARGEST = 255  # of a difference between 8-bit numbers
_MOVES = frozenset({"relax.permute_dims", "relax.reshape", "relax.expand_dims", "relax.squeeze"})
_ARITHMETIC = frozenset({"relax.astype", "relax.subtract", "relax.multiply"})

Lookup = Callable[[relax.Expr], relax.Expr]
"""From a variable to what it is bound to."""


@dataclass(frozen=True)
class Data:
    """A tensor of 8-bit integers, and how it is read: moved, less `zero`, times `scale`, one number each or absent."""

    stored: relax.Expr
    moves: tuple[relax.Call, ...] = ()
    zero: relax.Expr | None = None
    scale: relax.Expr | None = None

    def moved(self, emit: Callable[[relax.Expr], relax.Expr]) -> relax.Expr:
        """`stored` as the product reads it."""
        value = self.stored
        for move in self.moves:
            value = emit(relax.Call(move.op, [value, *move.args[1:]], move.attrs, move.ty_args))
        return value


@dataclass(frozen=True)
class Weight:
    """Integers, and the scale that every one of them has, of the same shape; None for 1."""

    values: np.ndarray
    scale: np.ndarray | None = None

    def column_scale(self, axis: int) -> np.ndarray | None:
        """The scale of every column, or one number; None if it differs within a column."""
        if self.scale is None:
            return np.ones(1)
        first = self.scale[tuple(slice(None) if i == axis else slice(1) for i in range(self.scale.ndim))]
        if (self.scale != first).any():
            return None
        flat = first.reshape(-1)
        return flat[:1] if (flat == flat[0]).all() else flat

    def narrowed(self) -> relax.Expr:
        """The integers as a constant of int8 where they fit, else of int16."""
        limits = np.iinfo("int8")
        fits = self.values.min() >= limits.min and self.values.max() <= limits.max
        return const(self.values, "int8" if fits else "int16")

    def as_bytes(self) -> tuple[relax.Expr, relax.Expr] | None:
        """The integers as a constant of uint8, and what to subtract from each; None where their range is larger."""
        least = int(self.values.min())
        if int(self.values.max()) - least > LARGEST:
            return None
        return const(self.values - least, "uint8"), const(np.array(-least, "int32"))

    def refusal(self, columns: int) -> str | None:
        """Why sums of products with 8-bit data cannot be taken in 32 bits; None if they can."""
        if not self.values.size:
            return "the weight has no elements"
        if (largest := self.largest) > np.iinfo("int16").max:
            return f"its weights have to be 16-bit integers, got {largest}"
        if (terms := self.terms(columns)) * LARGEST * largest > np.iinfo("int32").max:
            return f"sums of {terms} terms may exceed 32 bits"
        return None

    @property
    def largest(self) -> int:
        """The largest absolute value."""
        return int(np.abs(self.values).max(initial=0))

    def terms(self, columns: int) -> int:
        """How many products make a sum."""
        return self.values.size // max(columns, 1)


def data_of(expr: relax.Expr, lookup: Lookup) -> Data | None:
    """Follow an operand to the 8-bit integers that it is made of."""
    found = Data(expr)
    while dtype(expr) not in NARROW:
        call = lookup(expr)
        name = getattr(call.op, "name", "") if isinstance(call, relax.Call) else ""
        if name in _MOVES:
            found = replace(found, moves=(call, *found.moves))
        elif name == "relax.subtract" and found.zero is None and is_number(call.args[1]):
            found = replace(found, zero=call.args[1])
        elif name == "relax.multiply" and found.scale is None and found.zero is None and dtype(call) == "float32":
            real, scale = call.args if is_number(call.args[1]) else reversed(call.args)
            if not is_number(scale):
                return None
            found = replace(found, scale=scale)
            expr = real
            continue
        elif name != "relax.astype" or dtype(call.args[0]) not in (*NARROW, "int32"):
            return None
        expr = call.args[0]
    return replace(found, stored=expr)


def weight_of(expr: relax.Expr, lookup: Lookup) -> Weight | None:
    """The integers and the scale of a constant; None if it is no constant or not made of integers."""
    if isinstance(expr, GenericConst):
        values = constant(expr)
        return None if values is None or values.dtype.kind not in "iu" else Weight(values.astype("int64"))
    call = lookup(expr)
    name = getattr(call.op, "name", "") if isinstance(call, relax.Call) else ""
    inner = weight_of(call.args[0], lookup) if name in (*_MOVES, *_ARITHMETIC) else None
    if inner is None or name == "relax.astype":
        return inner
    if name in _MOVES:
        try:
            values = np.asarray(evaluate(call, [inner.values, *call.args[1:]]))
            scale = None if inner.scale is None else np.asarray(evaluate(call, [inner.scale, *call.args[1:]]))
        except NotFoldable:  # to a shape of symbols
            return None
        return Weight(values, scale)
    other = constant(call.args[1])
    if other is None or inner.scale is not None:
        return None
    if np.broadcast_shapes(other.shape, inner.values.shape) != inner.values.shape:
        return None
    if name == "relax.multiply":
        return Weight(inner.values, np.broadcast_to(other.astype("float64"), inner.values.shape))
    return Weight(inner.values - other.astype("int64")) if (other == np.round(other)).all() else None


def is_number(expr: relax.Expr) -> bool:
    """Whether a tensor has one element."""
    shape = dims(expr)
    return shape is not None and all(dim == 1 for dim in shape)
