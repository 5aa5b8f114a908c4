"""What the normalisations have in common: the axes of a row, and parameters that are broadcast over rows."""

from __future__ import annotations

import numpy as np
from tvm import relax

from dscc.passes.values import attr, const, constant, dims, rank, same_dim


def row_axes(call: relax.Call, data: relax.Expr) -> tuple[int, ...] | None:
    """The axes of a reduction or normalisation, counted from the front and in order; None if the rank is not known."""
    ndim = rank(data)
    written = attr(call, "axes") if hasattr(call.attrs, "axes") else attr(call, "axis")
    if ndim is None:
        return None
    return tuple(range(ndim)) if written is None else tuple(sorted(axis % ndim for axis in written))


def is_filled(expr: relax.Expr, value: float) -> bool:
    """Whether `expr` is a constant that has `value` everywhere."""
    found = constant(expr)
    return found is not None and bool(np.all(found == value))


def affine_parameter(parameter: relax.Expr, data: relax.Expr, axes: tuple[int, ...] | None) -> relax.Expr | None:
    """A factor or offset of `data` in the shape of the normalised axes alone; None if it varies along others."""
    shape, whole = dims(parameter), dims(data)
    if axes is None or shape is None or whole is None or len(shape) > len(whole):
        return None
    wide = (*(1 for _ in range(len(whole) - len(shape))), *shape)
    row = [whole[axis] for axis in axes]
    fixed = constant(parameter)
    if fixed is not None:
        if any(dim != 1 for axis, dim in enumerate(wide) if axis not in axes) or not all(
            isinstance(d, int) for d in row
        ):
            return None
        try:
            return const(np.broadcast_to(fixed.reshape([wide[axis] for axis in axes]), row))
        except ValueError:
            return None
    exact = len(shape) == len(row) and all(same_dim(a, b) for a, b in zip(shape, row, strict=True))
    return parameter if exact and axes == tuple(range(len(whole) - len(row), len(whole))) else None
