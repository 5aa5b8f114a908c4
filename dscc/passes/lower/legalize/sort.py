"""Sorting and running sums, for which LegalizeOps of TVM 0.27 has no definition: TVM keeps them in a pass of its own,
`DispatchSortScan`, without which the operators reach the virtual machine as they are and fail when the model runs.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from tvm import relax, te, tirx, topi
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from dscc.passes.lower.legalize import legalize
from dscc.passes.lower.legalize.reshape import reshape
from dscc.schedule.code import product

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
    return _scan(bb, call, "cumsum", operator.add, 0)


@legalize("relax.cumprod")
def cumprod(bb: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """Products of all up to each element, along an axis."""
    return _scan(bb, call, "cumprod", operator.mul, 1)


def _scan(
    bb: relax.BlockBuilder, call: relax.Call, name: str, combine: Callable[[Any, Any], Any], start: int
) -> relax.Expr:
    """Not by topi: in TVM 0.27 its loops write a first element where the axis has none, and divide by the extents."""
    at, x = call.attrs, call.args[0]
    if at.axis is None:
        x = bb.emit(reshape(bb, bb.normalize(relax.op.reshape(x, [product(list(x.ty.shape))]))))
    axis = 0 if at.axis is None else int(at.axis) % x.ty.ndim
    dtype = _name(call.ty.dtype)

    def loops(given: Any, made: Any) -> Any:
        with IRBuilder() as ib, ExitStack() as nest:
            data, out = T.buffer_proxy(given), T.buffer_proxy(made)
            spread = T.parallel if axis > 0 else T.serial
            index = [nest.enter_context((T.serial if i else spread)(0, d)) for i, d in enumerate(given.shape)]
            before = [*index[:axis], tirx.max(index[axis] - 1, 0), *index[axis + 1 :]]
            value = data[tuple(before if at.exclusive else index)].astype(dtype)
            first = tirx.const(start, dtype) if at.exclusive else value
            out[tuple(index)] = tirx.Select(index[axis] > 0, combine(out[tuple(before)], value), first)
            nest.close()
            return ib.get()

    def kernel(data: te.Tensor) -> te.Tensor:
        return te.extern([data.shape], [data], lambda ins, outs: loops(ins[0], outs[0]), name=name, dtype=dtype)

    return bb.call_te(kernel, x, primfunc_attrs=_OPAQUE)


def _name(dtype: Any) -> str:
    return str(dtype)
