"""Instance and group normalisation with the variance around the mean, in the form that the row rule reads.

TVM's definitions use E[x^2] - E[x]^2, which cancels where the mean is large, in one reduction over pairs, and reshape
inside the function. Its layer_norm and rms_norm are as we want them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tvm import relax, te, tirx

from dscc.passes.lower.legalize import legalize
from dscc.passes.lower.legalize.channel_norm import ChannelNorm


@legalize("relax.nn.instance_norm")
def instance_norm(bb: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta, mean and variance over `axes`, by batch and channel."""
    x, gamma, beta = call.args
    rank = len(x.ty.shape)
    channel = int(call.attrs.channel_axis) % rank
    axes = [int(axis) % rank for axis in call.attrs.axes]
    if ChannelNorm.takes(x, channel, axes):
        return ChannelNorm(1, float(call.attrs.epsilon)).write(bb, x, gamma, beta, "instance_norm")

    def define(x: te.Tensor, gamma: te.Tensor, beta: te.Tensor) -> te.Tensor:
        def affine(at: Sequence[tirx.Var]) -> tuple[tirx.Expr, tirx.Expr]:
            return gamma[at[channel]], beta[at[channel]]

        return _normalize(list(x.shape), axes, lambda at: x[tuple(at)], affine, float(call.attrs.epsilon))

    return bb.call_te(define, x, gamma, beta, primfunc_name_hint="instance_norm")


@legalize("relax.nn.group_norm")
def group_norm(bb: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """The same over `axes` and the channels of one group."""
    x, gamma, beta = call.args
    shape = list(x.ty.shape)
    channel = int(call.attrs.channel_axis) % len(shape)
    groups = int(call.attrs.num_groups)
    normalized = [int(axis) % len(shape) for axis in call.attrs.axes]
    if ChannelNorm.takes(x, channel, normalized) and isinstance(shape[channel], tirx.IntImm):
        norm = ChannelNorm(int(shape[channel]) // groups, float(call.attrs.epsilon))
        return norm.write(bb, x, gamma, beta, "group_norm")
    # with the channel axis as (group, channel in group)
    axes = [axis + (axis > channel) for axis in normalized] + [channel + 1]

    def define(x: te.Tensor, gamma: te.Tensor, beta: te.Tensor) -> te.Tensor:
        size = x.shape[channel] // groups
        split = [*x.shape[:channel], groups, size, *x.shape[channel + 1 :]]

        def at_channel(at: Sequence[tirx.Expr]) -> tirx.Expr:
            return at[channel] * size + at[channel + 1]

        def affine(at: Sequence[tirx.Var]) -> tuple[tirx.Expr, tirx.Expr]:
            return gamma[at_channel(at)], beta[at_channel(at)]

        def element(at: Sequence[tirx.Expr]) -> tirx.Expr:
            return x[(*at[:channel], at_channel(at), *at[channel + 2 :])]

        return _normalize(split, sorted(axes), element, affine, float(call.attrs.epsilon))

    norm = bb.normalize(bb.call_te(define, x, gamma, beta, primfunc_name_hint="group_norm"))
    return relax.op.reshape(norm, shape)


def _normalize(
    shape: list[tirx.Expr],
    axes: list[int],
    element: Callable[[Sequence[tirx.Expr]], tirx.Expr],
    affine: Callable[[Sequence[tirx.Var]], tuple[tirx.Expr, tirx.Expr]],
    epsilon: float,
) -> te.Tensor:
    kept = [i for i in range(len(shape)) if i not in axes]
    count: tirx.Expr = tirx.const(1.0, "float32")
    for axis in axes:
        count = count * tirx.Cast("float32", shape[axis])

    def total(name: str, formula: Callable[[list[tirx.Expr], Sequence[tirx.Var]], tirx.Expr]) -> te.Tensor:
        reduced = [te.reduce_axis((0, shape[axis]), name=f"k{axis}") for axis in axes]

        def body(*row: tirx.Var) -> tirx.Expr:
            at = [row[kept.index(i)] if i in kept else reduced[axes.index(i)].var for i in range(len(shape))]
            return te.sum(formula(at, row), axis=reduced)

        return te.compute([shape[i] for i in kept], body, name=name)

    def difference(at: Sequence[tirx.Expr], row: Sequence[tirx.Var]) -> tirx.Expr:
        return element(at) - mean[tuple(row)]

    sums = total("sum", lambda at, row: element(at))
    mean = te.compute(sums.shape, lambda *row: sums[row] / count, name="mean")
    squares = total("squares", lambda at, row: difference(at, row) * difference(at, row))

    def body(*at: tirx.Var) -> tirx.Expr:
        row = [at[i] for i in kept]
        gamma, beta = affine(at)
        variance = squares[tuple(row)] / count
        return difference(at, row) * tirx.rsqrt(variance + tirx.const(epsilon, "float32")) * gamma + beta

    return te.compute(shape, body, name="normalized")
