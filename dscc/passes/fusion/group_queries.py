"""Give attention the keys and values of a group once, where a model repeats them for all heads that share them.

    k' = R.reshape(R.broadcast_to(k, (batch, groups, share, keys, size)))       (batch, groups * share, keys, size)
    R.nn.attention(q, R.permute_dims(k'), R.permute_dims(v'))
        ->  R.nn.attention(q, R.permute_dims(k), R.permute_dims(v))         head h reads group h // share

Grouped queries (Ainslie et al. 2023, arXiv:2305.13245); exporters write `repeat_kv` of transformers, or `enable_gqa` of
PyTorch, like that. The sequence may also stand before the heads, without a permutation. The operator that a decoder
reads its cache with then reads it as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import tvm
from tvm import relax

from dscc.passes.base import Pass, PassContext
from dscc.passes.graph import Graph, Node, edit_functions
from dscc.passes.values import Dim, attr, dims, dtype, same_dim, same_dims

_ATTENTION = ("relax.nn.attention", "relax.nn.attention_bias")


@dataclass(frozen=True)
class GroupQueries(Pass):
    """Keys and values that are repeated for the heads of a group are read once."""

    name = "group-queries"
    stage = "layout"

    def run(self, mod: tvm.IRModule, ctx: PassContext) -> tvm.IRModule:
        def edit(graph: Graph) -> None:
            for node in graph:
                if node.op not in _ATTENTION:
                    continue
                q, k, v, *rest = node.value.args
                found = [_Repeated.of(each, graph) for each in (k, v)]
                if found[0] is None or found[1] is None:
                    continue
                if found[0].groups != found[1].groups:
                    ctx.remark(f"{self.name}: refused at {node}: keys and values have different numbers of groups")
                    continue
                ctx.remark(f"{self.name}: applied at {node}")
                args = [q, *(each.once(node, graph) for each in found if each is not None), *rest]
                graph.replace(node, relax.Call(node.value.op, args, node.value.attrs, node.value.ty_args))
                for cast in (cast for each in found if each is not None for cast in each.casts):
                    graph.remove_cast(cast)  # the operand has one of its own

        return edit_functions(mod, edit)


@dataclass(frozen=True)
class _Repeated:
    """An operand of attention, (batch, sequence, heads, size), whose groups were repeated.

    Attributes:
        source: the groups; (batch, groups, sequence, size) if `permuted`, else (batch, sequence, groups, size), maybe
            with an axis of 1 behind the groups.
        shape: of the operand.
        groups: how many.
        casts: that say how dimensions of what was repeated are spelled.
    """

    source: relax.Expr
    shape: tuple[Dim, ...]
    groups: int
    permuted: bool
    casts: list[Node]

    @staticmethod
    def of(operand: relax.Expr, graph: Graph) -> _Repeated | None:
        shape, node = dims(operand), graph.node(operand)
        casts: list[Node] = []
        if shape is None or node is None:
            return None
        permuted = node.op == "relax.permute_dims" and list(attr(node.value, "axes") or ()) == [0, 2, 1, 3]
        if permuted:
            node = _without_casts(node.value.args[0], graph, casts)
        if node is None or node.op != "relax.reshape":
            return None
        wide = _without_casts(node.value.args[0], graph, casts)
        if wide is None or wide.op != "relax.broadcast_to":
            return None
        before, after = dims(wide.value.args[0]), dims(wide.var)
        place = 1 if permuted else 2
        if before is None or after is None or len(before) != 5 or len(after) != 5:
            return None
        merged = dims(node.var) or ()
        kept = [*range(place + 1), *range(place + 2, 5)]
        grows = before[place + 1] == 1 and all(same_dim(before[i], after[i]) for i in kept)
        groups, share = after[place], after[place + 1]
        if not grows or not isinstance(groups, int) or not isinstance(share, int) or len(merged) != 4:
            return None
        whole = (*after[:place], groups * share, *after[place + 2 :])
        return _Repeated(wide.value.args[0], shape, groups, permuted, casts) if same_dims(merged, whole) else None

    def once(self, before: Node, graph: Graph) -> relax.Expr:
        """The operand with its groups alone. Its dimensions are spelled as they were, which a cast says where the
        source has others.
        """
        batch, sequence, _, size = self.shape
        wanted = [batch, self.groups, sequence, size] if self.permuted else [batch, sequence, self.groups, size]
        inner = dims(self.source) or ()
        place = 1 if self.permuted else 2
        flat = relax.op.reshape(self.source, [*inner[: place + 1], *inner[place + 2 :]])
        once = graph.emit(before, flat, "group")
        if not same_dims(dims(once), tuple(wanted)):
            once = graph.emit_cast(before, once, relax.TensorType(wanted, dtype(once)), "group")
        return graph.emit(before, relax.op.permute_dims(once, [0, 2, 1, 3]), "group") if self.permuted else once


def _without_casts(expr: relax.Expr, graph: Graph, passed: list[Node]) -> Node | None:
    """The node behind an expression, and behind the casts that say how its dimensions are spelled."""
    node = graph.node(expr)
    while node is not None and node.cast is not None:
        passed.append(node)
        node = graph.node(node.value)
    return node
