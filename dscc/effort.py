"""Whether a run of a compiled module surely ends soon and in little memory, by what is known of it while compiling."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import tvm
from tvm import relax, tirx
from tvm.ir import Var

from dscc import feeds
from dscc.library import PREFIX
from dscc.passes.values import at_sizes
from dscc.runtime.profile import flops

MOST_OPERATIONS = 10**11  # a second or two of one core where they are a product, a minute where they are a sum
MOST_ELEMENTS = 2**30  # of one tensor
LOOP = f"{PREFIX}loop"


def is_bounded(mod: tvm.IRModule) -> bool:
    """Whether a run on inputs of the sizes of `dscc.feeds.random_feeds` is short: there is no loop whose trips data
    decides, no tensor is huge, and there is not much arithmetic. Kernels have to be scheduled, which notes theirs.
    """
    try:
        return _is_bounded(mod, _sizes(mod["main"]))
    except _NoSize:
        return False


class _NoSize(Exception):
    """At these sizes one is divided by another that is zero."""


def _is_bounded(mod: tvm.IRModule, sizes: Mapping[Var, int]) -> bool:
    operations, largest = 0, 0
    for func in mod.functions.values():
        if isinstance(func, relax.Function):
            found: list[relax.Expr] = []
            relax.analysis.post_order_visit(func.body, found.append)
            if any(isinstance(expr, relax.ExternFunc) and str(expr.global_symbol) == LOOP for expr in found):
                return False
            calls = [expr for expr in found if isinstance(expr, relax.Call)]
            types = [part for each in (*func.params, *calls) for part in _tensors(each.ty)]
            largest = max([largest, *(math.prod(_numbers(ty, sizes)) for ty in types)])
            operations += sum(_operations(mod, call, sizes) for call in calls)
    return operations <= MOST_OPERATIONS and largest <= MOST_ELEMENTS


def _sizes(main: relax.Function) -> dict[Var, int]:
    """The symbols of the inputs, as sizes that random inputs have."""
    sizes: dict[Var, int] = {}
    for param in main.params:
        for part in _tensors(param.ty):
            for axis, dim in enumerate(part.shape.values):
                if isinstance(dim, Var):
                    sizes.setdefault(dim, feeds.default_size(axis, len(part.shape.values)))
    return sizes


def _tensors(ty: relax.Type) -> list[relax.TensorType]:
    """The tensors of known rank in a type."""
    if isinstance(ty, relax.TupleType):
        return [part for field in ty.fields for part in _tensors(field)]
    return [ty] if isinstance(ty, relax.TensorType) and isinstance(ty.shape, relax.ShapeExpr) else []


def _numbers(ty: relax.TensorType, sizes: Mapping[Var, int]) -> list[int]:
    """The dimensions of a tensor as numbers; what data decides counts as much as a length."""
    return [_number(dim, sizes) for dim in ty.shape.values]


def _number(dim: Any, sizes: Mapping[Var, int]) -> int:
    number = at_sizes(int(dim) if isinstance(dim, tirx.IntImm) else dim, sizes, feeds.LENGTH)
    if number is None:
        raise _NoSize
    return number


def _operations(mod: tvm.IRModule, call: relax.Call, sizes: Mapping[Var, int]) -> int:
    """What the kernel that a call names computes; nothing where that is not known, which is where data decides."""
    if not call.args or not isinstance(call.args[0], tvm.ir.GlobalVar):
        return 0
    attrs = mod[call.args[0]].attrs
    text = str(attrs.get("dscc.arithmetic") or "") if attrs else ""
    if not text or len(call.args) < 2 or not isinstance(call.args[1], relax.Tuple):
        return 0
    tensors = [part for each in (*call.args[1].fields, call) for part in _tensors(each.ty)]
    entry = json.loads(text)
    places: Sequence[Sequence[int]] = [_numbers(ty, sizes) for ty in tensors]
    known = all(which < len(places) and len(place) == 1 and place[0] < len(places[which])
                for which, *place in entry["dims"].values())  # fmt: skip
    # The numbers that a kernel takes beside its tensors are sizes too.
    return flops(entry, places) or 0 if known else feeds.LENGTH * sum(math.prod(place) for place in places)
