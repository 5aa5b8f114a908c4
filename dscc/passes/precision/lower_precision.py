"""Products in halves, and what lies between them stored in halves.

    y = R.matmul(x, w)                h = R.matmul(x_half, w_half, out_dtype="float32")
    z = R.nn.gelu(y)           ->     y = R.astype(h, "float16")
                                      z = R.astype(R.nn.gelu(R.astype(y, "float32")), "float16")

Products, convolutions and attention take halves, and sum in float32. What only moves elements moves halves. Elementwise
operators, softmax and normalizations compute in float32, from halves to halves: conversions become part of their
kernels. All others (sums, means, powers, exponentials, whatever computes positions) see the float32 tensors that they
saw before, and so do the caller and branches and loops.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import ml_dtypes
import numpy as np
import tvm
from tvm import relax
from tvm.ir import GenericConst
from tvm.relax.expr_functor import PyExprMutator, mutator

from dscc.passes.base import Pass, PassContext
from dscc.passes.mutate import mutated
from dscc.passes.values import dtype

PRODUCTS = frozenset({"relax.matmul", "relax.nn.conv2d", "relax.nn.attention", "relax.nn.attention_bias"})
MOVES = frozenset(
    f"relax.{name}"
    for name in (
        "reshape permute_dims concat split strided_slice dynamic_strided_slice take expand_dims squeeze broadcast_to "
        "tile repeat flip nn.max_pool1d nn.max_pool2d flatten gather_elements layout_transform nn.relu"
    ).split()
)
FOLLOWERS = frozenset(
    f"relax.{name}"
    for name in (
        "add subtract multiply divide maximum minimum negative abs clip sigmoid tanh erf nn.gelu nn.gelu_tanh nn.silu "
        "nn.leakyrelu nn.prelu nn.softplus nn.softmax nn.layer_norm nn.rms_norm nn.group_norm nn.instance_norm "
        "nn.avg_pool1d nn.avg_pool2d nn.adaptive_avg_pool2d nn.pad where"
    ).split()
)
_TABLE_BYTES = 1 << 20  # from here on a table that is looked up in is stored in halves
_LARGEST = {"float16": 65504.0, "bfloat16": 3.3895313892515355e38}
_TYPES = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}


@dataclass(frozen=True)
class LowerPrecision(Pass):
    """Float32 products become products of halves.

    Attributes:
        to: the type of halves.
    """

    name = "lower-precision"
    stage = "lower"
    tolerance: ClassVar[float] = 2e-2  # of the largest element; halves have 11 or 8 bits

    to: Literal["float16", "bfloat16"] = "float16"

    def run(self, mod: tvm.IRModule, ctx: PassContext) -> tvm.IRModule:
        lowering = _Lowering(mod, self.to)
        lowered = mutated(mod, lowering)
        ctx.remark(f"{self.name}: {lowering.products} products in {self.to}")
        ctx.facts["products_in_halves"] = lowering.products
        return lowered


@mutator
class _Lowering(PyExprMutator):
    def __init__(self, mod: tvm.IRModule, to: str):
        super().__init__(mod)
        self._to, self.products = to, 0

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        value = self.visit_expr(binding.value)
        if not isinstance(binding.var, relax.DataflowVar):  # the caller's, a branch's or a loop's
            value = self._restored(self.builder_.normalize(value), binding.var.ty)
        emit = self.builder_.emit if isinstance(binding.var, relax.DataflowVar) else self._emit_output
        self.set_var_remap(binding.var, emit(value, binding.var.name))

    def _emit_output(self, value: relax.Expr, name: str) -> relax.Var:
        inside = self.builder_.current_block_is_dataflow()
        return self.builder_.emit_output(value, name) if inside else self.builder_.emit(value, name)

    def visit_match_cast_(self, binding: relax.MatchCast) -> None:
        value, ty = self.visit_expr(binding.value), binding.ty
        if isinstance(ty, relax.TensorType) and isinstance(binding.var, relax.DataflowVar):
            ty = relax.TensorType(ty.shape, dtype(value)) if ty.shape is not None else value.ty
        else:
            value = self._restored(value, binding.value.ty)
        self.set_var_remap(binding.var, self.builder_.match_cast(value, ty, binding.var.name))

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        args = [self.visit_expr(arg) for arg in call.args]
        name = call.op.name if isinstance(call.op, tvm.ir.Op) else ""
        if name in PRODUCTS and dtype(call) == "float32":
            self.products += 1
            return self._product(call, name, [self._narrow(arg) for arg in args])
        table = name == "relax.take" and isinstance(args[0], GenericConst) and self._is_large(args[0])
        halves = table or any(map(self._has_halves, args))
        if name in MOVES and halves:
            return relax.Call(call.op, [self._narrow(arg) for arg in args], call.attrs, call.ty_args)
        wide = [self._restored(new, old.ty) for old, new in zip(call.args, args, strict=True)]
        result = relax.Call(call.op, wide, call.attrs, call.ty_args)
        if name in FOLLOWERS and halves and dtype(call) == "float32":
            return relax.op.astype(self.builder_.emit(result), self._to)
        return result

    def _product(self, call: relax.Call, name: str, args: list[relax.Expr]) -> relax.Expr:
        attrs = call.attrs
        if name == "relax.matmul":
            wide = relax.op.matmul(*args, out_dtype="float32")
        elif name == "relax.nn.conv2d":
            layouts = (attrs.data_layout, attrs.kernel_layout, attrs.out_layout)
            geometry = [list(attrs.strides), list(attrs.padding), list(attrs.dilation), int(attrs.groups)]
            wide = relax.op.nn.conv2d(*args, *geometry, *layouts, out_dtype="float32")
        else:
            return relax.Call(call.op, args, attrs, call.ty_args)
        return relax.op.astype(self.builder_.emit(wide), self._to)

    def _is_large(self, table: GenericConst) -> bool:
        return dtype(table) == "float32" and 4 * math.prod(int(n) for n in table.ty.shape.values) >= _TABLE_BYTES

    def _has_halves(self, expr: relax.Expr) -> bool:
        if isinstance(expr, relax.Tuple):
            return any(map(self._has_halves, expr.fields))
        return dtype(expr) == self._to

    def _narrow(self, expr: relax.Expr) -> relax.Expr:
        """Float32 tensors as halves; constants are converted here and now, to finite numbers."""
        if isinstance(expr, relax.Tuple):
            return relax.Tuple([self._narrow(field) for field in expr.fields])
        if dtype(expr) != "float32":
            return expr
        if isinstance(expr, GenericConst):
            most = _LARGEST[self._to]
            values = expr.value.numpy()
            finite = np.where(np.isfinite(values), np.clip(values, -most, most), values)
            return relax.const(finite.astype(_TYPES[self._to]), self._to)
        return self.builder_.emit(relax.op.astype(expr, self._to))

    def _restored(self, expr: relax.Expr, ty: relax.Type) -> relax.Expr:
        """`expr` with the element types that it had."""
        if isinstance(ty, relax.TupleType):
            if not self._differs(expr.ty, ty):
                return expr
            fields = expr.fields if isinstance(expr, relax.Tuple) else None
            if fields is None:
                var = expr if isinstance(expr, relax.Var) else self.builder_.emit(expr)
                fields = [self.builder_.emit(relax.TupleGetItem(var, i)) for i in range(len(ty.fields))]
            return relax.Tuple([self._restored(f, t) for f, t in zip(fields, ty.fields, strict=True)])
        if not self._differs(expr.ty, ty):
            return expr
        var = expr if isinstance(expr, relax.Var | GenericConst) else self.builder_.emit(expr)
        return self.builder_.emit(relax.op.astype(var, "float32"))

    def _differs(self, now: relax.Type, before: relax.Type) -> bool:
        if isinstance(before, relax.TupleType):
            return any(self._differs(a, b) for a, b in zip(now.fields, before.fields, strict=True))
        if not isinstance(before, relax.TensorType) or before.dtype is None:
            return False
        return str(before.dtype) == "float32" and str(now.dtype) == self._to
