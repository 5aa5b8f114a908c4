"""Fuse group normalisation, which PyTorch exports by way of instance normalisation, into one operator.

    R.reshape(R.nn.instance_norm(R.reshape(x, (n, groups, -1)), g, b), shape of x)   ->  R.nn.group_norm(x, g', b')
    R.multiply(R.nn.group_norm(x, g, b), c)                                          ->  R.nn.group_norm(x, g c, b c)
    R.add(R.nn.group_norm(x, g, b), c)                                               ->  R.nn.group_norm(x, g, b + c)

Without its reshapes it can stay in channels-last networks (Wu and He 2018, arXiv:1803.08494).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax
from tvm.relax.dpl import DFPattern, is_op

from dscc.passes.fusion.affine import channel_vector
from dscc.passes.graph import Graph
from dscc.passes.rewrite import RewritePass
from dscc.passes.values import attr, const, constant, describe, dims, dtype, rank, same_dim, same_dims


class FuseGroupNorm(RewritePass):
    """Groups of channels normalised by one operator, with its factor and offset per channel."""

    name = "fuse-group-norm"

    def pattern(
        self, x: Any, split: Any, back: Any, rows: Any, inner: Any, norm: Any, gamma: Any, beta: Any, parameter: Any
    ) -> DFPattern:
        reshape = is_op("relax.reshape")
        groups = rows & reshape(x, split)
        normal = reshape(inner & is_op("relax.nn.instance_norm")(groups, gamma, beta), back)
        fused = norm & is_op("relax.nn.group_norm")(x, gamma, beta)
        return normal | is_op("relax.multiply")(fused, parameter) | is_op("relax.add")(fused, parameter)

    def check(
        self, x: Any, rows: Any, inner: Any, norm: Any, gamma: Any, beta: Any, parameter: Any, root: Any, graph: Graph
    ) -> str | None:
        if constant(gamma) is None or constant(beta) is None:
            return "factor or offset are no constants"
        if norm is not None:
            return (
                None
                if _per_channel(parameter, x, graph.value(norm)) is not None
                else f"{describe(parameter)} is not per channel"
            )
        whole, grouped = dims(x), dims(rows)
        if whole is None or grouped is None or len(whole) < 3 or len(grouped) != 3:
            return "the reshape is not to (batch, groups, rest)"
        if not same_dims(dims(root), whole) or not same_dim(grouped[0], whole[0]):
            return "the shape before and after is not the same"
        if not isinstance(whole[1], int) or not isinstance(grouped[1], int) or whole[1] % grouped[1]:
            return f"{whole[1]} channels are not {grouped[1]} groups of the same size"
        call = graph.value(inner)
        whole_groups = attr(call, "channel_axis") == 1 and list(attr(call, "axes")) == [2]
        return None if whole_groups else "the normalisation is not over whole groups"

    def rewrite(
        self, x: Any, rows: Any, inner: Any, norm: Any, gamma: Any, beta: Any, parameter: Any, root: Any, graph: Graph
    ) -> relax.Expr:
        factor, offset = gamma.value.numpy(), beta.value.numpy()
        if norm is None:
            channels, groups = (dims(x) or ())[1], (dims(rows) or ())[1]
            spread = [const(np.repeat(values, channels // groups), dtype(x)) for values in (factor, offset)]
            epsilon = attr(graph.value(inner), "epsilon")
            return relax.op.nn.group_norm(x, *spread, groups, 1, list(range(2, rank(x) or 0)), epsilon)
        call = graph.value(norm)
        values = _per_channel(parameter, x, call)
        if graph.value(root).op.name == "relax.multiply":
            factor, offset = factor * values, offset * values
        else:
            offset = offset + values
        return relax.Call(call.op, [x, const(factor, dtype(x)), const(offset, dtype(x))], call.attrs)


def _per_channel(parameter: relax.Expr, data: relax.Expr, norm: relax.Call) -> np.ndarray | None:
    """A constant that is broadcast over everything but channels, as a vector of all channels."""
    fixed, shape = constant(parameter), dims(data)
    found = None if fixed is None or shape is None else channel_vector(fixed, len(shape))
    if found is None or shape is None:
        return None
    axis = attr(norm, "channel_axis") % len(shape)
    values, along = found
    return np.broadcast_to(values, shape[axis]) if along in (None, axis) else None
