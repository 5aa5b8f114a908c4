"""Squeeze.

Without axes it drops every dimension of 1, so that the rank of the result may hang on sizes that are known only when
the model runs: (batch, 1) becomes (batch), but a number for a batch of 1. It is then an If over squeezes whose axes
are stated, with all that follows in its branches:

    y = Squeeze(x)  ->  y = If(batch == 1) { Squeeze<axes = [0, 1]>(x) } else { Squeeze<axes = [1]>(x) }

Where that cannot be, as in the body of a loop, whose ranks have to be known, open dimensions are taken for larger ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper
from tvm.relax import Expr

from dscc.frontends.onnx.axes import dropped, require_one
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.ops.shape import given_axes
from dscc.frontends.onnx.regions import RanksDiffer
from dscc.frontends.onnx.registry import converter
from dscc.frontends.onnx.shapes import equals, reshaped
from dscc.frontends.onnx.values import Value, static

_MOST_OPEN = 2  # dimensions that may be 1 or not: each doubles what follows


@converter("Squeeze")
def squeeze(node: Node, x: Value, axes: Value | None = None) -> Expr | Value:
    where = given_axes(node, axes, x.ndim)
    if where is None:
        where = [axis for axis, dim in enumerate(x.shape) if static(dim) == 1]
        either = [axis for axis, dim in enumerate(x.shape) if _may_be_one(node, dim)]
        if 0 < len(either) <= _MOST_OPEN:
            raise _split(node, x, where, either)
    if not all(isinstance(axis, int) for axis in where):
        require_one(node, x.shape, where)
        return reshaped(x.expr, dropped(node, x.shape, where))
    for axis in where:
        node.require_equal(x.shape[axis], 1, f"dimension {axis}")
    return _without(x, where)


def _without(x: Value, where: Sequence[int]) -> Expr | Value:
    return reshaped(x.expr, [dim for axis, dim in enumerate(x.shape) if axis not in where]) if where else x


def _may_be_one(node: Node, dim: object) -> bool:
    return static(dim) is None and not node.dims.at_least(dim, 2, decides=False)


def _split(node: Node, x: Value, where: Sequence[int], either: Sequence[int]) -> RanksDiffer:
    """The If over the dimensions `either`, each of which may be 1; those in `where` are."""
    scope = dict(node.scope)
    for axis in either:
        holds = np.empty((), dtype=object)
        holds[()] = equals(x.shape[axis], 1)
        scope[_condition(node, axis)] = Value("", node.bb, data=holds, element="bool")
    proto = _choice(node, where, either, node.proto.output[0])
    choice = Node(proto, node.label, node.opset, node.importer, {a.name: a for a in proto.attribute})
    choice.scope, choice.opsets, choice.bound = scope, node.opsets, node.bound
    return RanksDiffer(choice, scope[_condition(node, either[0])], [node.value(_without(x, where))], node.proto)


def _condition(node: Node, axis: int) -> str:
    return f"{node.proto.output[0]}:{axis} is 1"


def _choice(node: Node, where: Sequence[int], either: Sequence[int], name: str) -> onnx.NodeProto:
    """The node that makes `name`: a squeeze, or an If over the first of the axes that are left."""
    if not either and not where:
        return helper.make_node("Identity", node.proto.input[:1], [name])
    if not either:
        return helper.make_node("Squeeze", node.proto.input[:1], [name], axes=sorted(where))
    branches = {}
    for branch, taken in (("then_branch", [*where, either[0]]), ("else_branch", where)):
        inner = f"{name}:{len(taken)}"
        made = _choice(node, taken, either[1:], inner)
        branches[branch] = helper.make_graph([made], branch, [], [helper.make_empty_tensor_value_info(inner)])
    return helper.make_node("If", [_condition(node, either[0])], [name], **branches)
