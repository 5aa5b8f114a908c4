"""Reductions in the form that the row rule reads: every block a plain formula.

TVM's own definitions of sum, mean and prod have that form already.
"""

from __future__ import annotations

import math
from collections.abc import Callable

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
    return bb.call_te(lambda x: _first_index(x, topi.max, call), call.args[0], primfunc_name_hint="argmax")


@legalize("relax.argmin")
def argmin(bb: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """The first index of the smallest element."""
    return bb.call_te(lambda x: _first_index(x, topi.min, call), call.args[0], primfunc_name_hint="argmin")


def _first_index(x: te.Tensor, extreme, call: relax.Call) -> te.Tensor:  # type: ignore[no-untyped-def]
    """The extreme value first, then the least index at which it stands: two plain reductions instead of one over pairs.

    Without an axis the index is that of the flattened tensor. A row of NaN gives its last index, none outside.
    """
    rank = len(x.shape)
    axes = list(range(rank)) if call.attrs.axis is None else [int(call.attrs.axis) % rank]
    best = extreme(x, axes, keepdims=True)
    reduced = [te.reduce_axis((0, x.shape[a]), name=f"k{a}") for a in axes]
    last: tirx.Expr = tirx.const(-1, "int32")
    count: tirx.Expr = tirx.const(1, "int32")
    for a in axes:
        count = count * x.shape[a].astype("int32")
    last = count + last

    def formula(*kept: tirx.Var) -> tirx.Expr:
        left = list(kept)
        if call.attrs.keepdims:
            at = [reduced[axes.index(i)].var if i in axes else left[i] for i in range(rank)]
        else:
            others = iter(left)
            at = [reduced[axes.index(i)].var if i in axes else next(others) for i in range(rank)]
        flat: tirx.Expr = tirx.const(0, "int32")
        for a in axes:
            flat = flat * x.shape[a].astype("int32") + at[a].astype("int32")
        there = best[tuple(0 if i in axes else at[i] for i in range(rank))]
        return te.min(tirx.Select(tirx.EQ(x[tuple(at)], there), flat, last), axis=reduced)

    shape = [1 if i in axes else e for i, e in enumerate(x.shape) if call.attrs.keepdims or i not in axes]
    first = te.compute(shape, formula, name="first")
    return te.compute(shape, lambda *i: first[i].astype(call.ty.dtype), name="index")
