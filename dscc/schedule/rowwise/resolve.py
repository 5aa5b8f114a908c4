"""From stages over whole tensors to sweeps over one row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import tvm_ffi
from tvm import ir, sym, tirx
from tvm.ir import Expr, Var
from tvm.ir import TensorLoad as Load

from dscc.schedule.math import BELOW_ONE
from dscc.schedule.operands import parts_of, with_parts
from dscc.schedule.rowwise.collapse import collapse
from dscc.schedule.rowwise.formulas import is_below_max, is_costly, operand, without_ones
from dscc.schedule.rowwise.program import (
    Access,
    Axis,
    Fold,
    NotRowwise,
    Rows,
    Sweep,
    extent_product,
    int64,
    variables,
)
from dscc.schedule.stages import Stage, is_one, loads, stages, substitute


def rows_of(func: tirx.PrimFunc, keep: bool = True) -> Rows | None:
    """The function as rows, or None if it has no reduction or another structure.

    Args:
        keep: values that are costly and are read by several sweeps are kept in memory, not computed again.
    """
    found = stages(func)
    if found is None or not any(stage.reduce for stage in found):
        return None
    try:
        rows = _Resolver(func, [without_ones(stage) for stage in found], keep).rows()
    except NotRowwise:
        return None
    collapse(rows)
    return rows


def _rounds(value: Expr) -> bool:
    """Whether a formula rounds to whole numbers: then the last bit of a quotient counts."""
    found: list[ir.Call] = []
    tvm_ffi.structural_walk(value, (ir.Call, found.append))
    return any(isinstance(call.op, ir.Op) and call.op.name in _ROUNDING for call in found)


_ROUNDING = frozenset({"tirx.nearbyint", "tirx.round", "tirx.floor", "tirx.ceil", "tirx.trunc"})


@dataclass
class _Kept:
    """An elementwise stage whose values are kept for later sweeps."""

    sweep: Sweep
    buffer: Var
    readers: list[Sweep] = field(default_factory=list)


class _Resolver:
    """Turns stages over whole tensors into sweeps over one row."""

    def __init__(self, func: tirx.PrimFunc, found: Sequence[Stage], keep: bool):
        self._stages, self._keep = found, keep
        self._outputs = {p for p in func.params if tirx.is_buffer_var(p)} & {s.buffer for s in found}
        self._by_buffer = {stage.buffer: stage for stage in found}
        if len(self._by_buffer) != len(found):
            raise NotRowwise
        if any(str(v.ty.dtype) != "int64" for stage in found for v in stage.extents):
            raise NotRowwise
        self._analyzer = sym.Analyzer()
        self._kept: tuple[Axis, ...] = ()
        self._results: dict[Var, Var] = {}  # buffer of a reduction -> variable for its value in this row
        self._keeps: dict[Var, _Kept] = {}
        self._sweeps: list[Sweep] = []
        self._rounds = any(_rounds(stage.value) for stage in found)

    def rows(self) -> Rows:
        first = next(stage for stage in self._stages if stage.is_reduction)
        self._kept = tuple(Axis(Var(f"k{i}", "int64"), first.extents[v]) for i, v in enumerate(first.spatial))
        self._worth_keeping = self._shared_and_costly() if self._keep else set()
        for stage in self._stages:
            if stage.is_reduction or stage.buffer in self._outputs:
                self._place(stage)
        scratch = [kept.buffer for kept in self._keeps.values() if not self._reuse_output(kept)]
        return Rows(self._kept, self._sweeps, scratch)

    def _shared_and_costly(self) -> set[Var]:
        """Buffers of elementwise stages that are costly and are read by several reductions or outputs."""
        readers: dict[Var, set[Var]] = {stage.buffer: set() for stage in self._stages}
        for stage in reversed(self._stages):
            seed = stage.is_reduction or stage.buffer in self._outputs
            names = {stage.buffer} if seed else readers[stage.buffer]
            for load in loads(stage.value):
                if load.source in readers and not load.source.same_as(stage.buffer):
                    readers[load.source] |= names
        return {
            stage.buffer
            for stage in self._stages
            if not stage.is_reduction and len(readers[stage.buffer]) > 1 and is_costly(stage.value)
        } - self._outputs

    def _place(self, stage: Stage) -> None:
        """Put a reduction or an output into the first sweep that can take it."""
        names = self._coordinates(stage)
        own = tuple(v for v in (*stage.spatial, *stage.reduce) if v not in names)
        sweep = self._sweep_over([stage.extents[v] for v in own], self._needs(stage))
        names.update({v: axis.var for v, axis in zip(own, sweep.axes, strict=True)})
        if not stage.is_reduction:
            value = self._resolve(stage.value, names, sweep)
            sweep.stores.append((self._access(stage.buffer, stage.indices, names, sweep), value))
            return
        combine, value = operand(stage)
        result = Var(stage.buffer.name, stage.buffer.ty.dtype)
        sweep.folds.append(Fold(result, combine, stage.init, self._resolve(value, names, sweep)))
        self._results[stage.buffer] = result
        if stage.buffer in self._outputs:
            done = self._sweep_over((), {stage.buffer})
            done.stores.append((self._access(stage.buffer, stage.indices, names, done), result))

    def _needs(self, stage: Stage) -> set[Var]:
        """The reductions and kept stages that have to be finished, or the latter at least under way, before `stage`."""
        found: set[Var] = set()
        for load in loads(stage.value):
            other = self._by_buffer.get(load.source)
            if other is None or other is stage:
                continue
            if other.is_reduction or other.buffer in self._keeps:
                found.add(other.buffer)
            if not other.is_reduction:
                found |= self._needs(other)
        return found

    def _sweep_over(self, extents: Sequence[Expr], needs: set[Var]) -> Sweep:
        """The first sweep over these extents after everything in `needs`; a new one if there is none."""
        open_results = {self._results[b] for b in needs if b in self._results}
        open_keeps = [self._keeps[b].sweep for b in needs if b in self._keeps]
        for i, sweep in enumerate(self._sweeps):
            same = len(sweep.axes) == len(extents) and all(
                self._analyzer.can_prove_equal(a.extent, b) for a, b in zip(sweep.axes, extents, strict=True)
            )
            if same and not open_results and all(any(s is k for s in self._sweeps[: i + 1]) for k in open_keeps):
                return sweep
            open_results -= {fold.result for fold in sweep.folds}
        axes = tuple(Axis(Var(f"j{i}", "int64"), int64(extent)) for i, extent in enumerate(extents))
        self._sweeps.append(Sweep(axes, varying={axis.var for axis in axes}))
        return self._sweeps[-1]

    def _coordinates(self, stage: Stage) -> dict[Var, Expr]:
        """The variables of `stage` that run over kept axes, with the kept coordinates."""
        if stage.is_reduction:
            extents = [stage.extents[v] for v in stage.spatial]
            mine: Sequence[Expr] = stage.spatial
        else:
            place = self._row_of(stage.value, {})
            if place is None:
                raise NotRowwise
            if any(not isinstance(index, Var) or index not in stage.extents for index in place):
                raise NotRowwise
            mine = place
            extents = [stage.extents[v] for v in place]
        if len(mine) != len(self._kept) or len({*mine}) != len(mine):
            raise NotRowwise
        for extent, axis in zip(extents, self._kept, strict=True):
            if not self._analyzer.can_prove_equal(extent, axis.extent):
                raise NotRowwise
        return {v: axis.var for v, axis in zip(mine, self._kept, strict=True)}

    def _row_of(self, value: Expr, at: dict[Var, Expr]) -> list[Expr] | None:
        """The row, in terms of the reading stage's variables, of the first reduction that `value` reads."""
        for load in loads(value):
            stage = self._by_buffer.get(load.source)
            if stage is None:
                continue
            indices = [substitute(index, at) for index in load.indices]
            inner = {v: i for v, i in zip(stage.indices, indices, strict=True) if isinstance(v, Var)}
            if stage.is_reduction:
                return [inner[v] for v in stage.spatial]
            found = self._row_of(stage.value, inner)
            if found is not None:
                return found
        return None

    def _resolve(self, value: Expr, names: dict[Var, Expr], sweep: Sweep) -> Expr:
        """`value` in coordinates of the row, what it reads named by steps of `sweep`."""

        def step(name: str, what: Access | Expr, varies: bool) -> Var:
            var = Var(name, what.buffer.ty.dtype if isinstance(what, Access) else what.ty.dtype)
            sweep.steps.append((var, what))
            if varies:
                sweep.varying.add(var)
            return var

        def varies(expr: Expr) -> bool:
            return any(v in sweep.varying for v in variables(expr))

        def load_from(access: Access) -> Var:
            return step("x", access, any(v in sweep.varying for v in access.strides))

        def read(load: Load, at: dict[Var, Expr]) -> Expr:
            indices = tuple(substitute(index, at) for index in load.indices)
            key = (load.source, *(tvm_ffi.StructuralKey(index) for index in indices))
            if key not in sweep.made:
                sweep.made[key] = make(load.source, indices)
            return sweep.made[key]

        def make(buffer: Var, indices: tuple[Expr, ...]) -> Var:
            stage = self._by_buffer.get(buffer)
            if stage is None:
                return load_from(self._access(buffer, indices, {}, sweep))
            kept = self._keeps.get(buffer)
            if kept is not None and kept.sweep is not sweep and self._covers(indices, sweep):
                kept.readers.append(sweep)
                return load_from(_scratch(kept.buffer, sweep))
            at = {v: i for v, i in zip(stage.indices, indices, strict=True) if isinstance(v, Var)}
            if len(at) != len(stage.spatial):
                raise NotRowwise
            if stage.is_reduction:
                row = [at[v] for v in stage.spatial]
                this = all(i.same_as(axis.var) for i, axis in zip(row, self._kept, strict=True))
                if buffer not in self._results or not this:
                    raise NotRowwise
                return self._results[buffer]
            formula = visit(stage.value, at)
            var = step("e", formula, varies(formula))
            if kept is None and buffer in self._worth_keeping and self._covers(indices, sweep):
                room = tirx.decl_buffer((extent_product([a.extent for a in sweep.axes]),), var.ty.dtype, buffer.name)
                self._keeps[buffer] = _Kept(sweep, room)
                sweep.stores.append((_scratch(room, sweep), var))
            return var

        def visit(expr: Expr, at: dict[Var, Expr]) -> Expr:
            if isinstance(expr, Load):
                return read(expr, at)
            if isinstance(expr, Var):
                return at.get(expr, expr)
            if isinstance(expr, tirx.Div) and str(expr.ty.dtype) == "float32":
                a, b = visit(expr.a, at), visit(expr.b, at)
                if varies(a) and not varies(b) and not self._rounds:
                    inverse = tirx.const(1.0, "float32") / b
                    return a * (inverse if isinstance(b, tirx.FloatImm) else step("r", inverse, False))
                return a / b
            if isinstance(expr, ir.Call) and isinstance(expr.op, ir.Op) and expr.op.name == "prim.if_then_else":
                raise NotRowwise  # it guards a load that a vector of lanes would do unguarded
            if isinstance(expr, ir.StringImm):
                raise NotRowwise  # a function of C, which has no vectors
            if isinstance(expr, ir.Call) and is_below_max(expr, at, self._by_buffer):
                expr = ir.Call(expr.op, list(expr.args), {BELOW_ONE: True}, expr.ty_args, expr.span, expr.ty)
            out = with_parts(expr, [visit(part, at) for part in parts_of(expr)])
            return step("r", out, False) if isinstance(expr, ir.Call) and not varies(out) else out

        return visit(value, names)

    def _covers(self, indices: Sequence[Expr], sweep: Sweep) -> bool:
        """Whether an element at these indices is named by each coordinate once, those of the row in order."""
        named = [index for index in indices if isinstance(index, Var)]
        own = [v for v in named if any(v.same_as(axis.var) for axis in sweep.axes)]
        rest = [index for index in indices if not isinstance(index, Var)]
        in_order = len(own) == len(sweep.axes) and all(v.same_as(a.var) for v, a in zip(own, sweep.axes, strict=True))
        return in_order and len(named) == len(own) + len(self._kept) and all(isinstance(i, tirx.IntImm) for i in rest)

    def _reuse_output(self, kept: _Kept) -> bool:
        """Keep the values where an output of the same shape will be written, if nobody reads them after that."""
        last = self._sweeps[-1]
        if not kept.readers or kept.readers[-1] is not last or len(last.axes) != len(kept.sweep.axes):
            return False
        taken = {access.buffer for sweep in self._sweeps[:-1] for access in sweep.accesses()}
        for access, _ in last.stores:
            covers = len(access.strides) == len(last.axes) + len(self._kept)
            if str(access.buffer.dtype) == str(kept.buffer.dtype) and covers and access.buffer not in taken:
                for sweep in {id(s): s for s in (kept.sweep, *kept.readers)}.values():
                    swap = {a.var: b.var for a, b in zip(last.axes, sweep.axes, strict=True)}
                    place = Access(access.buffer, {swap.get(v, v): s for v, s in access.strides.items()}, access.rest)
                    _replace(sweep, kept.buffer, place)
                return True
        return False

    def _access(self, buffer: Var, indices: Sequence[Expr], names: dict[Var, Expr], sweep: Sweep) -> Access:
        """Where `buffer[indices]` is, linear in the coordinates."""
        coordinates = [axis.var for axis in (*self._kept, *sweep.axes)]
        strides: dict[Var, tuple[Expr, ...]] = {}
        rest: Expr = tirx.const(0, "int64")
        shape = [int64(extent) for extent in buffer.shape]
        for i, index in enumerate(substitute(index, names) for index in indices):
            inner = tuple(shape[i + 1 :])
            used = [v for v in coordinates if any(v.same_as(u) for u in variables(index))]
            if any(v in strides for v in used):
                raise NotRowwise
            if isinstance(index, Var) and used:
                strides[index] = inner
            elif not used:
                rest = rest + int64(index) * extent_product(inner)
            else:
                linear = sym.detect_linear_equation(index, used)
                if not linear:
                    raise NotRowwise
                for v, factor in zip(used, linear[:-1], strict=True):
                    strides[v] = (int64(factor), *inner)
                rest = rest + int64(linear[-1]) * extent_product(inner)
        strides = {v: tuple(f for f in factors if not is_one(f)) for v, factors in strides.items()}
        return Access(buffer, strides, rest)


def _scratch(buffer: Var, sweep: Sweep) -> Access:
    """The element of `buffer`, which has one for every coordinate of the sweep."""
    strides = {a.var: tuple(b.extent for b in sweep.axes[i + 1 :]) for i, a in enumerate(sweep.axes)}
    return Access(buffer, strides, tirx.const(0, "int64"))


def _replace(sweep: Sweep, buffer: Var, place: Access) -> None:
    """Let `sweep` use `place` instead of the scratch memory `buffer`."""
    sweep.steps = [
        (v, place if isinstance(what, Access) and what.buffer.same_as(buffer) else what) for v, what in sweep.steps
    ]
    sweep.stores = [(place if a.buffer.same_as(buffer) else a, value) for a, value in sweep.stores]
