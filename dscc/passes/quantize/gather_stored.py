"""Look up the rows of a quantized table as they are stored, and expand only those.

    R.take(R.multiply(R.astype(table_int8), scale), ids)  ->  R.multiply(R.astype(R.take(table_int8, ids)), scale)

An embedding table of 30,000 rows is read for a hundred of them; expanding it first costs more than the network behind.
"""

from __future__ import annotations

from tvm import relax
from tvm.ir import GenericConst
from tvm.relax.dpl import DFPattern, is_op

from dscc.passes.graph import Graph
from dscc.passes.rewrite import RewritePass


class GatherStored(RewritePass):
    """Gathering goes before the conversion of a table with one scale, or with one per row."""

    name = "gather-stored"

    def pattern(self, table: DFPattern, scale: DFPattern, ids: DFPattern) -> DFPattern:
        return is_op("relax.take")(is_op("relax.multiply")(is_op("relax.astype")(table), scale), ids)

    def check(self, table: relax.Expr, scale: relax.Expr, root: relax.Var, graph: Graph) -> str | None:
        if not isinstance(table, GenericConst) or not isinstance(scale, GenericConst):
            return "the table and its scale have to be constants"
        rows, shape = int(table.ty.shape[0]), [int(dim) for dim in scale.ty.shape]
        per_row = shape == [rows] + [1] * (table.ty.ndim - 1) and int(graph.value(root).attrs.axis or 0) == 0
        if any(dim != 1 for dim in shape) and not per_row:
            return f"the scale has to be one number or one per row that is gathered, got shape {shape}"
        return None

    def rewrite(
        self, table: relax.Expr, scale: relax.Expr, ids: relax.Expr, root: relax.Var, graph: Graph
    ) -> relax.Expr:
        attrs = graph.value(root).attrs
        rows = relax.op.take(table, ids, axis=attrs.axis, mode=attrs.mode)
        numbers = scale.value.numpy()
        dtype = str(scale.ty.dtype)
        if numbers.size == 1:
            return relax.op.multiply(relax.op.astype(rows, dtype), relax.const(numbers.reshape(()), dtype))
        return relax.op.multiply(relax.op.astype(rows, dtype), relax.op.take(scale, ids, axis=0, mode=attrs.mode))
