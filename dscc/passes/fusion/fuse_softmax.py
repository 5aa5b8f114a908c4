"""Fuse a softmax that is written out into one operator.

    e = R.exp(R.subtract(x, R.max(x, axis, keepdims=True)))
    R.divide(e, R.sum(e, axis, keepdims=True))               ->  R.nn.softmax(x, axis)

Also without the maximum, which changes only where the exponentials would overflow.
"""

from __future__ import annotations

from typing import Any

from tvm import relax
from tvm.relax.dpl import DFPattern, is_op

from dscc.passes.fusion.rows import row_axes
from dscc.passes.graph import Graph
from dscc.passes.rewrite import RewritePass
from dscc.passes.values import attr


class FuseSoftmax(RewritePass):
    """Maximum, exponentials, sum and quotient in one operator."""

    name = "fuse-softmax"

    def pattern(self, x: Any, top: Any, total: Any) -> DFPattern:
        def quotient(logits: DFPattern) -> DFPattern:
            powers = is_op("relax.exp")(logits)
            return is_op("relax.divide")(powers, total & is_op("relax.sum")(powers))

        return quotient(is_op("relax.subtract")(x, top & is_op("relax.max")(x))) | quotient(x)

    def check(self, x: Any, top: Any, total: Any, graph: Graph) -> str | None:
        for part in (top, total):
            if part is None:
                continue
            call = graph.value(part)
            axes = row_axes(call, x)
            if axes is None or len(axes) != 1 or not attr(call, "keepdims"):
                return f"%{part.name} is not over one axis that it keeps"
        if top is not None and row_axes(graph.value(top), x) != row_axes(graph.value(total), x):
            return f"%{top.name} and %{total.name} are over different axes"
        return None

    def rewrite(self, x: relax.Expr, total: relax.Expr, graph: Graph) -> relax.Expr:
        (axis,) = row_axes(graph.value(total), x) or (-1,)
        return relax.op.nn.softmax(x, axis)
