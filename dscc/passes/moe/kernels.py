"""Functions that the front end wrote, read as formulas: elementwise, gathers, ranges, places in a flat tensor.

They are known by what they compute, not by their names: one block `out[i, j] = value`, whose loads are looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import tvm
import tvm_ffi
from tvm import ir, relax, tirx
from tvm.ir import Expr, Var
from tvm.ir import TensorLoad as Load

from dscc.passes.moe.merge import is_number
from dscc.schedule.stages import Stage, is_zero, loads, stages, substitute, variables

_CALL_TIR = ir.Op.get("relax.call_tir")


@dataclass(frozen=True)
class Kernel:
    """A function of one block.

    Attributes:
        stage: the block. inputs: its buffers in the order of the call's tensors.
        args: the tensors.
        scalars: parameters that are no buffers, to what the call gives for them.
    """

    stage: Stage
    inputs: tuple[Var, ...]
    args: tuple[relax.Expr, ...]
    scalars: dict[Var, Expr] = field(default_factory=dict)

    def argument(self, buffer: Var) -> int | None:
        return next((i for i, var in enumerate(self.inputs) if var.same_as(buffer)), None)


def _called(call: relax.Call, mod: tvm.IRModule) -> tirx.PrimFunc | None:
    if call.op != _CALL_TIR or not isinstance(call.args[0], ir.GlobalVar):
        return None
    func = mod[call.args[0]]
    return func if isinstance(func, tirx.PrimFunc) else None


def read(call: relax.Call, mod: tvm.IRModule) -> Kernel | None:
    """The kernel that a call runs, or None if it is not of that kind."""
    func = _called(call, mod)
    found = None if func is None else stages(func)
    if found is None or len(found) != 1 or found[0].is_reduction:
        return None
    assert func is not None  # it has stages
    fields = [arg for arg in call.args[1].fields if isinstance(arg.ty, relax.TensorType)]
    buffers = [param for param in func.params if tirx.is_buffer_var(param)]
    if len(buffers) != len(fields) + 1 or not buffers[-1].same_as(found[0].buffer):
        return None
    if any(not isinstance(at, Var) and not is_zero(at) for at in found[0].indices):
        return None
    others = [param for param in func.params if not tirx.is_buffer_var(param)]
    given = [arg for arg in call.args[1].fields if not isinstance(arg.ty, relax.TensorType)]
    if len(others) != len(given):
        return None
    return Kernel(found[0], tuple(buffers[:-1]), tuple(fields), dict(zip(others, given, strict=True)))


def multiplied(call: relax.Call, mod: tvm.IRModule) -> tuple[relax.Expr, Kernel] | None:
    """The rows that a call multiplies with a matrix, and the matrix as a function over (depth, columns).

    out[.., n] += rows[.., k] * matrix(k, n)
    """
    func = _called(call, mod)
    found = None if func is None else stages(func)
    if func is None or found is None or len(found) != 1 or len(found[0].reduce) != 1:
        return None
    stage, depth = found[0], found[0].reduce[0]
    fields = [arg for arg in call.args[1].fields if isinstance(arg.ty, relax.TensorType)]
    buffers = [param for param in func.params if tirx.is_buffer_var(param)]
    if (
        len(buffers) != len(fields) + 1
        or not buffers[-1].same_as(stage.buffer)
        or not isinstance(stage.value, tirx.Add)
    ):
        return None
    before, product = stage.value.a, stage.value.b
    starts = isinstance(stage.init, tirx.FloatImm) and float(stage.init.value) == 0.0
    adds = isinstance(before, Load) and before.source.same_as(stage.buffer) and isinstance(product, tirx.Mul)
    if not (starts and adds and isinstance(product.a, Load) and all(isinstance(at, Var) for at in stage.indices)):
        return None
    rows, matrix = product.a, product.b
    wanted = (*stage.indices[:-1], depth)
    if len(rows.indices) != len(wanted) or not all(a.same_as(b) for a, b in zip(rows.indices, wanted, strict=True)):
        return None
    over = replace(stage, indices=(depth, stage.indices[-1]), value=matrix)
    kernel = Kernel(over, tuple(buffers[:-1]), tuple(fields))
    which = kernel.argument(rows.source)
    return None if which is None else (fields[which], kernel)


def unwrapped(expr: Expr) -> Expr:
    """`expr` with every index that is kept inside an extent replaced by itself:

    max(min(select(i < 0, i + n, i), n - 1), 0)  ->  i
    """

    def strip(node: Expr) -> Expr:
        inner = node
        if isinstance(inner, tirx.Max) and (is_zero(inner.b) or is_zero(inner.a)):
            inner = inner.a if is_zero(inner.b) else inner.b
        else:
            return node
        if not isinstance(inner, tirx.Min):
            return node
        for index, bound in ((inner.a, inner.b), (inner.b, inner.a)):
            if isinstance(index, tirx.Select) and _wraps(index, bound):
                return index.false_value
        return node

    return tvm_ffi.structural_map(expr, (tirx.Max, strip))


def _wraps(index: tirx.Select, bound: Expr) -> bool:
    kept, condition, moved = index.false_value, index.condition, index.true_value
    if not (isinstance(condition, tirx.LT) and is_zero(condition.b)):
        return False
    if not tvm_ffi.structural_equal(condition.a, kept):
        return False
    return bool(tvm.sym.Analyzer().can_prove_equal(moved - kept - 1, bound))


@dataclass(frozen=True)
class Gather:
    """out[..] = data[.., index, ..]

    Attributes:
        data, index: which arguments.
        axis: the first of the axes of the data that are looked up.
        coordinates: which element of the last axis of the index each of them is; None: it has no axis for them.
        layout: for every axis of the result, the axis of the index and of the data that runs along it, or None.
    """

    data: int
    index: int
    axis: int
    coordinates: tuple[int | None, ...]
    layout: tuple[tuple[int | None, int | None], ...]


def gather(kernel: Kernel) -> Gather | None:
    """What the kernel looks up, if that is all it does."""
    value = kernel.stage.value
    if not isinstance(value, Load):
        return None
    data = kernel.argument(value.source)
    if data is None:
        return None
    looked: list[tuple[int, Load, int]] = []
    for axis, at in enumerate(value.indices):
        if not loads(at):
            if not isinstance(at, Var) and not is_zero(at):
                return None
            continue
        bare = unwrapped(at)
        while isinstance(bare, tirx.Cast):
            bare = bare.value
        which = kernel.argument(bare.source) if isinstance(bare, Load) else None
        if which is None:
            return None
        looked.append((axis, bare, which))
    axes, sources = [axis for axis, _, _ in looked], {which for _, _, which in looked}
    if not looked or len(sources) != 1 or axes != list(range(axes[0], axes[0] + len(axes))):
        return None
    layout = []
    for at in kernel.stage.indices:
        along = [place for place, each in enumerate(looked[0][1].indices) if each.same_as(at)]
        within = [place for place, each in enumerate(value.indices) if each.same_as(at)]
        layout.append((along[0] if along else None, within[0] if within else None))
    coordinates = []
    for _, load, _ in looked:
        last = load.indices[-1]
        named = isinstance(last, tirx.IntImm) and len(layout) < len(load.indices) + len(value.indices) - len(looked)
        coordinates.append(int(last.value) if named else None)
    return Gather(data, sources.pop(), axes[0], tuple(coordinates), tuple(layout))


@dataclass(frozen=True)
class Window:
    """out[.., i, ..] = data[.., start + i, ..]

    Attributes:
        axis: along which the data is cut. start: in what the call gives.
    """

    data: relax.Expr
    axis: int
    start: Expr


def window(kernel: Kernel, axis: int) -> Window | None:
    """What the kernel takes of one tensor along an axis, if that is all it does."""
    value, own = kernel.stage.value, kernel.stage.indices
    if not isinstance(value, Load) or len(kernel.args) != 1 or len(value.indices) != len(own):
        return None
    others = [(at, of) for place, (at, of) in enumerate(zip(value.indices, own, strict=True)) if place != axis]
    if any(not at.same_as(of) and not (is_zero(at) and is_zero(of)) for at, of in others):
        return None
    start = substitute(value.indices[axis], {own[axis]: tirx.const(0, "int64"), **kernel.scalars})
    step = tvm.sym.Analyzer().simplify(substitute(value.indices[axis], kernel.scalars) - own[axis] - start)
    return Window(kernel.args[0], axis, tvm.sym.Analyzer().simplify(start)) if is_zero(step) else None


@dataclass(frozen=True)
class Formula:
    """out[i, j] = value, a formula of single elements of the arguments.

    Attributes:
        value: over the variables in `operands`, one for each load, and `free` ones.
        operands: variable to the argument, and for each of its axes the output axis that it runs along, or None.
        free: output axis to its variable, for those along which no argument runs.
        extents: of the output axes.
    """

    value: Expr
    operands: dict[Var, tuple[int, tuple[int | None, ...]]]
    free: dict[int, Var]
    extents: tuple[Expr, ...]


def formula(kernel: Kernel, constants: Sequence[np.ndarray | None]) -> Formula | None:
    """The kernel as a formula, or None if it reads elements at computed places; `constants`: what arguments hold."""
    stage = kernel.stage
    axis_of = {at: axis for axis, at in enumerate(stage.indices) if isinstance(at, Var)}
    value = unwrapped(stage.value)
    operands: dict[Var, tuple[int, tuple[int | None, ...]]] = {}
    made: dict[tuple[int, tuple[int | None, ...]], Var] = {}

    def leaf(load: Load) -> Expr:
        which = kernel.argument(load.source)
        places = [axis_of.get(at) if isinstance(at, Var) else None for at in load.indices]
        if which is not None and (content := constants[which]) is not None and all(map(is_number, load.indices)):
            return tirx.const(content[tuple(int(at.value) for at in load.indices)].item(), load.ty.dtype)
        plain = all(place is not None or is_zero(at) for place, at in zip(places, load.indices, strict=True))
        if which is None or not plain:
            return load
        key = (which, tuple(places))
        if key not in made:
            made[key] = Var(f"operand{len(made)}", load.ty)
            operands[made[key]] = key
        return made[key]

    value = tvm_ffi.structural_map(value, (Load, leaf))
    if loads(value):
        return None
    used = variables(value)
    covered = {place for _, places in operands.values() for place in places if place is not None}
    free = {axis: var for var, axis in axis_of.items() if axis not in covered and var in used}
    extents = tuple(stage.extents[at] if isinstance(at, Var) else tirx.const(1, "int64") for at in stage.indices)
    return Formula(value, operands, free, extents)


def row_places(found: Formula) -> tuple[Var, Expr] | None:
    """For out[i, j] = operand[i] * n + j: the operand and n; the places of whole rows in a flat tensor."""
    if len(found.operands) != 1 or list(found.free) != [len(found.extents) - 1]:
        return None
    (operand,), (column,) = found.operands, found.free.values()
    extent = found.extents[-1]
    wanted = operand * extent + column if str(operand.ty.dtype) == "int64" else None
    if wanted is None or not tvm.sym.Analyzer().can_prove_equal(found.value, wanted):
        return None
    return operand, extent
