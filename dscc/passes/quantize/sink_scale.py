"""Take the scale of a quantized weight behind the product that reads it.

    R.matmul(x, R.multiply(R.astype(w_int8), scale))  ->  R.multiply(R.matmul(x, R.astype(w_int8)), scale)

For a scale of one number, or of one per column: it is then applied to the result once, in the product's epilogue,
instead of to every element of the weight (Jacob et al. 2018, arXiv:1712.05877, section 2.2).
"""

from __future__ import annotations

from tvm import relax
from tvm.ir import GenericConst
from tvm.relax.dpl import DFPattern, is_op

from dscc.passes.rewrite import RewritePass


class SinkScale(RewritePass):
    """Scales of weights become scales of results."""

    name = "sink-scale"

    def pattern(self, x: DFPattern, weight: DFPattern, scale: DFPattern) -> DFPattern:
        return is_op("relax.matmul")(x, is_op("relax.multiply")(is_op("relax.astype")(weight), scale))

    def check(self, weight: relax.Expr, scale: relax.Expr) -> str | None:
        if not isinstance(weight, GenericConst) or not isinstance(scale, GenericConst):
            return "the weight and its scale have to be constants"
        if weight.ty.ndim != 2:
            return f"the weight has to be a matrix, got {weight.ty}"
        shape = [int(dim) for dim in scale.ty.shape]
        if any(dim != 1 for dim in shape[:-1]) or (shape and shape[-1] not in (1, int(weight.ty.shape[1]))):
            return f"the scale has to be one number or one per column, got shape {shape}"
        return None

    def rewrite(self, x: relax.Expr, weight: relax.Expr, scale: relax.Expr) -> relax.Expr:
        product = relax.op.matmul(x, relax.op.astype(weight, str(scale.ty.dtype)))
        return relax.op.multiply(product, relax.const(scale.value.numpy().reshape(-1), str(scale.ty.dtype)))
