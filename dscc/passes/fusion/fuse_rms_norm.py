"""Fuse root-mean-square normalisation as exporters write it into one operator.

    R.multiply(x, R.rsqrt(R.add(R.mean(R.multiply(x, x)), eps)))  ->  R.nn.rms_norm(x, ones)
    R.multiply(R.nn.rms_norm(x, ones), gamma)                     ->  R.nn.rms_norm(x, gamma)

The square may be a power, and the product a quotient by `R.sqrt` (Zhang and Sennrich 2019, arXiv:1910.07467).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax
from tvm.relax.dpl import DFPattern, is_op

from dscc.passes.fusion.rows import affine_parameter, is_filled, row_axes
from dscc.passes.graph import Graph
from dscc.passes.rewrite import RewritePass
from dscc.passes.values import attr, const, describe, dims, dtype, is_scalar, rank, scalar


class FuseRmsNorm(RewritePass):
    """Mean square, quotient and factor in one operator."""

    name = "fuse-rms-norm"

    def pattern(self, x: Any, mean: Any, two: Any, epsilon: Any, norm: Any, gamma: Any, parameter: Any) -> DFPattern:
        square = is_op("relax.power")(x, two) | is_op("relax.multiply")(x, x) | is_op("relax.square")(x)
        spread = is_op("relax.add")(mean & is_op("relax.mean")(square), epsilon)
        normal = is_op("relax.multiply")(x, is_op("relax.rsqrt")(spread)) | is_op("relax.divide")(
            x, is_op("relax.sqrt")(spread)
        )
        return normal | is_op("relax.multiply")(norm & is_op("relax.nn.rms_norm")(x, gamma), parameter)

    def check(
        self, x: Any, mean: Any, two: Any, epsilon: Any, norm: Any, gamma: Any, parameter: Any, graph: Graph
    ) -> str | None:
        if norm is not None:
            if not is_filled(gamma, 1):
                return f"{describe(norm)} has its factor already"
            fitted = affine_parameter(parameter, x, row_axes(graph.value(norm), x))
            return (
                None if fitted is not None else f"{describe(parameter)} does not have the shape of the normalised axes"
            )
        if dtype(x) == "float64":
            return f"{describe(x)} is of type float64, and the operator computes in float32"
        if two is not None and not is_scalar(two, 2):
            return f"expected the power 2, found {describe(two)}"
        if scalar(epsilon) is None:
            return f"epsilon is no constant number but {describe(epsilon)}"
        axes, ndim = row_axes(graph.value(mean), x), rank(x) or 0
        if not attr(graph.value(mean), "keepdims") or axes is None or axes != tuple(range(ndim - len(axes), ndim)):
            return "the mean is not over the last axes, which it keeps"
        if len(axes) == ndim:  # TVM 0.27 cannot lower it: "Tensor dimension mismatch in read ndim = 1, indices.size=0"
            return "the mean is over all axes"
        if any(not isinstance((dims(x) or ())[axis], int) for axis in axes):
            return "the size of a normalised axis is not known while compiling"
        return None

    def rewrite(self, x: Any, mean: Any, epsilon: Any, norm: Any, parameter: Any, graph: Graph) -> relax.Expr:
        if norm is None:
            axes = row_axes(graph.value(mean), x) or ()
            ones = np.ones([(dims(x) or ())[axis] for axis in axes])
            return relax.op.nn.rms_norm(x, const(ones, dtype(x)), list(axes), scalar(epsilon))
        call = graph.value(norm)
        return relax.Call(call.op, [x, affine_parameter(parameter, x, row_axes(call, x))], call.attrs)
