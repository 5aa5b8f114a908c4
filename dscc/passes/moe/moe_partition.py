"""Split mixtures of experts among devices: each has some of the experts, and adds what they make of every token.

    R.call_tir(experts, (x, ids, shares, w1, w2))
    ->  R.add(R.call_tir(experts_0, (x, ids, shares, w1[:4], w2[:4])), R.call_tir(experts_1, .. [4:] ..))
    ->  R.ccl.allreduce(R.call_tir(experts_1, (x, ids, shares, w1[4:], w2[4:])), "sum")           for device 1

Without `device` the module has the parts of all devices. With it the module is that of one device, with its experts'
weights only; the devices run theirs side by side, in TVM's disco sessions. All but the experts is the same in each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import tvm
from tvm import relax
from tvm.relax import op as R

from dscc.errors import PipelineError
from dscc.passes.base import Pass, PassContext
from dscc.passes.graph import Graph, Node, edit_functions
from dscc.passes.values import const, constant
from dscc.schedule.experts.define import define
from dscc.schedule.experts.facts import mixture_of
from dscc.schedule.experts.mixture import Mixture

_CALL_TIR = tvm.ir.Op.get("relax.call_tir")
_TOKENS = ("x", "ids", "shares")  # operands that all devices have; the others begin with the axis of the experts


@dataclass(frozen=True)
class MoePartition(Pass):
    """Every device holds an even share of a mixture's experts.

    Attributes:
        devices: among how many.
        device: which of them the module is for, from 0 on; -1: all in one module.
    """

    name = "moe-partition"

    devices: int = 2
    device: int = -1

    def __post_init__(self) -> None:
        if self.devices < 1:
            raise PipelineError(f"devices must be 1 or more, got {self.devices}")
        if not -1 <= self.device < self.devices:
            raise PipelineError(f"device must be -1 or one of 0 to {self.devices - 1}, got {self.device}")

    def run(self, mod: tvm.IRModule, ctx: PassContext) -> tvm.IRModule:
        builder = relax.BlockBuilder(mod)

        def edit(graph: Graph) -> None:
            for node in graph.all():
                value = node.value
                mixture = mixture_of(mod[value.args[0]]) if _is_kernel(value) else None
                if mixture is None:
                    continue
                if why := self._refused(mixture):
                    ctx.remark(f"{self.name}: refused at {node}: {why}")
                    continue
                graph.replace(node, self._split(graph, node, mixture, builder))
                ctx.remark(f"{self.name}: applied at {node}")

        return edit_functions(mod, edit, builder)

    def _refused(self, mixture: Mixture) -> str:
        if mixture.begin or mixture.after:
            return "it is a part of a mixture already"
        if mixture.experts < self.devices:
            return f"{mixture.experts} experts are too few for {self.devices} devices"
        return ""

    def _shares(self, experts: int) -> Iterator[tuple[int, int]]:
        """The first expert of every device that is asked for, and the first of the next one."""
        for device in range(self.devices) if self.device < 0 else [self.device]:
            yield experts * device // self.devices, experts * (device + 1) // self.devices

    def _split(self, graph: Graph, node: Node, mixture: Mixture, builder: relax.BlockBuilder) -> relax.Expr:
        call = node.value
        total: relax.Expr | None = None
        for begin, end in self._shares(mixture.experts):
            part = replace(mixture, experts=end - begin, begin=begin, after=mixture.experts - end)
            function = builder.add_func(define(part), "experts")
            args = [
                arg if name in _TOKENS else _slice(graph, node, arg, begin, end)
                for name, arg in zip(mixture.operands, call.args[1].fields, strict=True)
            ]
            made = graph.emit(node, relax.call_tir(function, relax.Tuple(args), node.var.ty))
            total = made if total is None else graph.emit(node, R.add(total, made))
        assert total is not None  # there is at least one device
        return total if self.device < 0 else R.ccl.allreduce(total, "sum")


def _is_kernel(value: relax.Expr) -> bool:
    return isinstance(value, relax.Call) and value.op == _CALL_TIR


def _slice(graph: Graph, node: Node, arg: relax.Expr, begin: int, end: int) -> relax.Expr:
    """The experts from `begin` to before `end` of a weight."""
    content = constant(arg)
    if content is not None:
        return const(content[begin:end])
    return graph.emit(node, R.strided_slice(arg, axes=[0], begin=[begin], end=[end]))
