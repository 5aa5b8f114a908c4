"""Multiply dequantized values as the small integers that they were.

    R.matmul(R.multiply(R.astype(R.subtract(R.astype(q_uint8), zero)), scale), R.multiply(R.astype(w_int8), scale_w))
    ->  R.multiply(R.astype(R.matmul(R.subtract(R.astype(q_uint8), zero), R.astype(w_int8))), scale * scale_w)

The same for convolutions. The sums in int32 are exact; the scales, one for the data and one for the weight or for every
column of the result, are applied once (Jacob et al. 2018, arXiv:1712.05877, section 2.2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax

from dscc.passes.base import Pass, PassContext
from dscc.passes.graph import Graph, Node, edit_functions
from dscc.passes.quantize.operands import Data, Weight, data_of, weight_of
from dscc.passes.values import attr, const, dtype, rank, scalar

_CONVOLUTIONS = {"relax.nn.conv1d": "OIW", "relax.nn.conv2d": "OIHW", "relax.nn.conv3d": "OIDHW"}


@dataclass(frozen=True)
class IntegerProducts(Pass):
    """Products of dequantized values become integer ones."""

    name = "integer-products"

    def run(self, mod: tvm.IRModule, ctx: PassContext) -> tvm.IRModule:
        def edit(graph: Graph) -> None:
            for node in graph:
                column = _column_axis(node)
                if column is not None:
                    self._rewrite(node, column, graph, ctx)

        return edit_functions(mod, edit)

    def _rewrite(self, node: Node, column: int, graph: Graph, ctx: PassContext) -> None:
        left, right = node.value.args
        weight = weight_of(right, graph.value)
        data = None if weight is None else data_of(left, graph.value)
        if weight is None or data is None or (data.scale is None and weight.scale is None and data.zero is None):
            return
        scale = weight.column_scale(column)
        reason = weight.refusal(weight.values.shape[column])
        if scale is None:
            reason = reason or "the weight's scale has to be one number per column"
        if reason is not None or scale is None:
            ctx.remark(f"{self.name}: refused at {node}: {reason}")
            return
        sums = self._sums(node, data, weight, graph)
        ctx.remark(f"{self.name}: applied at {node}")
        graph.replace(node, self._scaled(node, sums, data.scale, scale, column, graph))

    def _sums(self, node: Node, data: Data, weight: Weight, graph: Graph) -> relax.Expr:
        """The product in int32."""

        def emit(value: relax.Expr) -> relax.Expr:
            return graph.emit(node, value)

        left = emit(relax.op.astype(data.moved(emit), "int32"))
        if data.zero is not None:
            left = emit(relax.op.subtract(left, emit(relax.op.astype(data.zero, "int32"))))
        right = emit(relax.op.astype(weight.narrowed(), "int32"))
        call = node.value
        if node.op == "relax.matmul":
            return emit(relax.op.matmul(left, right))
        return emit(relax.Call(call.op, [left, right], call.attrs, call.ty_args))

    def _scaled(
        self, node: Node, sums: relax.Expr, scale: relax.Expr | None, columns: np.ndarray, axis: int, graph: Graph
    ) -> relax.Expr:
        """The sums as float32, times the scales."""
        real = graph.emit(node, relax.op.astype(sums, "float32"))
        known = None if scale is None else scalar(scale)
        if known is not None:
            columns = columns * known
        elif scale is not None:
            one = graph.emit(node, relax.op.reshape(scale, ()))
            real = graph.emit(node, relax.op.multiply(real, one))
        if columns.size == 1:
            return relax.op.multiply(real, const(columns.reshape(()), "float32"))
        # The columns of a matrix product are its last axis, the channels of a convolution the second.
        behind = 0 if axis else rank(node.var) - 2  # type: ignore[operator]
        return relax.op.multiply(real, const(columns.reshape(-1, *[1] * behind), "float32"))


def _column_axis(node: Node) -> int | None:
    """The axis of the weight that makes the columns of the result; None if the node is no product of real numbers."""
    call = node.value
    if node.op not in ("relax.matmul", *_CONVOLUTIONS) or {dtype(arg) for arg in call.args} != {"float32"}:
        return None
    if node.op == "relax.matmul":
        return 1 if rank(call.args[1]) == 2 and (rank(call.args[0]) or 0) >= 2 else None
    usual = attr(call, "kernel_layout") == _CONVOLUTIONS[node.op] and int(call.attrs.groups) == 1
    return 0 if usual else None
