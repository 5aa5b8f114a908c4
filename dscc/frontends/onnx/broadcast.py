"""Making the shapes of operands agree where ONNX broadcasts.

Relax's operators broadcast what they can prove. Two dimensions that are symbolic and not provably equal are one of
two cases:

- one of them is computed from others, as in a residual around a stride (`(h + 1) // 2 * 2` and `h`): they have to be
  equal, the network makes no sense otherwise, and a `match_cast` checks it when the model runs
- both are symbols of their own, or one is a number, or they are of the same symbols and differ wherever they were tried
  (`min(n, 1) + 1` and `n`): either may be 1 when the model runs, so a kernel of ours reads index 0 there, and the check
  allows 1

A slice of one element is the third: its dimension is `min(d, 1)`, of which only `d` can be the common one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import relax, te, tirx

from dscc.frontends.onnx.node import LONG, Node
from dscc.frontends.onnx.shapes import equals, int64, is_bare, shape_expr
from dscc.frontends.onnx.values import Dim, Value, static


def broadcast(node: Node, *values: Value) -> list[relax.Expr]:
    """The operands as expressions on which Relax's broadcasting is proved to work."""
    target = broadcast_shape(node, [value.shape for value in values])
    if all(static(dim) is not None for value in values for dim in value.shape):
        return [value.expr for value in values]
    return [fit(node, value.expr, target) for value in values]


def broadcast_shape(node: Node, shapes: Sequence[Sequence[Dim]]) -> list[Dim]:
    """The common shape of `shapes`."""
    rank = max(len(shape) for shape in shapes)
    target: list[Dim] = [1] * rank
    for shape in shapes:
        for axis, dim in enumerate(shape, rank - len(shape)):
            target[axis] = _common(node, target[axis], dim)
    return target


def _common(node: Node, a: Dim, b: Dim) -> Dim:
    dims = node.dims
    if static(a) == 1:
        return b
    if static(b) == 1 or dims.equal(a, b):
        return a
    if static(a) is not None and static(b) is not None:
        raise node.error(f"operands do not broadcast: dimensions {a} and {b} differ and neither is 1")
    if static(a) is not None:  # the other may be 1 when the model runs
        return a
    if static(b) is not None:
        return b
    for whole, part in ((a, b), (b, a)):
        if _is_first(node, part, whole):
            return whole
    for chosen, other in ((a, b), (b, a)):  # the common dimension of two that `other` is one of
        if isinstance(chosen, tirx.Select) and any(dims.equal(each, other) for each in _choices(chosen)):
            return chosen
    if (is_bare(a) and is_bare(b)) or dims.differ(a, b):
        return dims.simplify(tirx.Select(equals(a, 1), b, a))
    return a if is_bare(a) or not is_bare(b) else b


def _choices(dim: tirx.Select) -> tuple[Dim, Dim]:
    return dim.true_value, dim.false_value


def _is_first(node: Node, part: Dim, whole: Dim) -> bool:
    """Whether `part` is `min(whole, 1)`: 1, or 0 where the whole is empty."""
    return node.dims.equal(part, node.dims.minimum(whole, 1, decides=False))


def fit(node: Node, x: relax.Expr, target: Sequence[Dim], *, grows: bool = False) -> relax.Expr:
    """x with its dimensions stated as those of `target`, or read repeatedly where they are 1 when the model runs.

    Args:
        grows: whether a computed dimension that meets a number is as likely to be 1 as to be that number.
    """
    shape = list(x.ty.shape.values)
    goal = list(target[len(target) - len(shape) :])
    stated, stretched = list(shape), False
    for axis, (dim, wanted) in enumerate(zip(shape, goal, strict=True)):
        if static(dim) == 1 or node.dims.equal(dim, wanted):
            continue
        if _is_first(node, dim, wanted):
            stretched = True
            continue
        chosen = isinstance(wanted, tirx.Select)  # where a dimension is 1: it may be this one, also if it is computed
        unsure = static(wanted) is not None and (grows or isinstance(dim, tirx.Var))
        if chosen or unsure or node.dims.differ(dim, wanted):
            stretched = True
            node.require_equal(tirx.Select(equals(dim, 1), int64(wanted), dim), wanted, "a broadcast dimension")
        else:
            stated[axis] = wanted
    x = node.restate(x, stated, "an operand")
    return node.emit(stretch(node, x, goal)) if stretched else x


def stretch(node: Node, x: relax.Expr, target: Sequence[Dim]) -> relax.Expr:
    """x (d0, d1, ...) as `target`, of the same rank; index 0 is read along the dimensions that are 1 when the model
    runs.
    """

    def compute(data: te.Tensor, goal: Any) -> te.Tensor:
        def element(*index: Any) -> Any:
            return data(
                *(
                    0 if static(d) == 1 else tirx.Select(equals(d, 1), tirx.IntImm("int64", 0), i)
                    for i, d in zip(index, data.shape, strict=True)
                )
            )

        return te.compute(list(goal), element, name="stretch")

    return node.te(compute, x, shape_expr(target), name="stretch")


def expand(node: Node, x: Value, shape: Sequence[Dim]) -> relax.Expr:
    """x broadcast to the common shape of its own and `shape`, in full."""
    target = broadcast_shape(node, [x.shape, shape])
    fitted = fit(node, x.expr, target, grows=True)
    return relax.op.broadcast_to(fitted, shape_expr(target))


def joined(node: Node, parts: Sequence[Value], axis: int) -> relax.Expr:
    """The parts one after the other along `axis`; their other dimensions have to be equal."""
    stated = [parts[0].expr]
    for part in parts[1:]:
        if part.ndim != parts[0].ndim:
            raise node.error(f"inputs of rank {parts[0].ndim} and {part.ndim} cannot be joined")
        wanted = [dim if at == axis else parts[0].shape[at] for at, dim in enumerate(part.shape)]
        stated.append(node.restate(part.expr, wanted, "an input"))
    # The place of each part is a sum of all lengths before it. Many open ones are joined in groups, whose lengths get a
    # symbol each.
    while sum(not isinstance(part.shape[axis], int | tirx.Var) for part in parts) > LONG and len(stated) > LONG:
        groups = [stated[first : first + LONG] for first in range(0, len(stated), LONG)]
        stated = [node.emit(relax.op.concat(group, axis)) for group in groups]
    return relax.op.concat(stated, axis)
