"""Let a convolution or pool do the padding in front of it.

    R.nn.conv2d(R.nn.pad(x, zeros), w)      ->  R.nn.conv2d(x, w, padding=...)
    R.nn.max_pool2d(R.nn.pad(x, -inf))      ->  R.nn.max_pool2d(x, padding=...)

Only if it pads with the value that the consumer takes for what lies outside.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from tvm import relax

from dscc.passes.base import Pass, PassContext
from dscc.passes.graph import Graph, Node, edit_functions
from dscc.passes.values import attr, dtype, with_attrs

CONVOLUTIONS = {"relax.nn.conv1d": "data_layout", "relax.nn.conv2d": "data_layout", "relax.nn.conv3d": "data_layout"}
POOLS = {f"relax.nn.{kind}_pool{d}d": "layout" for kind in ("max", "avg") for d in (1, 2, 3)}


@dataclass(frozen=True)
class FoldPadding(Pass):
    """A padding by the value that the consumer pads with anyway is added to the consumer's own."""

    name = "fold-padding"

    def run(self, mod: tvm.IRModule, ctx: PassContext) -> tvm.IRModule:
        def edit(graph: Graph) -> None:
            for node in graph:
                layout = CONVOLUTIONS.get(node.op) or POOLS.get(node.op)
                pad = graph.node(node.value.args[0]) if layout else None
                if layout is None or pad is None or pad.op != "relax.nn.pad":
                    continue
                reason = _reason(node, pad)
                widths = _spatial(pad, attr(node.value, layout))
                if reason is None and widths is None:
                    reason = "it pads batch or channels, too"
                if reason is not None or widths is None:
                    ctx.remark(f"{self.name}: refused at {node}: {pad}: {reason}")
                    continue
                ctx.remark(f"{self.name}: applied at {node}")
                padding = [a + b for a, b in zip(attr(node.value, "padding"), widths, strict=True)]
                changed: dict[str, Any] = {"padding": padding}
                if node.op.startswith("relax.nn.avg"):
                    changed["count_include_pad"] = True
                args = [pad.value.args[0], *list(node.value.args)[1:]]
                graph.replace(node, relax.Call(node.value.op, args, with_attrs(node.value, changed)))

        return edit_functions(mod, edit)


def _reason(node: Node, pad: Node) -> str | None:
    if attr(pad.value, "pad_mode") != "constant":
        return f"its mode is '{attr(pad.value, 'pad_mode')}'"
    value = float(attr(pad.value, "pad_value"))
    if node.op.startswith("relax.nn.max"):
        lowest = float(np.finfo(dtype(node.var)).min) if dtype(node.var).startswith("float") else -np.inf
        return None if value <= lowest else f"it pads with {value:g}, a maximum with the lowest number"
    if value != 0:
        return f"it pads with {value:g}, not 0"
    if node.op.startswith("relax.nn.avg"):
        if any(attr(node.value, "padding")) and not attr(node.value, "count_include_pad"):
            return "the average leaves its own padding out, but not this one"
        if attr(node.value, "ceil_mode"):
            return "the average rounds its size up"
    return None


def _spatial(pad: Node, layout: str) -> list[int] | None:
    """The widths as convolutions write them, all befores and then all afters; None if something else is padded."""
    widths = attr(pad.value, "pad_width")
    pairs = [(widths[2 * i], widths[2 * i + 1]) for i in range(len(layout))]
    if any(any(pair) for pair, letter in zip(pairs, layout, strict=True) if letter in "NC"):
        return None
    inner = [pair for pair, letter in zip(pairs, layout, strict=True) if letter not in "NC"]
    befores, afters = [p[0] for p in inner], [p[1] for p in inner]
    return [*befores, *afters] if all(isinstance(w, int) and w >= 0 for w in befores + afters) else None
