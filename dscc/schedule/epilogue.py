"""What a fused function computes before and after its anchor, the one reduction in it.

TVM's fusion hands over a chain of blocks: perhaps some that prepare an operand, one reduction (convolution, matrix
product, pooling), then elementwise ones (bias, residual, activation). A rule generates the reduction and asks here for
the rest:

    fused = Fused.of(func)            # None: no reduction or several, or something that is not elementwise
    fused.anchor.value                # conv[n, y, x, f] + pad[n, y + ry, x + rx, rc] * weight[f, ry, rx, rc]
    fused.inline(load)                # an operand of the anchor in terms of parameters: cast(w_int8[...]) * scale[f]
    fused.store([n, y, x, f0 + lane], acc[i])
                                      # the statement out[n, y, x, f0 + lane] = relu(acc[i] + bias[f0 + lane])

`store` works on scalars: inside a `T.vectorized` loop over the innermost coordinate TVM makes vector code of it, with
the accumulator in a register. Blocks are recognised by what they read and write, never by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import tvm_ffi
from tvm import ir, tirx
from tvm.ir import Expr, Var
from tvm.ir import TensorLoad as Load
from tvm.sym import Analyzer

from dscc.schedule.stages import Stage, is_one, loads, product, ravel, stages, substitute, zero


@dataclass(frozen=True)
class Step:
    """One block after the anchor, in coordinates of the anchor.

    `value` reads the results of the anchor and of earlier steps through the variables that stand for them.
    """

    result: Var
    value: Expr
    buffer: Var
    indices: tuple[Expr, ...]
    is_output: bool


@dataclass(frozen=True)
class Fused:
    """A function with one anchor; see the module.

    Attributes:
        func: the function.
        anchor: the reduction.
        result: a variable that stands for the anchor's result in `steps`.
        producers: every stage, by the buffer that it fills.
        steps: the blocks after the anchor, in order.
    """

    func: tirx.PrimFunc
    anchor: Stage
    result: Var
    producers: dict[Var, Stage]
    steps: tuple[Step, ...]

    @staticmethod
    def of(func: tirx.PrimFunc) -> Fused | None:
        """The function taken apart, or None if it has no such structure."""
        found = stages(func)
        if found is None:
            return None
        anchors = [stage for stage in found if stage.is_reduction]
        if len(anchors) != 1:
            return None
        return Fused.around(func, found, anchors[0])

    @staticmethod
    def around(func: tirx.PrimFunc, found: Sequence[Stage], anchor: Stage) -> Fused | None:
        """The stages seen from `anchor`, which need not be a reduction: those that read it become the epilogue."""
        if any(not index.same_as(var) for index, var in zip(anchor.indices, anchor.spatial, strict=False)):
            return None
        if len(anchor.indices) != len(anchor.spatial):
            return None
        producers = {stage.buffer: stage for stage in found}
        if len(producers) != len(found):
            return None
        result = Var("acc", anchor.buffer.ty.dtype)
        steps = _Walk(func, anchor, producers, result).steps(found)
        return None if steps is None else Fused(func, anchor, result, producers, steps)

    @cached_property
    def outputs(self) -> tuple[Var, ...]:
        """The parameters that are written."""
        return tuple(step.buffer for step in self.steps if step.is_output)

    def inline(self, expr: Expr) -> Expr:
        """`expr` with every read of an intermediate buffer replaced by the formula that fills it."""
        return _inline(expr, self.producers, frozenset({self.anchor.buffer}))

    def store(self, coords: Sequence[Expr], value: Expr) -> tirx.Stmt:
        """The statement that applies the epilogue to one element of the anchor's result and stores it.

        Args:
            coords: the coordinates of the element in the anchor's result.
            value: the element; evaluated once for every use, so a variable or a load of a local buffer.
        """
        at = dict(zip(self.anchor.spatial, coords, strict=True))
        values: dict[Var, Expr] = {self.result: value}
        bound: list[tuple[Var, Expr]] = []
        stores: list[tirx.Stmt] = []
        for step in self.steps:
            here = substitute(step.value, {**at, **values})
            if step.is_output:
                whole = here
                for var, inner in reversed(bound):
                    whole = tirx.Let(var, inner, whole)
                stores.append(tirx.BufferStore(step.buffer, whole, [substitute(index, at) for index in step.indices]))
            if _uses(self.steps, step.result) > 1:
                var = Var("t", step.result.ty)
                bound.append((var, here))
                values[step.result] = var
            else:
                values[step.result] = here
        return stores[0] if len(stores) == 1 else tirx.SeqStmt(stores)


def _uses(steps: Sequence[Step], var: Var) -> int:
    total = 0

    def count(used: Var) -> None:
        nonlocal total
        total += used.same_as(var)

    for step in steps:
        tvm_ffi.structural_walk(step.value, (Var, count))
    return total


def _inline(expr: Expr, producers: dict[Var, Stage], stop: frozenset[Var]) -> Expr:
    def replace(load: Load) -> Expr:
        stage = producers.get(load.source)
        if stage is None or stage.is_reduction or load.source in stop:
            return load
        pairs = zip(stage.indices, load.indices, strict=True)
        at = {index: value for index, value in pairs if isinstance(index, Var)}
        return _inline(substitute(stage.value, at), producers, stop)

    return tvm_ffi.structural_map(expr, (Load, replace))


class _Walk:
    """Follows the anchor's result through the blocks that read it."""

    def __init__(self, func: tirx.PrimFunc, anchor: Stage, producers: dict[Var, Stage], result: Var):
        self._params = {param for param in func.params if tirx.is_buffer_var(param)}
        self._anchor = anchor
        self._producers = producers
        self._result = result
        self._analyzer = Analyzer()
        for var in anchor.spatial:
            self._analyzer.bind(var, ir.Range.from_min_extent(zero(var), anchor.extents[var]))

    def steps(self, found: Sequence[Stage]) -> tuple[Step, ...] | None:
        """The epilogue, or None if some block after the anchor is not one value per value of it."""
        anchor = self._anchor
        place: dict[Var, tuple[Expr, ...]] = {anchor.buffer: anchor.indices}
        value: dict[Var, Var] = {anchor.buffer: self._result}
        out: list[Step] = []
        if anchor.buffer in self._params:
            out.append(Step(Var("out", self._result.ty), self._result, anchor.buffer, anchor.indices, True))
        for stage in found:
            if stage is anchor:
                continue
            hot = [load for load in loads(stage.value) if load.source in place]
            if not hot:
                if stage.buffer in self._params:
                    return None
                continue
            at = None if stage.is_reduction else self._solve(stage, hot[0], place[hot[0].source])
            if at is None or not all(self._agrees(load, at, place[load.source]) for load in hot):
                return None

            def replace(load: Load, at: dict[Var, Expr] = at) -> Expr:
                return value.get(load.source, load)

            formula = tvm_ffi.structural_map(stage.value, (Load, replace))
            formula = _inline(substitute(formula, at), self._producers, frozenset(place))
            if any(load.source not in self._params for load in loads(formula)):
                return None
            indices = tuple(self._analyzer.simplify(substitute(index, at)) for index in stage.indices)
            result = Var(stage.buffer.name, stage.buffer.ty.dtype)
            place[stage.buffer], value[stage.buffer] = indices, result
            out.append(Step(result, formula, stage.buffer, indices, stage.buffer in self._params))
        return tuple(out) if any(step.is_output for step in out) else None

    def _agrees(self, load: Load, at: dict[Var, Expr], place: Sequence[Expr]) -> bool:
        there = [substitute(index, at) for index in load.indices]
        return all(self._analyzer.can_prove_equal(a, b) for a, b in zip(there, place, strict=True))

    def _solve(self, stage: Stage, load: Load, place: Sequence[Expr]) -> dict[Var, Expr] | None:
        """The iteration variables of `stage` for which `load` reads the element at `place`."""
        at: dict[Var, Expr] = {}
        for index, value in zip(load.indices, place, strict=True):
            if isinstance(index, Var) and index not in at:
                at[index] = value
            elif not isinstance(index, tirx.IntImm):
                return self._solve_reshape(stage, load, place)
        for var in stage.spatial:
            if var not in at:
                if not is_one(stage.extents[var]):
                    return self._solve_reshape(stage, load, place)
                at[var] = zero(var)
        return at

    def _solve_reshape(self, stage: Stage, load: Load, place: Sequence[Expr]) -> dict[Var, Expr] | None:
        """The same where `stage` reads the buffer in its row-major order under another shape."""
        analyzer = Analyzer()
        for var in stage.spatial:
            analyzer.bind(var, ir.Range.from_min_extent(zero(var), stage.extents[var]))
        extents = [stage.extents[var] for var in stage.spatial]
        shape = list(load.source.shape)
        if not analyzer.can_prove_equal(ravel(load.indices, shape), ravel(stage.spatial, extents)):
            return None
        at: dict[Var, Expr] = {}
        for old, new in _groups(shape, extents, analyzer):
            flat = ravel([place[i] for i in old], [shape[i] for i in old])
            for axis in reversed(new):
                var = stage.spatial[axis]
                if axis == new[0]:
                    at[var] = self._analyzer.simplify(flat)
                else:
                    at[var] = self._analyzer.simplify(tirx.floormod(flat, extents[axis]))
                    flat = tirx.floordiv(flat, extents[axis])
        return at


def _groups(old: Sequence[Expr], new: Sequence[Expr], analyzer: Analyzer) -> list[tuple[list[int], list[int]]]:
    """Runs of axes with equal products, so that an index is split and joined within a run only."""
    found: list[tuple[list[int], list[int]]] = []
    i, j = len(old), len(new)
    while i > 0 and j > 0:
        left, right = [i - 1], [j - 1]
        i, j = i - 1, j - 1
        while not analyzer.can_prove_equal(product(old, left), product(new, right)):
            if i == 0 and j == 0:
                break
            grow_left = j == 0 or (i > 0 and analyzer.can_prove(product(old, left) < product(new, right)))
            if grow_left:
                i -= 1
                left.insert(0, i)
            else:
                j -= 1
                right.insert(0, j)
        found.append((left, right))
    if found and (i or j):  # leading axes of extent 1
        found[-1] = ([*range(i), *found[-1][0]], [*range(j), *found[-1][1]])
    return found
