"""Products of rows with a matrix, with those of all experts, and with the one looked up for each row."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tvm import relax

from dscc.passes.graph import Node
from dscc.passes.moe import scalars
from dscc.passes.moe.routed import ELEMENTS, ONE, TOKENS, Axis, Core, Part, Product, Value, of_tokens
from dscc.passes.moe.rules.axes import reshaped
from dscc.passes.moe.rules.sums import complete_dense
from dscc.passes.moe.trace import Trace
from dscc.passes.values import dims, dtype, is_one, same_dim


def matmul(trace: Trace, node: Node) -> Value | None:
    """Rows times weights; or shares times the rows of all experts, which is a sum over them."""
    left, right = node.value.args
    if left in trace.matrices or right in trace.matrices:
        return _looked_up(trace, node, left, right)
    weight, shape = trace.weight(right), dims(right)
    if weight is not None and shape is not None and len(shape) in (2, 3):
        return _dense_product(trace, left, weight, len(shape))
    a, b = trace.value(left), trace.value(right)
    if a is not None and b is not None and trace.dense_share(a) and a.kinds == "TE" and b.kinds == "TEN":
        complete_dense(trace, node, a.formula * b.formula)
    return None


def with_matrix(trace: Trace, node: Node, rows: relax.Expr, args: Sequence[relax.Expr]) -> Value | None:
    """Rows times a matrix that a function makes of constants; the product itself stands for it (see weights.py)."""
    others = [arg for arg in args if not arg.same_as(rows)]
    return _dense_product(trace, rows, node.var, 2) if all(map(trace.const, others)) else None


def _dense_product(trace: Trace, left: relax.Expr, weight: relax.Expr, rank: int) -> Value | None:
    """Rows times a constant, or times those of all experts."""
    value, shape = trace.value(left), dims(left)
    if value is None and rank == 3:
        left = _unrepeated(trace, left)
        shape = dims(left)
    if shape is None or len(shape) < 2 or not scalars.is_float(dtype(left)):
        return None
    if value is None:
        axes = (*of_tokens(shape[:-1], TOKENS), ELEMENTS)
        if TOKENS not in axes or not isinstance(shape[-1], int):
            return None
        value = Value(axes, trace.token_rows(left))
    if not value.axes or value.axes[-1].kind != "N" or value.terms or value.columns:
        return None
    axes = value.axes
    count = int(dims(weight)[-1])  # type: ignore[index]
    if rank == 3:
        experts = int(dims(weight)[0])  # type: ignore[index]
        own = [axis.routing for axis in value.axes if axis.kind == "E"]
        routing = next((r for r in [*own, *reversed(trace.routings)] if r is not None and r.experts == experts), None)
        if routing is None or experts == 1:
            return None
        axes = (ONE,) * (3 - len(axes)) + axes
        if len(axes) != 3 or axes[0].kind not in "1E" or axes[1].kind != "T":
            return None
        axes = (Axis("E", routing), *axes[1:])
    elif "E" in value.kinds:
        return None
    core = Core((weight,), False, value, left)
    return Value(axes, trace.leaf("p", Product(core, Part(0, 1, count))))


def _unrepeated(trace: Trace, expr: relax.Expr) -> relax.Expr:
    """The rows that were repeated for every expert, or `expr` itself."""
    node = trace.graph.node(trace.bare(expr))
    shape = dims(expr)
    if node is None or node.op not in ("relax.broadcast_to", "relax.tile") or shape is None or len(shape) != 3:
        return expr
    inner = [dim for dim in dims(node.value.args[0]) or () if not is_one(dim)]
    alike = len(inner) == 2 and same_dim(inner[0], shape[1]) and same_dim(inner[1], shape[2])
    return node.value.args[0] if alike else expr


def _looked_up(trace: Trace, node: Node, left: relax.Expr, right: relax.Expr) -> Value | None:
    """Every row with the matrix of its expert."""
    first = left in trace.matrices
    found, other = trace.matrices[left if first else right], right if first else left
    value, shape, out = trace.value(other) or _rows(trace, other, found.axis), dims(other), dims(node.var)
    if value is None or shape is None or out is None or len(shape) != 3 or shape[2 if first else 1] != 1:
        return None
    if value.axes[0] != found.axis or value.kinds != found.axis.kind + "N":
        return None
    core = Core((found.stack,), first != found.turned, value, other)
    axes = (found.axis, ELEMENTS, ONE) if first else (found.axis, ONE, ELEMENTS)
    return Value(axes, trace.leaf("p", Product(core, Part(0, 1, int(out[1 if first else 2])))))


def _rows(trace: Trace, expr: relax.Expr, axis: Axis) -> Value | None:
    """The token's row for every slot, where it was repeated for them by shape alone."""
    shape, routing = dims(expr), axis.routing
    if shape is None or axis.kind != "S" or routing is None:
        return None
    if routing.top == 1 and len(shape) == 3 and same_dim(shape[0], routing.tokens):
        return Value(
            tuple(ONE if is_one(dim) else a for a, dim in zip((axis, ELEMENTS, ELEMENTS), shape, strict=True)),
            trace.token_rows(expr),
        )
    wide = trace.graph.node(trace.bare(expr))
    if wide is None or wide.op not in ("relax.broadcast_to", "relax.tile"):
        return None
    outer = [dim for dim in dims(wide.var) or () if not is_one(dim)]
    inner = [dim for dim in dims(wide.value.args[0]) or () if not is_one(dim)]
    if len(inner) < 2 or len(outer) != len(inner) + 1 or not same_dim(outer[-2], routing.top):
        return None
    if not all(same_dim(a, b) for a, b in zip(outer[:-2], inner[:-1], strict=True)) or outer[-1] != inner[-1]:
        return None
    if not same_dim(math.prod(inner[1:-1], start=inner[0]), routing.tokens):
        return None
    axes = reshaped((axis, ELEMENTS), (routing.slots, outer[-1]), shape)
    return None if axes is None else Value(axes, trace.token_rows(wide.value.args[0]))


RULES = {"relax.matmul": matmul}
