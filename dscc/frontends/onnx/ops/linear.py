"""Matrix products."""

from __future__ import annotations

from tvm.relax import Expr
from tvm.relax import op as R

from dscc.frontends.onnx.broadcast import broadcast, broadcast_shape, fit
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.registry import converter
from dscc.frontends.onnx.shapes import reshaped
from dscc.frontends.onnx.values import Value, is_float, scalar


@converter("MatMul")
def matmul(node: Node, a: Value, b: Value) -> Expr:
    return R.matmul(*operands(node, a, b))


def operands(node: Node, a: Value, b: Value) -> tuple[Expr, Expr]:
    """a (..., m, k) and b (..., k, n) whose k and batch dimensions are stated to agree."""
    if not (a.ndim and b.ndim):
        raise node.error("a scalar has no matrix product")
    inner = a.shape[-1]
    x, y = a.expr, b.expr
    row = max(b.ndim - 2, 0)
    if not node.dims.equal(inner, b.shape[row]):
        y = node.restate(y, [inner if axis == row else dim for axis, dim in enumerate(b.shape)], "the second operand")
    batch_a, batch_b = list(a.shape[:-2]), list(b.shape[:-2])
    if batch_a and batch_b:
        target = broadcast_shape(node, [batch_a, batch_b])
        x, y = (_batched(node, data, list(batch), target) for data, batch in ((x, batch_a), (y, batch_b)))
    return x, y


def _batched(node: Node, x: Expr, batch: list[object], target: list[object]) -> Expr:
    """x with its batch dimensions stated, or repeated where they may be 1 when the model runs."""
    goal = target[len(target) - len(batch) :]
    if all((isinstance(d, int) and d == 1) or node.dims.equal(d, g) for d, g in zip(batch, goal, strict=True)):
        return x
    return fit(node, x, [*goal, *x.ty.shape.values[len(batch) :]])


@converter("Gemm")
def gemm(node: Node, a: Value, b: Value, c: Value | None = None) -> Expr:
    """alpha * A' @ B' + beta * C."""
    alpha, beta = node.attr("alpha", 1.0), node.attr("beta", 1.0)
    left = node.value(R.permute_dims(a.expr, [1, 0])) if node.attr("transA", 0) else a
    if node.attr("transB", 0):
        right = node.value(b.constant.T) if b.constant is not None else node.value(R.permute_dims(b.expr, [1, 0]))
    else:
        right = b
    result = node.value(R.matmul(*operands(node, left, right)))
    if alpha != 1:
        result = node.value(R.multiply(result.expr, scalar(alpha, a.dtype)))
    if c is None or beta == 0:
        return result.expr
    bias = c if beta == 1 else node.value(R.multiply(c.expr, scalar(beta, c.dtype)))
    return R.add(*broadcast(node, result, bias))


@converter("Einsum")
def einsum(node: Node, *xs: Value) -> Expr | Value:
    """Two operands become one matrix product over (batch, rows, sum) and (batch, sum, columns); the rest is Relax's
    einsum.
    """
    equation = node.required("equation").replace(" ", "")
    terms, arrow, result = equation.partition("->")
    inputs = terms.split(",")
    if not arrow:
        letters = "".join(inputs)
        result = "".join(sorted(c for c in set(letters) if letters.count(c) == 1 and c.isalpha()))
        result = ("..." if "..." in equation else "") + result
    simple = "." not in equation and len(xs) == 2 and all(len(set(t)) == len(t) for t in [*inputs, result])
    if simple and is_float(xs[0].dtype):
        return _product(node, xs[0], xs[1], inputs[0], inputs[1], result)
    return R.einsum([x.expr for x in xs], f"{','.join(inputs)}->{result}")


def _product(node: Node, a: Value, b: Value, left: str, right: str, result: str) -> Expr:
    def drop(x: Value, term: str, other: str) -> tuple[Value, str]:
        alone = [axis for axis, letter in enumerate(term) if letter not in other and letter not in result]
        if not alone:
            return x, term
        return node.value(R.sum(x.expr, alone)), "".join(
            letter for axis, letter in enumerate(term) if axis not in alone
        )

    a, left = drop(a, left, right)
    b, right = drop(b, right, left)
    batch = [c for c in left if c in right and c in result]
    inner = [c for c in left if c in right and c not in result]
    rows = [c for c in left if c not in right]
    columns = [c for c in right if c not in left]
    size = dict(zip(right, b.shape, strict=True)) | dict(zip(left, a.shape, strict=True))
    for letter, dim in zip(right, b.shape, strict=True):
        node.require_equal(dim, size[letter], f"dimension '{letter}'")

    def arrange(x: Value, term: str, groups: list[list[str]]) -> Expr:
        order = [term.index(letter) for group in groups for letter in group]
        moved = x.expr if order == sorted(order) else node.emit(R.permute_dims(x.expr, order))
        shape = [node.dims.product(size[letter] for letter in group) for group in groups]
        return node.emit(reshaped(moved, shape))

    product = node.emit(R.matmul(arrange(a, left, [batch, rows, inner]), arrange(b, right, [batch, inner, columns])))
    letters = [*batch, *rows, *columns]
    full = node.emit(reshaped(product, [size[letter] for letter in letters]))
    order = [letters.index(letter) for letter in result]
    return R.permute_dims(full, order) if order != sorted(order) else full
