"""Sorting and running sums, for which LegalizeOps of TVM 0.27 has no definition: TVM keeps them in a pass of its own,
`DispatchSortScan`, without which the operators reach the virtual machine as they are and fail when the model runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import relax, topi

from dscc.passes.lower.legalize import legalize
from dscc.passes.lower.legalize.reshape import reshape
from dscc.schedule.code import product
from dscc.schedule.stages import is_zero

_OPAQUE = {"op_pattern": 8}  # TVM's pattern kind of what nothing is fused with


@legalize("relax.topk")
def topk(bb: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """The k largest or smallest along an axis, in order, and where they were."""
    at = call.attrs
    return bb.call_te(
        topi.topk,
        call.args[0],
        int(at.k),
        int(at.axis),
        str(at.ret_type),
        not at.largest,
        _name(at.dtype),
        primfunc_attrs=_OPAQUE,
    )


@legalize("relax.sort")
def sort(bb: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """All values along an axis, in order."""
    return bb.call_te(topi.sort, call.args[0], int(call.attrs.axis), not call.attrs.descending, primfunc_attrs=_OPAQUE)


@legalize("relax.argsort")
def argsort(bb: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """Where the values along an axis are, in their order."""
    at = call.attrs
    return bb.call_te(
        topi.argsort,
        call.args[0],
        None,
        int(at.axis),
        not at.descending,
        _name(at.dtype),
        primfunc_attrs=_OPAQUE,
    )


@legalize("relax.cumsum")
def cumsum(bb: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """Sums of all up to each element, along an axis."""
    return _scan(bb, call, topi.cumsum)


@legalize("relax.cumprod")
def cumprod(bb: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """Products of all up to each element, along an axis."""
    return _scan(bb, call, topi.cumprod)


def _scan(bb: relax.BlockBuilder, call: relax.Call, function: Callable[..., Any]) -> relax.Expr:
    """By topi on at most three axes: with four sizes that are symbols TVM 0.27 takes minutes over its index."""
    at = call.attrs
    axis = None if at.axis is None else int(at.axis)
    if any(is_zero(dim) for dim in call.ty.shape.values):  # topi divides by the extents
        return relax.op.zeros(call.ty.shape, _name(call.ty.dtype))
    x, shape = call.args[0], list(call.args[0].ty.shape)
    if axis is None or len(shape) <= 3:
        return bb.call_te(function, x, axis, _name(call.ty.dtype), bool(at.exclusive), primfunc_attrs=_OPAQUE)
    flat = _reshape(bb, x, [product(shape[:axis]), shape[axis], product(shape[axis:][1:])])
    found = bb.call_te(function, flat, 1, _name(call.ty.dtype), bool(at.exclusive), primfunc_attrs=_OPAQUE)
    return _reshape(bb, bb.emit(found), shape)


def _reshape(bb: relax.BlockBuilder, x: relax.Expr, shape: list[Any]) -> relax.Var:
    return bb.emit(reshape(bb, bb.normalize(relax.op.reshape(x, shape))))


def _name(dtype: Any) -> str:
    return str(dtype)
