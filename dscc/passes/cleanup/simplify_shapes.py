"""Leave out data movement that moves nothing, and merge what follows on itself.

    R.reshape(R.reshape(x, a), b)                  ->  R.reshape(x, b)
    R.squeeze(x), R.expand_dims(x), R.flatten(x)   ->  R.reshape(x, shape), where the shape is known
    R.reshape(R.sum(x, axis), with 1s put back)    ->  R.sum(x, axis, keepdims=True)
    R.permute_dims(R.permute_dims(x, p), q)        ->  R.permute_dims(x, p[q])
    joined by a reshape, permuted, split as before ->  R.permute_dims(x, q)
    R.permute_dims(x, p), only 1s change place     ->  R.reshape(x, shape)
    R.reshape(x, shape of x), identity permutation, concat of one, whole slice, pad by nothing, ...  ->  x

A rule looks at one call; none adds data movement.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tvm import relax

from dscc.passes.cleanup.local import LocalPass, Rule
from dscc.passes.graph import Graph, Node
from dscc.passes.layout.regroup import pair_up
from dscc.passes.values import attr, dims, numbers, rank, same_dims, with_attrs

REDUCTIONS = tuple(f"relax.{name}" for name in ("sum", "mean", "max", "min", "prod", "variance", "std"))


@dataclass(frozen=True)
class SimplifyShapes(LocalPass):
    """Data movement that moves nothing goes; neighbours become one."""

    name = "simplify-shapes"

    @property
    def rules(self) -> Mapping[str, tuple[Rule, ...]]:
        return RULES


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


def _split_again(node: Node, graph: Graph) -> relax.Expr | None:
    """Joined, permuted, and split as before: a permutation of the dimensions that were joined."""
    middle = graph.node(node.value.args[0])
    first = None if middle is None or middle.op != "relax.permute_dims" else graph.node(middle.value.args[0])
    if middle is None or first is None or first.op != "relax.reshape":
        return None
    data = first.value.args[0]
    before, joined, after, axes = dims(data), dims(first.var), dims(node.var), axes_of(middle)
    groups = None if before is None or joined is None else pair_up(before, joined)
    if groups is None or axes is None or before is None:
        return None
    parts = {news[0]: olds for olds, news in groups if len(news) == 1}
    order = [old for axis in axes for old in parts.get(axis, ())]
    if len(order) != len(before) or not same_dims(tuple(before[axis] for axis in order), after):
        return None
    return relax.op.permute_dims(data, order)


def _reshape_of_reduction(node: Node, graph: Graph) -> relax.Expr | None:
    """A reduction whose dropped axes come back as 1s keeps them."""
    inner = graph.node(node.value.args[0])
    if inner is None or inner.op not in REDUCTIONS or graph.only_user(inner) is not node:
        return None
    whole, written, shape = dims(inner.value.args[0]), attr(inner.value, "axis"), dims(node.var)
    if attr(inner.value, "keepdims") or whole is None:
        return None
    axes = range(len(whole)) if written is None else [axis % len(whole) for axis in written]
    kept = tuple(1 if axis in axes else dim for axis, dim in enumerate(whole))
    if not same_dims(kept, shape):
        return None
    attrs = with_attrs(inner.value, {"keepdims": True})
    return relax.Call(inner.value.op, inner.value.args, attrs, inner.value.ty_args)


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
    "relax.reshape": (_keeps_shape, _reshape_of_reshape, _split_again, _reshape_of_reduction),
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
