"""Fold batch normalisation, and any other multiplication or addition per channel, into the weights next to it.

    R.nn.batch_norm(R.nn.conv2d(x, w), gamma, beta, mean, var)[0]    ->  R.add(R.nn.conv2d(x, w'), b')
    R.add(R.multiply(R.add(R.nn.conv2d(x, w), b), s), t)             ->  R.add(R.nn.conv2d(x, w'), b')
    R.nn.conv2d(R.multiply(x, s), w)                                 ->  R.nn.conv2d(x, w')
    R.nn.conv2d(R.add(x, t), w), without padding                     ->  R.add(R.nn.conv2d(x, w), b')

The same for transposed convolutions and products with a constant matrix. A batch normalisation that stands next to
neither becomes one multiplication and one addition. Paddle's exporter writes the second form; the others are the
usual ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax

from dscc.passes.base import Pass, PassContext
from dscc.passes.fusion.affine import Affine, affine_of, apply
from dscc.passes.graph import Graph, Node, edit_functions
from dscc.passes.values import Dim, attr, const, constant, dims, dtype, rank

CONVOLUTIONS = {
    f"relax.nn.conv{d}d{kind}": kind != "" for d in (1, 2, 3) for kind in ("", "_transpose")
}  # operator to whether it is transposed


@dataclass(frozen=True)
class FoldBatchNorm(Pass):
    """Per-channel factors and offsets disappear into constant weights."""

    name = "fold-batch-norm"

    def run(self, mod: tvm.IRModule, ctx: PassContext) -> tvm.IRModule:
        def edit(graph: Graph) -> None:
            for node in graph:
                if node.op == "relax.nn.batch_norm":
                    _to_affine(node, graph)
            _fold_all_after(graph, ctx)
            moved = [_fold_before(node, graph, ctx) for node in graph.all() if node.alive]
            if any(moved):
                _fold_all_after(graph, ctx)

        return edit_functions(mod, edit)


@dataclass
class Weighted:
    """A convolution or matrix product with a constant weight.

    Attributes:
        weight: the constant.
        out_axis: where the output's channels are in the output.
        in_axis: where the input's channels are in the input.
        padded: whether it reads zeros that are not in its input.
    """

    node: Node
    weight: relax.Expr
    out_axis: int
    in_axis: int
    padded: bool

    @staticmethod
    def at(node: Node, graph: Graph) -> Weighted | None:
        """`node` as such, or None if it is something else."""
        if node.op not in CONVOLUTIONS and node.op != "relax.matmul":
            return None
        call = node.value
        weight = graph.value(call.args[1])
        if not isinstance(weight, tvm.ir.GenericConst) or dtype(weight)[:5] != "float" or dims(node.var) is None:
            return None
        if node.op == "relax.matmul":
            before, after = rank(call.args[0]), rank(node.var)
            if rank(weight) != 2 or not before or not after:
                return None
            return Weighted(node, weight, after - 1, before - 1, False)
        out_layout = attr(call, "out_layout") or attr(call, "data_layout")
        padded = any(attr(call, "padding")) or CONVOLUTIONS[node.op]
        return Weighted(node, weight, out_layout.index("C"), attr(call, "data_layout").index("C"), padded)

    def scaled(self, by: np.ndarray, side: str) -> relax.Expr:
        """The weight times a factor per channel of the output (`side` "O") or of the input ("I")."""
        if np.all(by == 1):
            return self.weight
        return const(self._wide() * self._spread(by, side), dtype(self.weight))

    def _wide(self) -> np.ndarray:
        return self.weight.value.numpy().astype("float64")

    def response(self, to: np.ndarray) -> np.ndarray:
        """The output, per channel, for an input that is `to[channel]` everywhere."""
        products = self._wide() * self._spread(to, "I")
        if self.node.op == "relax.matmul":
            return products.sum(axis=0)
        layout = attr(self.node.value, "kernel_layout")
        return products.sum(axis=tuple(i for i, letter in enumerate(layout) if letter != "O"))

    def _spread(self, by: np.ndarray, side: str) -> np.ndarray:
        """`by` in a shape that broadcasts against the weight. Groups split the axis that counts channels within one
        group.
        """
        if self.node.op == "relax.matmul":
            return by.reshape((1, -1) if side == "O" else (-1, 1))
        layout, groups = attr(self.node.value, "kernel_layout"), attr(self.node.value, "groups")
        whole = "I" if CONVOLUTIONS[self.node.op] else "O"  # the axis that counts the channels of all groups
        shape = [1] * len(layout)
        if side == whole or groups == 1:
            shape[layout.index(side)] = -1
            return by.reshape(shape)
        per_group = by.reshape(groups, -1)
        channels = (dims(self.weight) or ())[layout.index(whole)]
        spread = np.repeat(per_group, channels // groups, axis=0)  # (channels of all groups, channels within a group)
        if layout.index(whole) > layout.index(side):
            spread = spread.T
        shape[layout.index(whole)], shape[layout.index(side)] = channels, per_group.shape[1]
        return spread.reshape(shape)

    def call(self, data: relax.Expr, weight: relax.Expr) -> relax.Call:
        """The same operation on other data and another weight."""
        call = self.node.value
        return relax.Call(call.op, [data, weight], call.attrs, call.ty_args)


def _to_affine(node: Node, graph: Graph) -> None:
    """Every use of a batch normalisation's result becomes a multiplication and an addition."""
    data, *parameters = node.value.args
    known = [p.astype("float64") for p in (constant(graph.value(each)) for each in parameters) if p is not None]
    ndim = rank(data)
    if attr(node.value, "training") or ndim is None or len(known) != 4:
        return
    gamma, beta, mean, var = known
    scale = (gamma if attr(node.value, "scale") else 1.0) / np.sqrt(var + attr(node.value, "epsilon"))
    shift = (beta if attr(node.value, "center") else 0.0) - mean * scale
    affine = Affine(data, scale, shift, attr(node.value, "axis") % ndim)
    for user in graph.users(node.var):
        if user.op == "getitem" and user.value.index == 0:
            graph.replace(user, apply(affine, data))


def _channels(data: relax.Expr, axis: int) -> Dim:
    shape = dims(data)
    return None if shape is None else shape[axis]


def _fold_all_after(graph: Graph, ctx: PassContext) -> None:
    for node in graph.all():
        if node.alive and (after := affine_of(node, graph)) is not None:
            _fold_after(node, after, graph, ctx)


def _fold_after(node: Node, after: Affine, graph: Graph, ctx: PassContext) -> None:
    """Fold `node`, a factor and an offset, into the weight whose result it reads, maybe through another offset."""
    source = graph.node(after.data)
    if source is None:
        return
    between = affine_of(source, graph)
    if between is not None and between.scale is None and graph.only_user(source) is node:
        producer = graph.node(between.data)
    else:
        producer, between = source, None
    found = None if producer is None else Weighted.at(producer, graph)
    if found is None or (between is None and after.scale is None):
        return
    channels = _channels(found.node.var, found.out_axis)
    folded = after.along(found.out_axis, channels)
    inner = None if between is None else between.along(found.out_axis, channels)
    if folded is None or (between is not None and inner is None):
        return
    scale, shift = folded
    if graph.only_user(found.node) is not (source if between is not None else node):
        ctx.remark(f"fold-batch-norm: refused at {node}: {found.node} has a second user")
        return
    if inner is not None:
        shift = shift + scale * inner[1]
    ctx.remark(f"fold-batch-norm: applied at {node}")
    call = found.call(found.node.value.args[0], found.scaled(scale, "O"))
    result = Affine(found.node.var, None, shift, found.out_axis)
    graph.replace(node, apply(result, call) if np.any(shift) else call)


def _fold_before(node: Node, graph: Graph, ctx: PassContext) -> bool:
    """Fold factors and offsets of the input of `node` into its weight, one after the other."""
    found = Weighted.at(node, graph)
    source = None if found is None else graph.node(node.value.args[0])
    before = None if source is None else affine_of(source, graph)
    if found is None or source is None or before is None:
        return False
    folded = before.along(found.in_axis, _channels(before.data, found.in_axis))
    if folded is None:
        return False
    scale, shift = folded
    if np.any(shift) and found.padded:
        ctx.remark(f"fold-batch-norm: refused at {source}: {node} pads its input with zeros without the offset")
        return False
    if graph.only_user(source) is not node:
        ctx.remark(f"fold-batch-norm: refused at {source}: it has a second user besides {node}")
        return False
    ctx.remark(f"fold-batch-norm: applied at {source}, into {node}")
    call = graph.emit(node, found.call(before.data, found.scaled(scale, "I")), node.var.name)
    inner = graph.node(call)
    if np.any(shift):
        result = Affine(node.var, None, found.response(shift), found.out_axis)
        graph.replace(node, apply(result, call))
    else:
        graph.replace(node, call)
    if inner is not None:
        _fold_before(inner, graph, ctx)
    return True
