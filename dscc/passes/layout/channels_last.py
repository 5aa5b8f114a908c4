"""Channels last for the whole graph.

    conv = R.nn.conv2d(x, w)      ->  x1 = R.permute_dims(x, axes=[0, 2, 3, 1])
    out = R.nn.relu(conv)             conv = R.nn.conv2d(x1, w1, data_layout="NHWC", kernel_layout="OHWI",
    out_layout="NHWC")
                                      relu = R.nn.relu(conv)
                                      out = R.permute_dims(relu, axes=[0, 3, 1, 2])

One walk from the inputs to the outputs keeps for every value the orders of dimensions in which it is at hand
(forms.py). Convolutions, pools and resizing ask for channels last (windows.py); elementwise operators, reductions,
concatenations and the like take their operands in the order that moves the fewest bytes (operators.py); reshapes go
through where the dimensions that they join lie side by side (regroup.py). All others get their operands as they were.
Weights are laid out while compiling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import tvm
from tvm import relax

from dscc.passes.base import Pass, PassContext
from dscc.passes.graph import Graph, Node, edit_functions, used_vars
from dscc.passes.layout.forms import Forms, identity
from dscc.passes.layout.operators import HANDLERS, match_cast
from dscc.passes.values import rank


@dataclass(frozen=True)
class ChannelsLast(Pass):
    """Convolutional networks in NHWC, with transpositions only where a value enters or leaves that world."""

    name = "channels-last"
    stage: ClassVar[str] = "layout"

    def run(self, mod: tvm.IRModule, ctx: PassContext) -> tvm.IRModule:
        def edit(graph: Graph) -> None:
            before = _transpositions(graph)
            forms = Forms(graph)
            for node in graph:
                forms.learn(node)
                _visit(node, forms)
            for node in reversed(graph.all()):
                graph.drop_if_dead(node)
                if forms.is_moved(node.var):
                    graph.remove_cast(node)
            after = _transpositions(graph)
            if graph.changed:
                ctx.remark(f"{self.name}: {before} transpositions before, {after} after")

        return edit_functions(mod, edit)


def _visit(node: Node, forms: Forms) -> None:
    handler = match_cast if node.cast is not None else HANDLERS.get(node.op)
    if not (handler is not None and handler(node, forms)):
        for var in used_vars(node.value):
            if forms.is_moved(var):
                forms.get(var, identity(rank(var) or 0), node)
    elif forms.graph.is_result(node):
        forms.get(node.var, identity(rank(node.var) or 0), node)


def _transpositions(graph: Graph) -> int:
    return sum(isinstance(node.value, relax.Call) and node.op == "relax.permute_dims" for node in graph.all())
