"""Functions that work row by row, as sweeps over one row: softmax, normalisations, reductions with what is fused.

All reductions of such a function keep the same axes; one index of the kept axes is a row, and the reduced axes are
swept several times while the row is in cache. What TVM hands over as a sequence of blocks over whole tensors

    m[i] = max_k x[i, k];  e[i, k] = exp(x[i, k] - m[i]);  s[i] = sum_k e[i, k];  y[i, k] = e[i, k] / s[i]

becomes, for every i:

    sweep k:  m = max(x[k])
    sweep k:  e = exp(x[k] - m);  y[k] = e;  s = sum(e)
    sweep k:  y[k] = y[k] * (1 / s)

Cheap elementwise stages are computed anew in every sweep that reads them; costly ones are kept in the place of an
output of the same shape, or in scratch memory of one row. Blocks are recognised by what they read and write, never by
name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import tvm_ffi
from tvm import ir, sym, tirx
from tvm.ir import Expr, Var
from tvm.ir import TensorLoad as Load

from dscc.schedule.lanes import parts_of, with_parts
from dscc.schedule.math import BELOW_ONE
from dscc.schedule.stages import Stage, is_one, stages, substitute

COMBINE: dict[str, Callable[[Expr, Expr], Expr]] = {
    "Add": lambda a, b: a + b,
    "Mul": lambda a, b: a * b,
    "Max": tirx.max,
    "Min": tirx.min,
}
_COSTLY = frozenset(
    f"tirx.{name}" for name in "exp exp2 exp10 erf tanh sigmoid log log2 log10 log1p pow sin cos tan".split()
)


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


def rows_of(func: tirx.PrimFunc) -> Rows | None:
    """The function as rows, or None if it has no reduction or another structure."""
    found = stages(func)
    if found is None or not any(stage.reduce for stage in found):
        return None
    try:
        rows = _Resolver(func, [_without_ones(stage) for stage in found]).rows()
    except NotRowwise:
        return None
    _collapse(rows)
    return rows


def _without_ones(stage: Stage) -> Stage:
    """The stage without iteration variables of extent 1."""
    ones: dict[Var, Expr] = {v: tirx.const(0, v.ty.dtype) for v, extent in stage.extents.items() if is_one(extent)}
    return Stage(
        stage.buffer,
        tuple(substitute(index, ones) for index in stage.indices),
        substitute(stage.value, ones),
        stage.init,
        tuple(v for v in stage.spatial if v not in ones),
        tuple(v for v in stage.reduce if v not in ones),
        {v: extent for v, extent in stage.extents.items() if v not in ones},
    )


def _operand(stage: Stage) -> tuple[str, Expr]:
    """("Max", x) of `acc = max(acc, x)`."""
    combine, value = type(stage.value).__name__, stage.value
    if combine in COMBINE:
        for own, other in ((value.a, value.b), (value.b, value.a)):
            if isinstance(own, Load) and own.source.same_as(stage.buffer):
                return combine, other
    raise NotRowwise


@dataclass
class _Kept:
    """An elementwise stage whose values are kept for later sweeps."""

    sweep: Sweep
    buffer: Var
    readers: list[Sweep] = field(default_factory=list)


class _Resolver:
    """Turns stages over whole tensors into sweeps over one row."""

    def __init__(self, func: tirx.PrimFunc, found: Sequence[Stage]):
        self._stages = found
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

    def rows(self) -> Rows:
        first = next(stage for stage in self._stages if stage.is_reduction)
        self._kept = tuple(Axis(Var(f"k{i}", "int64"), first.extents[v]) for i, v in enumerate(first.spatial))
        self._worth_keeping = self._shared_and_costly()
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
            for load in _loads(stage.value):
                if load.source in readers and not load.source.same_as(stage.buffer):
                    readers[load.source] |= names
        return {
            stage.buffer
            for stage in self._stages
            if not stage.is_reduction and len(readers[stage.buffer]) > 1 and _is_costly(stage.value)
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
        combine, operand = _operand(stage)
        result = Var(stage.buffer.name, stage.buffer.ty.dtype)
        sweep.folds.append(Fold(result, combine, stage.init, self._resolve(operand, names, sweep)))
        self._results[stage.buffer] = result
        if stage.buffer in self._outputs:
            done = self._sweep_over((), {stage.buffer})
            done.stores.append((self._access(stage.buffer, stage.indices, names, done), result))

    def _needs(self, stage: Stage) -> set[Var]:
        """The reductions and kept stages that have to be finished, or the latter at least under way, before `stage`."""
        found: set[Var] = set()
        for load in _loads(stage.value):
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
        axes = tuple(Axis(Var(f"j{i}", "int64"), _int64(extent)) for i, extent in enumerate(extents))
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
        for load in _loads(value):
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
            return any(v in sweep.varying for v in _variables(expr))

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
                room = tirx.decl_buffer((_product([a.extent for a in sweep.axes]),), var.ty.dtype, buffer.name)
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
                if varies(a) and not varies(b):
                    inverse = tirx.const(1.0, "float32") / b
                    return a * (inverse if isinstance(b, tirx.FloatImm) else step("r", inverse, False))
                return a / b
            if isinstance(expr, ir.Call) and isinstance(expr.op, ir.Op) and expr.op.name == "prim.if_then_else":
                raise NotRowwise  # it guards a load that a vector of lanes would do unguarded
            if isinstance(expr, ir.Call) and self._is_below_max(expr, at):
                expr = ir.Call(expr.op, list(expr.args), {BELOW_ONE: True}, expr.ty_args, expr.span, expr.ty)
            out = with_parts(expr, [visit(part, at) for part in parts_of(expr)])
            return step("r", out, False) if isinstance(expr, ir.Call) and not varies(out) else out

        return visit(value, names)

    def _is_below_max(self, call: ir.Call, at: dict[Var, Expr]) -> bool:
        """Whether it is exp(x - max(x)) over the row of x."""
        if not isinstance(call.op, ir.Op) or call.op.name != "tirx.exp" or not isinstance(call.args[0], tirx.Sub):
            return False
        x, most = call.args[0].a, call.args[0].b
        if not isinstance(x, Load) or not isinstance(most, Load) or most.source not in self._by_buffer:
            return False
        stage = self._by_buffer[most.source]
        if not stage.is_reduction:
            return False
        combine, operand = _operand(stage)
        if combine != "Max" or not isinstance(operand, Load) or not operand.source.same_as(x.source):
            return False
        row = {v: substitute(i, at) for v, i in zip(stage.indices, most.indices, strict=True) if isinstance(v, Var)}
        return all(
            reduced in stage.reduce or tvm_ffi.structural_equal(substitute(reduced, row), substitute(index, at))
            for reduced, index in zip(operand.indices, x.indices, strict=True)
        )

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
        shape = [_int64(extent) for extent in buffer.shape]
        for i, index in enumerate(substitute(index, names) for index in indices):
            inner = tuple(shape[i + 1 :])
            used = [v for v in coordinates if any(v.same_as(u) for u in _variables(index))]
            if any(v in strides for v in used):
                raise NotRowwise
            if isinstance(index, Var) and used:
                strides[index] = inner
            elif not used:
                rest = rest + _int64(index) * _product(inner)
            else:
                linear = sym.detect_linear_equation(index, used)
                if not linear:
                    raise NotRowwise
                for v, factor in zip(used, linear[:-1], strict=True):
                    strides[v] = (_int64(factor), *inner)
                rest = rest + _int64(linear[-1]) * _product(inner)
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


def _collapse(rows: Rows) -> None:
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
                out[-1] = Axis(axis.var, _product([outer.extent, axis.extent]))
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
    return {v for value in values for v in _variables(value)}


def _variables(expr: Expr) -> list[Var]:
    found: list[Var] = []
    tvm_ffi.structural_walk(expr, (Var, found.append))
    return found


def _loads(expr: Expr) -> list[Load]:
    found: list[Load] = []
    tvm_ffi.structural_walk(expr, (Load, found.append), order="post")
    return found


def _is_costly(expr: Expr) -> bool:
    found: list[bool] = []

    def look(call: ir.Call) -> None:
        found.append(isinstance(call.op, ir.Op) and call.op.name in _COSTLY)

    tvm_ffi.structural_walk(expr, (ir.Call, look))
    return any(found)


def _int64(expr: Expr) -> Expr:
    return expr if str(expr.ty.dtype) == "int64" else expr.astype("int64")


def _product(extents: Sequence[Expr]) -> Expr:
    total: Expr = tirx.const(1, "int64")
    for extent in extents:
        total = total * _int64(extent)
    return total
