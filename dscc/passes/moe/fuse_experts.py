"""Put one operator in the place of a mixture of experts, in any of the forms that exporters write.

    ids, shares = R.topk(..)                         the router stays as it is, with softmax or sigmoid or groups
    sorted by expert, a product for every segment    -> \\
    matrices looked up for every token               ->  R.call_tir(experts, (x, ids, shares, w1, w2, ..))
    the tokens of every expert, added up in a loop   -> /
    all experts for all tokens, times mostly zeros   -> /

What counts is how values flow: every value is followed as rows of slots, of one expert or of all, with a formula for
its elements (trace.py, rules/); the sum over the choices of a token is where a mixture is complete. The operator
reads the weights of the chosen experts only; see dscc/schedule/experts/mixture.py. Weights of 16 bits, and integers
of 8 bits or less with scales, stay as they are kept (weights.py, stored.py), and are expanded in registers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import tvm
import tvm_ffi
from tvm import relax
from tvm.ir import Var

from dscc.errors import PipelineError
from dscc.passes.base import Pass, PassContext
from dscc.passes.graph import Graph, Node, edit_functions, used_vars
from dscc.passes.moe.build import Refused, build, emit
from dscc.passes.moe.rules import RULES
from dscc.passes.moe.trace import Trace
from dscc.passes.moe.weights import Weights
from dscc.schedule.experts.define import define
from dscc.schedule.rules.experts import Experts
from dscc.targets.device import DeviceTarget

_MOST_EXPERTS = 4096  # a choice among more is about something else


@dataclass(frozen=True)
class FuseExperts(Pass):
    """One operator for a router's choice of experts, their products and the weighted sum.

    Attributes:
        capacity: the slots that an expert takes, as a multiple of an even share; what comes later counts for nothing.
            0 takes all, which is exact.
    """

    name = "fuse-experts"

    capacity: float = 0.0

    def __post_init__(self) -> None:
        if self.capacity < 0:
            raise PipelineError(f"capacity must be 0 or more, got {self.capacity:g}")

    def run(self, mod: tvm.IRModule, ctx: PassContext) -> tvm.IRModule:
        builder = relax.BlockBuilder(mod)
        elsewhere = isinstance(ctx.target, DeviceTarget) and not any(isinstance(r, Experts) for r in ctx.target.rules)

        def edit(graph: Graph) -> None:
            found = Trace(graph, mod, RULES)
            found.run()
            for mixed in found.mixed:
                try:
                    if elsewhere:
                        raise Refused(f"target '{ctx.target.name}' has no rule for it, and would run it on the host")
                    experts = build(mixed, found.leaves, Weights(graph, mod, products=True))
                except Refused as why:
                    ctx.remark(f"{self.name}: refused at {mixed.node}: {why}")
                    continue
                mixture = replace(experts.mixture, capacity=self.capacity or None)
                function = builder.add_func(define(mixture), "experts")
                graph.replace(mixed.node, emit(graph, mixed, experts, function, mixture))
                ctx.remark(f"{self.name}: applied at {mixed.node}")
            self._say_what_was_lost(found, ctx)
            if graph.changed:
                _drop_checks(graph, found)

        return edit_functions(mod, edit, builder)

    def _say_what_was_lost(self, found: Trace, ctx: PassContext) -> None:
        """Where a value that had been through an expert's product was read by something not known here; or else, of a
        choice that leads to no mixture, where it was read last.
        """
        done = {mixed.routing for mixed in found.mixed}
        for node, value in found.lost:
            routing = value.routing
            if found.has_product(value) and routing is not None and routing not in done:
                done.add(routing)
                ctx.remark(
                    f"{self.name}: refused at {node}: it is not known how this continues the experts of {routing.ids}"
                )
        inner = _leads_to(found.graph, [routing.ids for routing in found.routings])
        last = {routing: node for node, value in found.lost if (routing := value.routing) is not None}
        for routing in found.routings:
            where = last.get(routing) or found.graph.node(routing.ids)
            if routing in done or routing.ids in inner or routing.experts > _MOST_EXPERTS:
                continue
            if found.graph.users(routing.ids):
                ctx.remark(f"{self.name}: refused at {where}: it is not known what becomes of the choice {routing.ids}")


def _leads_to(graph: Graph, results: Sequence[relax.Var]) -> set[relax.Var]:
    """The variables that any of `results` are computed from without a product, other than themselves."""
    found: set[relax.Var] = set()
    waiting = list(results)
    while waiting:
        node = graph.node(waiting.pop())
        read = used_vars(node.value) if node is not None and node.op != "relax.matmul" else []
        waiting += [var for var in read if var not in found]
        found.update(read)
    return found


def _drop_checks(graph: Graph, found: Trace) -> None:
    """Remove the computed lengths, and what was stated about them, of values that are not computed any more."""
    ours = [node for node in graph.all() if node.cast is not None and _is_ours(node, found)]
    while True:
        read: set[Var] = set()
        for node in graph.all():
            if node not in ours:
                read |= _symbols(node.var.ty) | _symbols(node.value)
        dead = [node for node in ours if not graph.users(node.var) and not graph.is_result(node)]
        dead = [node for node in dead if not _symbols(node.cast) & read - _known(graph)]
        if not dead:
            return
        for node in dead:
            ours.remove(node)
            graph.remove_cast(node)


def _is_ours(node: Node, found: Trace) -> bool:
    return node.var in found.values or bool(_symbols(node.cast) & found.lengths.keys())


def _known(graph: Graph) -> set[Var]:
    """The symbols that the function's parameters define."""
    return {var for param in graph.func.params for var in _symbols(param.ty)}


def _symbols(part: object) -> set[Var]:
    found: set[Var] = set()

    def visit(var: Var) -> None:
        if not isinstance(var.ty, relax.TensorType | relax.ShapeType | relax.TupleType):
            found.add(var)

    tvm_ffi.structural_walk(part, (Var, visit))
    return found
