"""Reshapes by groups of axes, so that an index is divided only where axes are really joined and split.

    (n, h * w, 120) -> (n, h, w, 120):   y[n, i, j, c] = x[n, i * w + j, c]

TVM's definition flattens the whole index and takes it apart again, with divisions per element that are not simplified
where sizes are symbols; then neither a rule nor RewriteDataflowReshape sees that memory order does not change.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import relax, sym, te, tirx

from dscc.passes.lower.legalize import legalize


@legalize("relax.reshape")
def reshape(bb: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """The argument in row-major order under another shape."""
    source, target = call.args[0].ty.shape, call.ty.shape
    if not isinstance(source, relax.ShapeExpr) or not isinstance(target, relax.ShapeExpr):
        return call
    if any(isinstance(extent, tirx.IntImm) and extent.value == 0 for extent in [*source, *target]):
        return bb.call_te(lambda x: te.compute(list(target), lambda *at: tirx.const(0, x.dtype)), call.args[0])

    def define(x: te.Tensor, shape: list[Any]) -> te.Tensor:
        groups = runs(list(x.shape), shape)
        return te.compute(shape, lambda *at: x(*_source(at, list(x.shape), shape, groups)), name="reshape")

    return bb.call_te(define, call.args[0], target, primfunc_name_hint="reshape")


def runs(old: Sequence[Any], new: Sequence[Any]) -> list[tuple[list[int], list[int]]]:
    """Runs of axes of both shapes that have the same number of elements, as short as can be proved."""
    analyzer = sym.Analyzer()
    found: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) and j < len(new):
        lengths = ((a, total - a) for total in range(2, len(old) - i + len(new) - j + 1) for a in range(1, total))
        fits = (
            (range(i, i + a), range(j, j + b))
            for a, b in lengths
            if i + a <= len(old) and j + b <= len(new) and _same_size(analyzer, old[i : i + a], new[j : j + b])
        )
        left, right = next(fits, (range(i, len(old)), range(j, len(new))))
        found.append((list(left), list(right)))
        i, j = left.stop, right.stop
    rest = list(range(i, len(old))), list(range(j, len(new)))
    if any(rest):  # trailing axes of extent 1
        found.append(rest)
    return found


def _same_size(analyzer: sym.Analyzer, old: Sequence[Any], new: Sequence[Any]) -> bool:
    return bool(analyzer.can_prove_equal(_product(old), _product(new)))


def _product(extents: Sequence[Any]) -> Any:
    total: Any = tirx.const(1, "int64")
    for extent in extents:
        total = total * extent
    return total


def _source(
    at: Sequence[Any], old: Sequence[Any], new: Sequence[Any], groups: list[tuple[list[int], list[int]]]
) -> list[Any]:
    """Which element of the old shape is at `at` of the new one."""
    where: list[Any] = [tirx.const(0, "int64")] * len(old)
    for left, right in groups:
        real = [k for k in left if not _is_one(old[k])]
        flat: Any = tirx.const(0, "int64")
        for k in right:
            if not _is_one(new[k]):
                flat = flat * new[k] + at[k]
        for k in reversed(real):
            where[k] = flat if k == real[0] else flat % old[k]
            flat = flat // old[k]
    return where


def _is_one(extent: Any) -> bool:
    return isinstance(extent, tirx.IntImm) and extent.value == 1
