"""Give every TIR function to the target's schedule rules, and pack the constants that it reads.

    R.call_tir(cls.fused_conv2d_relu, (x, const_OHWI))  ->  R.call_tir(cls.fused_conv2d_relu, (x, const_packed))

Functions that are alike but for their name are scheduled and compiled once. Rules that enlarge the constants may double
what the module holds of them, or add 1 MiB: those that add the least for a call come first.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import tvm
import tvm_ffi
from tvm import relax, tirx
from tvm.ir import GenericConst
from tvm.relax.expr_functor import PyExprMutator, mutator

from dscc import constants, scratch
from dscc.passes.base import Pass, PassContext
from dscc.passes.mutate import mutated
from dscc.schedule.base import Packing, Scheduled
from dscc.schedule.cost import TYPICAL_SIDE, arithmetic, operations_at
from dscc.schedule.decisions import Decisions
from dscc.schedule.plan import plan

_CALL_TIR = tvm.ir.Op.get("relax.call_tir")
_FREE_BYTES = 1 << 20  # that packing may add to any module


@dataclass(frozen=True)
class ScheduleKernels(Pass):
    """Unscheduled TIR functions become fast ones.

    Attributes:
        small: no constant may be packed into more bytes than it has.
    """

    name = "schedule-kernels"
    stage = "schedule"

    small: bool = False

    def run(self, mod: tvm.IRModule, ctx: PassContext) -> tvm.IRModule:
        mod, representatives = _merge_equal(mod)
        arguments = _constant_arguments(mod, representatives)
        budget = max(
            _FREE_BYTES,
            sum({constant: size for found in arguments.values() for constant, size in found.sizes.items()}.values()),
        )
        plans: dict[str, Scheduled] = {}
        rules: dict[str, str] = {}
        known = {name: ctx.records(mod[name], of.constants) if ctx.records else {} for name, of in arguments.items()}
        if tuned := sum(map(bool, known.values())):
            ctx.facts["tuned_kernels"] = tuned

        def schedule(name: str, small: bool) -> None:
            constants, decisions = arguments[name].constants, Decisions(known[name])
            plans[name], rules[name] = plan(mod[name], constants, ctx.target, decisions, small)

        for name in arguments:
            schedule(name, self.small)
        added = {name: _growth(mod[name], plan, arguments[name]) for name, plan in plans.items()}
        counted: dict[tuple[int, Packing], int] = {}
        total = 0
        grown = [name for name, sizes in added.items() if sum(sizes.values()) > 0]
        for name in sorted(grown, key=lambda name: _price(mod[name], added[name], arguments[name])):
            more = sum(size for key, size in added[name].items() if key not in counted)
            if total + more > budget:
                schedule(name, True)
            else:
                total += more
                counted |= added[name]
        if total:
            ctx.facts["bytes_added_by_packing"] = total
        for name, rule in rules.items():
            ctx.remark(f"{self.name}: {name}: {rule}")
        facts = {name: {"dscc.rule": rules[name], "dscc.arithmetic": arithmetic(mod[name])} for name in plans}
        return relax.transform.DeadCodeElimination()(mutated(mod, _Retarget(mod, plans, representatives, facts)))


def _merge_equal(mod: tvm.IRModule) -> tuple[tvm.IRModule, dict[str, str]]:
    """A copy of the module; and for every TIR function the name of the first one that is equal to it in structure."""
    buckets: dict[int, list[str]] = defaultdict(list)
    first: dict[str, str] = {}
    mod = tvm.IRModule(dict(mod.functions.items()), attrs=mod.attrs)
    for gvar, func in sorted(mod.functions.items(), key=lambda item: item[0].name_hint):
        if not isinstance(func, tirx.PrimFunc):
            continue
        name = gvar.name_hint
        bare = func.without_attr("global_symbol")
        bucket = buckets[tvm_ffi.structural_hash(bare)]
        same = (n for n in bucket if tvm_ffi.structural_equal(bare, mod[n].without_attr("global_symbol")))
        first[name] = next(same, name)
        if first[name] == name:
            bucket.append(name)
    return mod, first


def unscheduled(mod: tvm.IRModule) -> dict[str, tuple[tirx.PrimFunc, frozenset[int]]]:
    """The kernels that the pass would schedule, by the names that they keep, with their constant parameters."""
    mod, representatives = _merge_equal(mod)
    return {name: (mod[name], found.constants) for name, found in _constant_arguments(mod, representatives).items()}


@dataclass
class _Arguments:
    """What a TIR function is called with.

    Attributes:
        constants: the parameters that are constants at all of its call sites.
        sizes: bytes of every constant that it is given, by identity.
        given: the constants by parameter, by identity.
        count: number of calls.
    """

    constants: frozenset[int]
    sizes: dict[int, int] = field(default_factory=dict)
    given: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    count: int = 0


def _constant_arguments(mod: tvm.IRModule, representatives: Mapping[str, str]) -> dict[str, _Arguments]:
    """For every TIR function that is called, what it is called with."""
    found: dict[str, _Arguments] = {}

    def visit(expr: relax.Expr) -> None:
        if isinstance(expr, relax.Call) and expr.op == _CALL_TIR:
            name = representatives[expr.args[0].name_hint]
            constants = {i: arg.value for i, arg in enumerate(expr.args[1]) if isinstance(arg, GenericConst)}
            entry = found.setdefault(name, _Arguments(frozenset(constants)))
            entry.constants &= frozenset(constants)
            entry.count += 1
            for i, value in constants.items():
                entry.given[i].add(hash(value))
            entry.sizes |= {hash(value): _bytes(value.shape, str(value.dtype)) for value in constants.values()}

    for func in mod.functions.values():
        if isinstance(func, relax.Function):
            relax.analysis.post_order_visit(func, visit)
    return found


def _growth(func: tirx.PrimFunc, plan: Scheduled, arguments: _Arguments) -> dict[tuple[int, Packing], int]:
    """Bytes by which packed constants are larger than the constants, by the constant and its packing: what several
    calls share, as the heads of a detector do on every level, is there once.
    """
    found = {}
    for which, packing in plan.packings.items():
        old, new = func.params[which], plan.func.params[which]
        more = _bytes(new.shape, str(new.dtype)) - _bytes(old.shape, str(old.dtype))
        found.update({(constant, packing): more for constant in arguments.given[which]})
    return found


def _price(func: tirx.PrimFunc, added: Mapping[tuple[int, Packing], int], arguments: _Arguments) -> float:
    """Bytes that packing adds, for an operation of a run in which open sizes are those of an image."""
    return sum(added.values()) / max(1, arguments.count * operations_at(func, TYPICAL_SIDE))


def _bytes(shape: Iterable[Any], dtype: str) -> int:
    return math.prod(int(extent) for extent in shape) * tvm.DataType(dtype).bits // 8


@mutator
class _Retarget(PyExprMutator):
    """Lets every call reach the one function that stands for its equals, with its constants packed."""

    def __init__(
        self,
        mod: tvm.IRModule,
        plans: Mapping[str, Scheduled],
        representatives: Mapping[str, str],
        facts: Mapping[str, Mapping[str, str]],
    ):
        # Packing changes a function's signature, and a GlobalVar keeps the type that it was made with: hence new ones.
        super().__init__(tvm.IRModule({g: f for g, f in mod.functions.items() if not isinstance(f, tirx.PrimFunc)}))
        self._plans, self._representatives = plans, representatives
        self._packed: dict[tuple[tvm.runtime.Tensor, Packing], GenericConst] = {}
        self._gvars = {
            name: self.builder_.add_func(plan.func.with_attrs(facts[name]), name) for name, plan in plans.items()
        }

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        if call.op != _CALL_TIR:
            return super().visit_call_(call)
        name = self._representatives[call.args[0].name_hint]
        args = [self.visit_expr(arg) for arg in call.args[1]]
        for index, packing in self._plans[name].packings.items():
            args[index] = self._pack(args[index], packing)
        return relax.Call(
            call.op, [self._gvars[name], relax.Tuple(args), *call.args[2:]], call.attrs, call.ty_args, call.span
        )

    def _pack(self, constant: GenericConst, packing: Packing) -> GenericConst:
        key = (constant.value, packing)  # tensors compare by identity
        if key not in self._packed:
            source = constants.contents(constant.value)
            self._packed[key] = constants.constant(scratch.stored(packing.pack(source)))
            scratch.done(source)
        return self._packed[key]
