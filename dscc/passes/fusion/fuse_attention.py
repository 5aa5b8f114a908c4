"""Fuse scaled dot-product attention into one operator, which never writes the matrix of scores.

    scores = R.matmul(q, R.permute_dims(k))                 q, k, v: (batch, heads, sequence, size)
    p = R.nn.softmax(R.add(R.multiply(scores, c), mask))
    R.matmul(p, v)
        ->  R.permute_dims(R.nn.attention_bias(q', k', v', mask, scale=c))      q', k', v': (batch, sequence, heads,
        size)

The scale may stand at the scores, at q, at k or at several of them, as a factor or a divisor; the mask may be
missing. The permutations that this puts around the operator cancel against those that split the heads (Vaswani et al.
2017, arXiv:1706.03762). Three dimensions are taken as one head.
"""

from __future__ import annotations

from dataclasses import dataclass

import tvm
from tvm import relax

from dscc.passes.base import Pass, PassContext
from dscc.passes.graph import Graph, Node, edit_functions
from dscc.passes.values import Dim, attr, const, constant, describe, dims, dtype, is_one, rank, same_dim, scalar


@dataclass(frozen=True)
class FuseAttention(Pass):
    """One operator for softmax(scale * q k^T + mask) v."""

    name = "fuse-attention"

    def run(self, mod: tvm.IRModule, ctx: PassContext) -> tvm.IRModule:
        def edit(graph: Graph) -> None:
            for node in graph:
                first = graph.node(node.value.args[0]) if node.op == "relax.matmul" else None
                if first is None:
                    continue
                guard = _Guard.of(first, graph)
                weights = guard.weights if guard else first
                if weights.op != "relax.nn.softmax":
                    continue
                found = _read(node, weights, first, graph)
                if isinstance(found, str):
                    ctx.remark(f"{self.name}: refused at {node}: {found}")
                else:
                    ctx.remark(f"{self.name}: applied at {node}")
                    out = found.fused()
                    graph.replace(node, guard.around(out, node, graph) if guard else out)

        return edit_functions(mod, edit)


@dataclass
class _Attention:
    """What was read: q (batch, heads, queries, size), k transposed (batch, heads, size, keys), v (batch, heads, keys,
    size).
    """

    q: relax.Expr
    k: relax.Expr
    v: relax.Expr
    mask: relax.Expr | None
    scale: float

    def fused(self) -> relax.Expr:
        if rank(self.q) == 4:
            q, v = (relax.op.permute_dims(each, [0, 2, 1, 3]) for each in (self.q, self.v))
            out = relax.op.nn.attention(q, relax.op.permute_dims(self.k, [0, 3, 1, 2]), v, self.mask, self.scale)
            return relax.op.permute_dims(out, [0, 2, 1, 3])
        (batch, queries, size), (_, _, keys), (_, _, out_size) = (dims(x) or () for x in (self.q, self.k, self.v))
        q = relax.op.reshape(self.q, [batch, queries, 1, size])
        k = relax.op.reshape(relax.op.permute_dims(self.k, [0, 2, 1]), [batch, keys, 1, size])
        v = relax.op.reshape(self.v, [batch, keys, 1, out_size])
        out = relax.op.nn.attention(q, k, v, self.mask, self.scale)
        return relax.op.reshape(out, [batch, queries, out_size])


@dataclass(frozen=True)
class _Guard:
    """The softmax `weights` in `where(test, 0, weights)`, for rows that the mask leaves nothing of: the test is
    `isnan(weights)`, as PyTorch writes it, or one of whole rows, as the function body of ONNX's Attention has it.

    Attributes:
        rows: the test of whole rows; None if it is whether weights are numbers.
    """

    weights: Node
    rows: relax.Expr | None

    @staticmethod
    def of(node: Node, graph: Graph) -> _Guard | None:
        if node.op != "relax.where" or scalar(graph.value(node.value.args[1])) != 0:
            return None
        test, weights = graph.node(node.value.args[0]), graph.node(node.value.args[2])
        if weights is None or graph.is_result(weights):
            return None
        readers = {*graph.users(weights.var)}
        if test is not None and test.op == "relax.isnan" and test.value.args[0].same_as(weights.var):
            return _Guard(weights, None) if readers == {test, node} and graph.only_user(test) is node else None
        shape = dims(node.value.args[0]) or ()
        whole = shape[-1:] != () and is_one(shape[-1]) and len(shape) <= (rank(weights.var) or 0)
        return _Guard(weights, node.value.args[0]) if whole and readers == {node} else None

    def around(self, out: relax.Expr, node: Node, graph: Graph) -> relax.Expr:
        """The guard on the output instead: a row of weights that is 0, or is no number, makes such a row of it."""
        made = graph.emit(node, out, node.var.name)
        test = relax.op.isnan(made) if self.rows is None else self.rows
        return relax.op.where(test, relax.const(0, dtype(node.var)), made)


def _read(node: Node, weights: Node, reader: Node, graph: Graph) -> _Attention | str:
    """The attention whose last product is `node`, or what is in the way."""
    ndim = rank(weights.var) or 0
    if attr(weights.value, "axis") % max(ndim, 1) != ndim - 1:
        return f"{weights} is not over the last axis"
    if (reader is weights and graph.only_user(weights) is not node) or graph.only_user(reader) is not node:
        return f"{reader} has a second user"
    found = _scores(weights, graph)
    if isinstance(found, str):
        return found
    scores, mask, scale = found
    q, q_scale = _without_factor(scores.value.args[0], graph)
    k, k_scale = _without_factor(scores.value.args[1], graph)
    v = node.value.args[1]
    reason = _misfit(q, k, v)
    if reason is not None:
        return reason
    if mask is not None:
        fitted = _mask(mask, q, k)
        if fitted is None:
            return f"the mask {describe(mask)} does not broadcast to (batch, heads, queries, keys)"
        mask = fitted
    return _Attention(q, k, v, mask, scale * q_scale * k_scale)


def _scores(weights: Node, graph: Graph) -> tuple[Node, relax.Expr | None, float] | str:
    """The product q k^T under the softmax, the mask that is added to it, and the factor that it is multiplied by."""
    mask: relax.Expr | None = None
    scale, reader, expr = 1.0, weights, weights.value.args[0]
    while True:
        node = graph.node(expr)
        if node is None:
            return f"{describe(expr)} is no product of two matrices"
        if graph.only_user(node) is not reader:
            return f"{node} has a second user"
        if node.op == "relax.matmul":
            return node, mask, scale
        factor = _factor(node, graph)
        if factor is not None:
            expr, scale, reader = factor[0], scale * factor[1], node
            continue
        if node.op != "relax.add":
            return f"{node} is between the product and the softmax"
        left, right = node.value.args
        expr, other = (left, right) if _leads_to_product(left, graph) else (right, left)
        if rank(expr) != rank(weights.var):
            return f"{node} adds values of different rank"
        other = other if scale == 1.0 else relax.op.multiply(other, relax.const(scale, dtype(other)))
        mask = other if mask is None else relax.op.add(mask, other)
        reader = node


def _leads_to_product(expr: relax.Expr, graph: Graph) -> bool:
    node = graph.node(expr)
    while node is not None and node.op != "relax.matmul":
        factor = _factor(node, graph)
        following = factor[0] if factor else node.value.args[0] if node.op == "relax.add" else None
        node = None if following is None else graph.node(following)
    return node is not None


def _factor(node: Node, graph: Graph) -> tuple[relax.Expr, float] | None:
    """The value that `node` multiplies by a number, and that number."""
    if node.op not in ("relax.multiply", "relax.divide"):
        return None
    left, right = node.value.args
    number = scalar(graph.value(right))
    if number is None and node.op == "relax.multiply":
        left, number = right, scalar(graph.value(left))
    if number is None or rank(left) != rank(node.var) or (node.op == "relax.divide" and number == 0):
        return None
    return left, number if node.op == "relax.multiply" else 1 / number


def _without_factor(expr: relax.Expr, graph: Graph) -> tuple[relax.Expr, float]:
    node = graph.node(expr)
    factor = None if node is None or graph.uses(node.var) != 1 else _factor(node, graph)
    return (expr, 1.0) if factor is None else factor


def _misfit(q: relax.Expr, k: relax.Expr, v: relax.Expr) -> str | None:
    shapes = [dims(each) for each in (q, k, v)]
    if any(shape is None or len(shape) not in (3, 4) for shape in shapes) or len({len(s or ()) for s in shapes}) != 1:
        return "q, k and v are not of three or four dimensions"
    queries, keys, values = (shape or () for shape in shapes)
    for name, shape in (("k", keys), ("v", values)):
        if not all(same_dim(a, b) for a, b in zip(queries[:-2], shape[:-2], strict=True)):
            return f"batch or heads of q and {name} differ: {queries[:-2]} and {shape[:-2]}"
    if not isinstance(queries[-1], int) or not isinstance(values[-1], int):
        return "the size of a head is not known while compiling"
    if not same_dim(keys[-1], values[-2]):
        return f"k has {keys[-1]} rows, v has {values[-2]}"
    if dtype(q) == "float64":
        return "q is of type float64, and attention is computed in float32"
    return None if dtype(q) == dtype(k) == dtype(v) else f"q, k and v have types {dtype(q)}, {dtype(k)}, {dtype(v)}"


def _mask(mask: relax.Expr, q: relax.Expr, k: relax.Expr) -> relax.Expr | None:
    """The mask with four dimensions, each of them right or 1, the last one right."""
    builder = relax.BlockBuilder()
    shape, whole = dims(mask if isinstance(mask, relax.Var) else builder.normalize(mask)), dims(q)
    keys = (dims(k) or (0,))[-1]
    if shape is None or whole is None:
        return None
    wide: list[Dim] = [*(1 for _ in range(len(whole) - len(shape))), *shape]
    wanted = [*whole[:-1], keys]
    if len(wide) == 3:
        wide, wanted = [wide[0], 1, *wide[1:]], [wanted[0], 1, *wanted[1:]]
    fits = all((is_one(a) or same_dim(a, b)) for a, b in zip(wide, wanted, strict=True))
    if not fits or not same_dim(wide[3], keys):
        return None
    fixed = constant(mask)
    if fixed is not None:
        return const(fixed.reshape(wide))
    return mask if len(shape) == 4 else relax.op.reshape(mask, wide)
