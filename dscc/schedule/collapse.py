"""Loops of a formula that run through memory in order become one loop.

    y[n, h, w, c] = max(x[n, h, w, c] + bias[c], 0)   ->   y[r * C + c] = max(x[r * C + c] + bias[c], 0),  r < N * H * W

Neighbouring axes are joined when every buffer has both side by side, or neither. Buffers are then read through
one-dimensional views, so what is left of the other axes is one multiplication per loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tvm_ffi
from tvm import tirx
from tvm.ir import Expr, Var
from tvm.ir import TensorLoad as Load
from tvm.sym import Analyzer

from dscc.schedule.code import Flat, Index, constant, index, product
from dscc.schedule.domain import Interval
from dscc.schedule.stages import is_one, is_zero, loads

View = Callable[[Var], Flat]


@dataclass(frozen=True)
class Axis:
    """One loop of `extent` steps through the product of neighbouring variables of the formula, from `start` on."""

    vars: tuple[Var, ...]
    start: Expr
    extent: Index

    def at(self, step: Expr) -> Expr:
        """The position in the product at one step."""
        return step if is_zero(self.start) else step + index(self.start)


@dataclass(frozen=True)
class Flattened:
    """A formula over a few loops.

    Attributes:
        axes: the loops, outermost first; none of extent 1.
        target: the view that is written.
    """

    axes: tuple[Axis, ...]
    target: Flat
    _stored: tuple[Expr, ...]
    _buffer: Var
    _value: Expr
    _view: View
    _fixed: Mapping[Var, Expr]
    _analyzer: Analyzer

    def place(self, at: Sequence[Expr]) -> Expr:
        """The element of `target` that is written at loop indices `at`."""
        return self._offset(self._buffer, self._stored, at)

    def value(self, at: Sequence[Expr]) -> Expr:
        """What is written there."""
        return self._rewritten(self._value, at, self._values(at))

    def _rewritten(self, expr: Expr, at: Sequence[Expr], values: Mapping[Var, Expr]) -> Expr:
        """`expr` at loop indices `at`, with its loads through the views."""

        def load(node: Load, _: object) -> Expr:
            return tirx.BufferLoad(self._view(node.source).buffer, [self._offset(node.source, node.indices, at)])

        def swap(var: Var, _: object) -> Expr:
            value = values.get(var, var)
            return value if value.ty.dtype == var.ty.dtype else value.astype(var.ty.dtype)

        return tvm_ffi.structural_mutate(expr, [(Load, load), (Var, swap)])

    def _values(self, at: Sequence[Expr]) -> dict[Var, Expr]:
        """Of the variables; where several are joined, the last one counts through all of their product."""
        values = dict(self._fixed)
        for axis, i in zip(self.axes, at, strict=True):
            values.update({var: tirx.const(0, var.ty.dtype) for var in axis.vars[:-1]})
            values[axis.vars[-1]] = axis.at(i)
        return values

    def _offset(self, buffer: Var, indices: Sequence[Expr], at: Sequence[Expr]) -> Expr:
        values = self._values(at)
        total: Expr = index(0)
        stride: Expr = index(1)
        for where, extent in zip(reversed(indices), reversed(buffer.shape), strict=True):
            here = where if is_zero(where) else self._rewritten(where, at, values)
            if not is_zero(here):
                total = total + index(here) * stride
            stride = stride * index(extent)
        return self._analyzer.simplify(total)


def collapse(
    buffer: Var,
    indices: Sequence[Expr],
    value: Expr,
    where: Mapping[Var, Interval],
    view: View,
    analyzer: Analyzer,
    keep: frozenset[Var] = frozenset(),
) -> Flattened:
    """The formula `buffer[indices] = value` over the box `where` with as few loops as it can be written with.

    Args:
        view: the one-dimensional view of a buffer.
        keep: variables whose loop must stay one of its own.
    """
    fixed = {var: i.low for var, i in where.items() if constant(analyzer.simplify(i.high - i.low)) == 1}
    free = [var for var in where if var not in fixed]
    accesses = [(buffer, tuple(indices)), *((node.source, tuple(node.indices)) for node in loads(value))]
    loose = _loose_variables(value)
    runs: list[list[Var]] = []
    for var in free:
        whole = is_zero(where[var].low)
        if (
            runs
            and whole
            and not {var, runs[-1][-1]} & (loose | keep)
            and all(_side_by_side(a, runs[-1], var, where[var].high, analyzer) for a in accesses)
        ):
            runs[-1].append(var)
        else:
            runs.append([var])
    axes = []
    for run in runs:
        first = where[run[0]]
        length = analyzer.simplify(first.high - first.low)
        inner = product([where[var].high for var in run[1:]])
        low: Any = index(first.low)
        start = analyzer.simplify(low * index(inner))
        axes.append(Axis(tuple(run), start, product([length, inner])))
    return Flattened(tuple(axes), view(buffer), tuple(indices), buffer, value, view, fixed, analyzer)


def _loose_variables(value: Expr) -> set[Var]:
    """The variables that `value` uses other than as an index."""
    found: set[Var] = set()
    tvm_ffi.structural_visit(value, [(Load, lambda node, _: None), (Var, lambda var, _: found.add(var))])
    return found


def _side_by_side(
    access: tuple[Var, tuple[Expr, ...]], run: Sequence[Var], right: Var, extent: Expr, analyzer: Analyzer
) -> bool:
    """Whether `right` continues `run` in memory; the first variable of a run may be shifted, as in x[i - 1, j]."""
    buffer, indices = access
    left = run[-1]
    at_left = [i for i, where in enumerate(indices) if _mentions(where, left)]
    at_right = [i for i, where in enumerate(indices) if _mentions(where, right)]
    if not at_left and not at_right:
        return True
    if len(at_left) != 1 or len(at_right) != 1 or at_left[0] >= at_right[0]:
        return False
    if any(not is_one(buffer.shape[i]) for i in range(at_left[0] + 1, at_right[0])):
        return False
    shift = analyzer.simplify(indices[at_left[0]] - left)
    shiftable = not loads(shift) and not _mentions(shift, left) and not _mentions(shift, right)
    plain = indices[at_left[0]].same_as(left) or (len(run) == 1 and shiftable)
    return plain and indices[at_right[0]].same_as(right) and analyzer.can_prove_equal(buffer.shape[at_right[0]], extent)


def _mentions(expr: Expr, var: Var) -> bool:
    found: list[Var] = []
    tvm_ffi.structural_walk(expr, (Var, lambda used: found.append(used) if used.same_as(var) else None))
    return bool(found)
