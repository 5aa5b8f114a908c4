"""Fuse layer normalisation as exporters write it into one operator.

    d = R.subtract(x, R.mean(x))
    R.divide(d, R.sqrt(R.add(R.mean(R.multiply(d, d)), eps)))    ->  R.nn.layer_norm(x, ones, zeros)
    R.multiply(R.nn.layer_norm(x, ones, zeros), gamma)           ->  R.nn.layer_norm(x, gamma, zeros)
    R.add(R.nn.layer_norm(x, gamma, zeros), beta)                ->  R.nn.layer_norm(x, gamma, beta)

The square may be a power, and the quotient a product with `R.rsqrt` (Ba, Kiros and Hinton 2016, arXiv:1607.06450).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax
from tvm.relax.dpl import DFPattern, is_op

from dscc.passes.fusion.rows import affine_parameter, is_filled, row_axes
from dscc.passes.graph import Graph
from dscc.passes.rewrite import RewritePass
from dscc.passes.values import attr, const, describe, dims, dtype, is_scalar, scalar


class FuseLayerNorm(RewritePass):
    """Mean, variance, quotient, factor and offset in one operator."""

    name = "fuse-layer-norm"

    def pattern(
        self, x: Any, mean: Any, variance: Any, two: Any, epsilon: Any, norm: Any, gamma: Any, beta: Any, parameter: Any
    ) -> DFPattern:
        centred = is_op("relax.subtract")(x, mean & is_op("relax.mean")(x))
        square = (
            is_op("relax.power")(centred, two)
            | is_op("relax.multiply")(centred, centred)
            | is_op("relax.square")(centred)
        )
        spread = is_op("relax.add")(variance & is_op("relax.mean")(square), epsilon)
        normal = is_op("relax.divide")(centred, is_op("relax.sqrt")(spread)) | is_op("relax.multiply")(
            centred, is_op("relax.rsqrt")(spread)
        )
        fused = norm & is_op("relax.nn.layer_norm")(x, gamma, beta)
        return normal | is_op("relax.multiply")(fused, parameter) | is_op("relax.add")(fused, parameter)

    def check(
        self,
        x: Any,
        mean: Any,
        variance: Any,
        two: Any,
        epsilon: Any,
        norm: Any,
        gamma: Any,
        beta: Any,
        parameter: Any,
        root: Any,
        graph: Graph,
    ) -> str | None:
        if norm is not None:
            if not is_filled(beta, 0) or (graph.value(root).op.name == "relax.multiply" and not is_filled(gamma, 1)):
                return f"{describe(norm)} has its factor and offset already"
            axes = row_axes(graph.value(norm), x)
            shape = affine_parameter(parameter, x, axes)
            return (
                None if shape is not None else f"{describe(parameter)} does not have the shape of the normalised axes"
            )
        if two is not None and not is_scalar(two, 2):
            return f"expected the power 2, found {describe(two)}"
        if dtype(x) not in ("float32", "float16"):
            return f"the values are of type {dtype(x)}, which the operator does not take"
        if scalar(epsilon) is None:
            return f"epsilon is no constant number but {describe(epsilon)}"
        axes = row_axes(graph.value(mean), x)
        if axes is None or axes != row_axes(graph.value(variance), x):
            return "mean and variance are not over the same axes"
        if not attr(graph.value(mean), "keepdims") or not attr(graph.value(variance), "keepdims"):
            return "the mean drops the axes that it is over"
        if any(not isinstance((dims(x) or ())[axis], int) for axis in axes):
            return "the size of a normalised axis is not known while compiling"
        return None

    def rewrite(
        self, x: Any, mean: Any, epsilon: Any, norm: Any, gamma: Any, beta: Any, parameter: Any, root: Any, graph: Graph
    ) -> relax.Expr:
        if norm is None:
            axes = row_axes(graph.value(mean), x) or ()
            shape = [(dims(x) or ())[axis] for axis in axes]
            ones, zeros = np.ones(shape), np.zeros(shape)
            return relax.op.nn.layer_norm(x, const(ones, dtype(x)), const(zeros, dtype(x)), list(axes), scalar(epsilon))
        call = graph.value(norm)
        fitted = affine_parameter(parameter, x, row_axes(call, x))
        if graph.value(root).op.name == "relax.multiply":
            gamma = fitted
        else:
            beta = fitted
        return relax.Call(call.op, [x, gamma, beta], call.attrs)
