"""Leave out data movement that moves nothing, and merge what follows on itself.

R.reshape(R.reshape(x, a), b)               ->  R.reshape(x, b)
R.squeeze(x), R.expand_dims(x), R.flatten(x)->  R.reshape(x, shape), where the shape is known
R.permute_dims(R.permute_dims(x, p), q)     ->  R.permute_dims(x, p[q])
R.permute_dims(x, p), only 1s change place  ->  R.reshape(x, shape)
R.reshape(x, shape of x), identity permutation, concat of one, whole slice, pad by nothing, ...  ->  x
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import tvm
from tvm import relax

from dscc.passes.base import Pass, PassContext
from dscc.passes.graph import Graph, Node, edit_functions
from dscc.passes.values import attr, dims, numbers, rank, same_dims

Rule = Callable[[Node, Graph], relax.Expr | None]


@dataclass(frozen=True)
class SimplifyShapes(Pass):
    """Each rule looks at one call and returns what to write instead, or None."""

    name = "simplify-shapes"

    def run(self, mod: tvm.IRModule, ctx: PassContext) -> tvm.IRModule:
        def edit(graph: Graph) -> None:
            for node in graph:
                while node.alive and (better := _better(node, graph)) is not None:
                    ctx.remark(f"{self.name}: applied at {node}")
                    graph.replace(node, better)

        return edit_functions(mod, edit)


def _better(node: Node, graph: Graph) -> relax.Expr | None:
    for rule in RULES.get(node.op, ()):
        found = rule(node, graph)
        if found is not None:
            return found
    return None


def axes_of(node: Node) -> tuple[int, ...] | None:
    """The permutation of a `permute_dims`; None if the rank is not known."""
    axes, ndim = attr(node.value, "axes"), rank(node.value.args[0])
    if ndim is None:
        return None
    return tuple(reversed(range(ndim))) if axes is None else tuple(int(a) % ndim for a in axes)


def _keeps_shape(node: Node, graph: Graph) -> relax.Expr | None:
    data = node.value.args[0]
    return data if same_dims(dims(data), dims(node.var)) else None


def _reshape_of_reshape(node: Node, graph: Graph) -> relax.Expr | None:
    inner = graph.node(node.value.args[0])
    if inner is None or inner.op != "relax.reshape":
        return None
    return relax.op.reshape(inner.value.args[0], node.value.args[1])


def _as_reshape(node: Node, graph: Graph) -> relax.Expr | None:
    shape = node.var.ty.shape if isinstance(node.var.ty, relax.TensorType) else None
    return relax.op.reshape(node.value.args[0], shape) if isinstance(shape, relax.ShapeExpr) else None


def _permute_of_permute(node: Node, graph: Graph) -> relax.Expr | None:
    inner = graph.node(node.value.args[0])
    if inner is None or inner.op != "relax.permute_dims":
        return None
    first, second = axes_of(inner), axes_of(node)
    if first is None or second is None:
        return None
    return relax.op.permute_dims(inner.value.args[0], [first[axis] for axis in second])


def _idle_permute(node: Node, graph: Graph) -> relax.Expr | None:
    """The identity, or one that keeps the order of all dimensions that are not 1."""
    axes, shape = axes_of(node), dims(node.value.args[0])
    if axes is None:
        return None
    if axes == tuple(range(len(axes))):
        return node.value.args[0]
    moved = [axis for axis in axes if shape is None or shape[axis] != 1]
    return _as_reshape(node, graph) if moved == sorted(moved) else None


def _single_concat(node: Node, graph: Graph) -> relax.Expr | None:
    parts = graph.value(node.value.args[0])
    return parts.fields[0] if isinstance(parts, relax.Tuple) and len(parts.fields) == 1 else None


def _whole_slice(node: Node, graph: Graph) -> relax.Expr | None:
    data, *bounds = node.value.args
    steps = numbers(bounds[3]) if len(bounds) > 3 else ()
    if not same_dims(dims(data), dims(node.var)) or steps is None or any(step != 1 for step in steps):
        return None
    return data


def _field_of_tuple(node: Node, graph: Graph) -> relax.Expr | None:
    source = graph.value(node.value.tuple_value)
    return source.fields[node.value.index] if isinstance(source, relax.Tuple) else None


def _no_padding(node: Node, graph: Graph) -> relax.Expr | None:
    return None if any(attr(node.value, "pad_width")) else node.value.args[0]


RULES: dict[str, tuple[Rule, ...]] = {
    "relax.reshape": (_keeps_shape, _reshape_of_reshape),
    "relax.squeeze": (_keeps_shape, _as_reshape),
    "relax.expand_dims": (_as_reshape,),
    "relax.flatten": (_as_reshape,),
    "relax.nn.batch_flatten": (_as_reshape,),
    "relax.broadcast_to": (_keeps_shape,),
    "relax.permute_dims": (_idle_permute, _permute_of_permute),
    "relax.concat": (_single_concat,),
    "relax.strided_slice": (_whole_slice,),
    "relax.nn.pad": (_no_padding,),
    "getitem": (_field_of_tuple,),
}
