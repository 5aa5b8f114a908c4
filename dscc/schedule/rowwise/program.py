"""What a row-wise function is made of: sweeps over the axes of a row, and the places in memory that they touch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import tvm_ffi
from tvm import tirx
from tvm.ir import Expr, Var

COMBINE: dict[str, Callable[[Expr, Expr], Expr]] = {
    "Add": lambda a, b: a + b,
    "Mul": lambda a, b: a * b,
    "Max": tirx.max,
    "Min": tirx.min,
}


class NotRowwise(Exception):
    """The function has no structure of rows."""


@dataclass(frozen=True)
class Axis:
    """A coordinate, which runs from 0 to its extent."""

    var: Var
    extent: Expr


@dataclass(frozen=True)
class Access:
    """A place in memory: `rest` plus, for every axis in `strides`, its coordinate times the product of the factors."""

    buffer: Var
    strides: dict[Var, tuple[Expr, ...]]
    rest: Expr


@dataclass(frozen=True)
class Fold:
    """`result` is the combination of `value` over the axes of its sweep."""

    result: Var
    combine: str
    identity: Expr
    value: Expr


@dataclass
class Sweep:
    """One pass over the axes of a row.

    Attributes:
        axes: outermost first; empty for what happens once a row.
        steps: variables, in order, with the memory that they are loaded from or the expression that they stand for.
        folds: reductions.
        stores: what is written, after all steps.
        varying: the variables among `steps` and `axes` that are not the same all over the row.
        made: the step that stands for an element of a buffer.
    """

    axes: tuple[Axis, ...]
    steps: list[tuple[Var, Access | Expr]] = field(default_factory=list)
    folds: list[Fold] = field(default_factory=list)
    stores: list[tuple[Access, Expr]] = field(default_factory=list)
    varying: set[Var] = field(default_factory=set)
    made: dict[tuple[object, ...], Var] = field(default_factory=dict)

    def accesses(self) -> Iterator[Access]:
        """Everything that is read and written."""
        yield from (value for _, value in self.steps if isinstance(value, Access))
        yield from (access for access, _ in self.stores)


@dataclass
class Rows:
    """A function as sweeps over rows.

    Attributes:
        kept: the axes whose index names a row.
        sweeps: in order.
        scratch: buffers of one row each, which are not parameters; their accesses have no kept axes.
    """

    kept: tuple[Axis, ...]
    sweeps: list[Sweep]
    scratch: list[Var]


def variables(expr: Expr) -> list[Var]:
    """Every variable in `expr`, as often as it occurs."""
    found: list[Var] = []
    tvm_ffi.structural_walk(expr, (Var, found.append))
    return found


def int64(expr: Expr) -> Expr:
    """`expr` in the type of all indices."""
    return expr if str(expr.ty.dtype) == "int64" else expr.astype("int64")


def extent_product(extents: Sequence[Expr]) -> Expr:
    """The product of extents, 1 of none."""
    total: Expr = tirx.const(1, "int64")
    for extent in extents:
        total = total * int64(extent)
    return total
