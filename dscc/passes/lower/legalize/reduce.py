"""Reductions in the form that the row rule reads: every block a plain formula.

TVM's own definitions of sum, mean and prod have that form already.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tvm import relax, te, tirx, topi

from dscc.passes.lower.legalize import legalize


@legalize("relax.max")
def largest(bb: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """The largest element. Of rows that hold nothing else it is -inf: TVM's definition starts from the least finite
    number.
    """
    return _extreme(bb, call, tirx.max, -math.inf)


@legalize("relax.min")
def smallest(bb: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """The smallest element, inf where there is nothing else."""
    return _extreme(bb, call, tirx.min, math.inf)


def _extreme(bb: relax.BlockBuilder, call: relax.Call, function: Callable[..., tirx.Expr], start: float) -> relax.Expr:
    if not str(call.ty.dtype).startswith("float"):
        default = topi.max if function is tirx.max else topi.min
        return bb.call_te(default, call.args[0], _axes(call), bool(call.attrs.keepdims))
    fold = te.comm_reducer(lambda a, b: function(a, b), lambda dtype: tirx.const(start, dtype), name="extreme")
    axes, keep = _axes(call), bool(call.attrs.keepdims)

    def define(x: te.Tensor) -> te.Tensor:
        reduced = {a: te.reduce_axis((0, x.shape[a]), name=f"k{a}") for a in axes}

        def formula(*kept: tirx.Var) -> tirx.Expr:
            left = iter(i for a, i in enumerate(kept) if not (keep and a in reduced))
            at = [reduced[a].var if a in reduced else next(left) for a in range(len(x.shape))]
            return fold(x[tuple(at)], axis=list(reduced.values()))

        shape = [1 if a in reduced else e for a, e in enumerate(x.shape) if keep or a not in reduced]
        return te.compute(shape, formula, name="extreme")

    return bb.call_te(define, call.args[0], primfunc_name_hint="max" if function is tirx.max else "min")


def _axes(call: relax.Call) -> list[int]:
    rank = len(call.args[0].ty.shape)
    return list(range(rank)) if call.attrs.axis is None else [int(axis) % rank for axis in call.attrs.axis]


@legalize("relax.argmax")
def argmax(bb: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """The first index of the largest element."""
    return bb.call_te(lambda x: _first_index(x, tirx.max, call), call.args[0], primfunc_name_hint="argmax")


@legalize("relax.argmin")
def argmin(bb: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """The first index of the smallest element."""
    return bb.call_te(lambda x: _first_index(x, tirx.min, call), call.args[0], primfunc_name_hint="argmin")


def _first_index(x: te.Tensor, function: Callable[..., tirx.Expr], call: relax.Call) -> te.Tensor:
    """The extreme value first, then the least index at which it stands: two plain reductions instead of one over pairs.

    Without an axis the index is that of the flattened tensor. As in onnxruntime a NaN is no extreme, except where it
    is the first of its row.
    """
    rank, dtype = len(x.shape), str(x.dtype)
    axes = list(range(rank)) if call.attrs.axis is None else [int(call.attrs.axis) % rank]
    keep = bool(call.attrs.keepdims)
    real = dtype.startswith(("float", "bfloat"))
    count: tirx.Expr = tirx.const(1, "int32")
    for a in axes:
        count = count * x.shape[a].astype("int32")

    def reduced() -> dict[int, tirx.IterVar]:
        return {a: te.reduce_axis((0, x.shape[a]), name=f"k{a}") for a in axes}

    def place(kept: Sequence[tirx.Expr], along: Callable[[int], tirx.Expr]) -> list[tirx.Expr]:
        """Indices into `x`: what is kept, and `along` of the other axes."""
        left = iter(i for a, i in enumerate(kept) if not (keep and a in axes))
        return [along(a) if a in axes else next(left) for a in range(rank)]

    def extreme(*kept: tirx.Var) -> tirx.Expr:
        k = reduced()
        value = x[tuple(place(kept, lambda a: k[a].var))]
        known = tirx.Select(tirx.isnan(value), _least(function, dtype), value) if real else value
        return fold(known, axis=list(k.values()))

    def index(*kept: tirx.Var) -> tirx.Expr:
        k = reduced()
        flat: tirx.Expr = tirx.const(0, "int32")
        for a in axes:
            flat = flat * x.shape[a].astype("int32") + k[a].var.astype("int32")
        there = tirx.EQ(x[tuple(place(kept, lambda a: k[a].var))], best[kept])
        return te.min(tirx.Select(there, flat, count - 1), axis=list(k.values()))

    def result(*kept: tirx.Var) -> tirx.Expr:
        found = first[kept].astype(call.ty.dtype)
        if not real:
            return found
        head = x[tuple(place(kept, lambda a: tirx.const(0, "int64")))]
        return tirx.Select(tirx.isnan(head), tirx.const(0, call.ty.dtype), found)

    fold = te.comm_reducer(lambda a, b: function(a, b), lambda kind: _least(function, str(kind)), name="extreme")
    shape = [1 if a in axes else e for a, e in enumerate(x.shape) if keep or a not in axes]
    best = te.compute(shape, extreme, name="best")
    first = te.compute(shape, index, name="first")
    return te.compute(shape, result, name="index")


def _least(function: Callable[..., tirx.Expr], dtype: str) -> tirx.Expr:
    """What every element goes before."""
    if dtype.startswith(("float", "bfloat")):
        return tirx.const(-math.inf if function is tirx.max else math.inf, dtype)
    return tirx.min_value(dtype) if function is tirx.max else tirx.max_value(dtype)
