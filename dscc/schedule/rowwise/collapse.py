"""Fewer axes: neighbours that every access steps through as through one become one."""

from __future__ import annotations

from collections.abc import Sequence

import tvm_ffi
from tvm import tirx
from tvm.ir import Expr, Var

from dscc.schedule.rowwise.program import Access, Axis, Rows, Sweep, extent_product, variables


def collapse(rows: Rows) -> None:
    """Make one axis of two neighbours wherever every access steps through both of them as through one."""
    for sweep in rows.sweeps:
        sweep.axes = _joined(sweep.axes, list(sweep.accesses()), _direct(sweep))
    everything = [access for sweep in rows.sweeps for access in sweep.accesses()]
    direct = {v for sweep in rows.sweeps for v in _direct(sweep)}
    rows.kept = _joined(rows.kept, everything, direct)


def _joined(axes: tuple[Axis, ...], accesses: Sequence[Access], direct: set[Var]) -> tuple[Axis, ...]:
    out: list[Axis] = []
    for axis in axes:
        outer = out[-1] if out else None
        if outer is not None and all(_contiguous(outer, axis, access) for access in accesses):
            if outer.var not in direct and axis.var not in direct:
                for access in accesses:
                    access.strides.pop(outer.var, None)
                out[-1] = Axis(axis.var, extent_product([outer.extent, axis.extent]))
                continue
        out.append(axis)
    return tuple(out)


def _contiguous(outer: Axis, inner: Axis, access: Access) -> bool:
    """Whether stepping the inner axis past its end is stepping the outer one."""
    a, b = access.strides.get(outer.var), access.strides.get(inner.var)
    if a is None or b is None:
        return a is None and b is None
    return same_product(a, (*b, inner.extent))


def same_product(a: Sequence[Expr], b: Sequence[Expr]) -> bool:
    """Whether two products of extents have the same factors, constants multiplied."""
    (constant_a, rest_a), (constant_b, rest_b) = _factors(a), _factors(b)
    if constant_a != constant_b or len(rest_a) != len(rest_b):
        return False
    for factor in rest_a:
        match = next((i for i, other in enumerate(rest_b) if tvm_ffi.structural_equal(factor, other)), None)
        if match is None:
            return False
        del rest_b[match]
    return True


def _factors(product: Sequence[Expr]) -> tuple[int, list[Expr]]:
    constant, rest, todo = 1, [], list(product)
    while todo:
        factor = todo.pop()
        if isinstance(factor, tirx.IntImm):
            constant *= int(factor.value)
        elif isinstance(factor, tirx.Mul):
            todo += [factor.a, factor.b]
        else:
            rest.append(factor)
    return constant, rest


def _direct(sweep: Sweep) -> set[Var]:
    """Coordinates that are used as values, not only to find memory."""
    values = [what for _, what in sweep.steps if not isinstance(what, Access)]
    values += [fold.value for fold in sweep.folds] + [value for _, value in sweep.stores]
    return {v for value in values for v in variables(value)}
