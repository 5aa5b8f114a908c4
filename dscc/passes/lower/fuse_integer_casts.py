"""Let a product of integers read its operands as they are stored, and convert them on the way.

    R.matmul(R.subtract(R.astype(q_uint8, "int32"), zero), R.astype(w_int8, "int32"))
    ->  R.call_tir(cls.dot, (q_uint8, w_int8, zero))

The same for R.nn.conv2d over channels-last data. The weight is a constant, which is stored in the narrowest type that
holds it less its zero point. Groups of channels are multiplied in float32 where that is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax, te, tirx
from tvm.relax.expr_functor import mutator

from dscc.passes.base import Pass, PassContext
from dscc.passes.mutate import Rewriter, mutated
from dscc.passes.quantize.operands import LARGEST, Data, Weight, data_of, weight_of
from dscc.passes.values import attr, const, dtype, scalar

# TVM's OpPatternKind of what takes elementwise consumers; its analysis knows products of float loads only.
_PRODUCT = {"op_pattern": 4}
_EXACT = 1 << 24  # up to here float32 holds every integer


@dataclass(frozen=True)
class FuseIntegerCasts(Pass):
    """Conversions of 8-bit operands become part of the product that reads them."""

    name = "fuse-integer-casts"
    stage = "lower"

    def run(self, mod: tvm.IRModule, ctx: PassContext) -> tvm.IRModule:
        return relax.transform.DeadCodeElimination()(mutated(mod, _Fuser(mod, ctx)))


@mutator
class _Fuser(Rewriter):
    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = super().visit_call_(call)
        name = getattr(call.op, "name", "")
        if name not in ("relax.matmul", "relax.nn.conv2d") or {dtype(arg) for arg in call.args} != {"int32"}:
            return call
        if name == "relax.matmul" and (call.args[1].ty.ndim != 2 or call.args[0].ty.ndim < 2):
            return call
        if name == "relax.nn.conv2d" and (attr(call, "data_layout"), attr(call, "kernel_layout")) != ("NHWC", "OHWI"):
            return call
        weight = weight_of(call.args[1], self._bound)
        data = None if weight is None else data_of(call.args[0], self._bound)
        if weight is None or data is None or weight.scale is not None or data.scale is not None:
            return call
        columns = weight.values.shape[1 if name == "relax.matmul" else 0]
        reason = weight.refusal(columns)
        if reason is not None:
            self._ctx.remark(f"fuse-integer-casts: refused at a product of {call.args[1].ty}: {reason}")
            return call
        if name == "relax.nn.conv2d" and int(call.attrs.groups) != 1:
            exact = weight.terms(columns) * LARGEST * weight.largest <= _EXACT
            return self._in_float(call, weight) if exact else call
        self._ctx.remark(f"fuse-integer-casts: applied at a product of {data.stored.ty} and {call.args[1].ty}")
        return self._dot(call, data, weight)

    def _dot(self, call: relax.Call, data: Data, weight: Weight) -> relax.Expr:
        stored = data.moved(self.builder_.emit)
        zero = [] if data.zero is None or scalar(data.zero) == 0 else [self._zero(data.zero)]
        narrow, machine = weight.narrowed(), self._ctx.target.machine
        if call.op.name == "relax.nn.conv2d":
            if machine.makes_blocks and dtype(narrow) == "int8":
                return self._conv_of_bytes(call, stored, weight, zero)
            return self.builder_.call_te(
                _convolution(call), stored, narrow, *zero, primfunc_name_hint="conv2d_dot", primfunc_attrs=_PRODUCT
            )
        # Instructions that multiply bytes leave it to us to take out a zero point of the weight, and are worth it.
        wide = dtype(narrow) != "int8" and machine.multiplies_bytes
        as_bytes = weight.as_bytes() if wide else None
        right = [narrow] if as_bytes is None else list(as_bytes)
        compute = _matmul(has_zero=bool(zero), weight_has_zero=as_bytes is not None)
        return self.builder_.call_te(compute, stored, *right, *zero, primfunc_name_hint="dot", primfunc_attrs=_PRODUCT)

    def _conv_of_bytes(
        self, call: relax.Call, stored: relax.Expr, weight: Weight, zero: list[relax.Expr]
    ) -> relax.Expr:
        """For instructions that make blocks of the result, and read bytes only: the convolution of the data with its
        zero point around it, less the zero point times the sums of the weights.
        """
        emit = self.builder_.emit
        around = emit(self.builder_.call_te(_around(call), stored, *zero, primfunc_name_hint="pad_bytes"))
        product = self.builder_.call_te(
            _convolution(call, is_padded=True),
            around,
            weight.narrowed(),
            primfunc_name_hint="conv2d_dot",
            primfunc_attrs=_PRODUCT,
        )
        if not zero:
            return product
        sums = const(weight.values.sum(axis=(1, 2, 3)), "int32")
        return relax.op.subtract(emit(product), emit(relax.op.multiply(zero[0], sums)))

    def _zero(self, zero: relax.Expr) -> relax.Expr:
        """The zero point as one int32 of rank 0."""
        known = scalar(zero)
        if known is not None:
            return const(np.array(known, "int32"))
        if zero.ty.ndim:
            zero = self.builder_.emit(relax.op.reshape(zero, ()))
        return zero if dtype(zero) == "int32" else self.builder_.emit(relax.op.astype(zero, "int32"))

    def _in_float(self, call: relax.Call, weight: Weight) -> relax.Expr:
        real = self.builder_.emit(relax.op.astype(call.args[0], "float32"))
        product = relax.Call(call.op, [real, const(weight.values, "float32")], call.attrs, call.ty_args)
        return relax.op.astype(self.builder_.emit(product), "int32")


def _centred(data: te.Tensor, zero: tuple[te.Tensor, ...], at: tuple[tirx.PrimExpr, ...]) -> tirx.PrimExpr:
    value = data(*at).astype("int32")
    return value - zero[0]() if zero else value


def _matmul(has_zero: bool, weight_has_zero: bool) -> Callable[..., te.Tensor]:
    """Of data (.., K), weight (K, N), and the zero points that there are: of the weight, then of the data."""

    def compute(data: te.Tensor, weight: te.Tensor, *zeros: te.Tensor) -> te.Tensor:
        k = te.reduce_axis((0, weight.shape[0]), name="k")
        of_weight, of_data = zeros[:weight_has_zero], zeros[weight_has_zero:][:has_zero]

        def element(*at: tirx.Var) -> tirx.PrimExpr:
            *rows, column = at
            factors = _centred(data, of_data, (*rows, k)), _centred(weight, of_weight, (k, column))
            return te.sum(factors[0] * factors[1], axis=k)

        return te.compute((*data.shape[:-1], weight.shape[1]), element, name="dot")

    return compute


def _around(call: relax.Call) -> Callable[..., te.Tensor]:
    """Data (N, H, W, C) with the padding of `call` around it, which is the zero point."""
    top, left, bottom, right = attr(call, "padding")

    def compute(data: te.Tensor, *zero: te.Tensor) -> te.Tensor:
        images, height, width, channels = data.shape
        outside = zero[0]().astype(data.dtype) if zero else tirx.const(0, data.dtype)

        def element(n: tirx.Var, y: tirx.Var, x: tirx.Var, c: tirx.Var) -> tirx.PrimExpr:
            within = tirx.all(y >= top, y < height + top, x >= left, x < width + left)
            return tirx.if_then_else(within, data(n, y - top, x - left, c), outside)

        return te.compute((images, height + top + bottom, width + left + right, channels), element, name="pad")

    return compute


def _convolution(call: relax.Call, is_padded: bool = False) -> Callable[..., te.Tensor]:
    """Of data (N, H, W, C), weight (O, H, W, C) and perhaps a zero point, with the window of `call`."""
    top, left, bottom, right = (0, 0, 0, 0) if is_padded else attr(call, "padding")
    (down, along), (tall, wide) = attr(call, "strides"), attr(call, "dilation")

    def compute(data: te.Tensor, weight: te.Tensor, *zero: te.Tensor) -> te.Tensor:
        images, height, width, channels = data.shape
        _, rows, columns, _ = weight.shape

        def inside(n: tirx.Var, y: tirx.Var, x: tirx.Var, c: tirx.Var) -> tirx.PrimExpr:
            value = _centred(data, zero, (n, y - top, x - left, c))
            if not (top or left or bottom or right):
                return value
            within = tirx.all(y >= top, y < height + top, x >= left, x < width + left)
            return tirx.if_then_else(within, value, tirx.const(0, "int32"))

        shape = (images, height + top + bottom, width + left + right, channels)
        padded = data if is_padded else te.compute(shape, inside, name="pad")
        ry, rx = te.reduce_axis((0, rows), name="ry"), te.reduce_axis((0, columns), name="rx")
        rc = te.reduce_axis((0, channels), name="rc")
        return te.compute(
            tuple(call.ty.shape.values),  # as Relax writes the sizes: FuseTIR of TVM 0.27 asks for the same expression
            lambda n, y, x, f: te.sum(
                padded[n, y * down + ry * tall, x * along + rx * wide, rc].astype("int32")
                * weight[f, ry, rx, rc].astype("int32"),
                axis=[ry, rx, rc],
            ),
            name="conv2d_dot",
        )

    return compute
