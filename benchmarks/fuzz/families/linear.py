"""Matrix products in all their forms, and what networks put behind them."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.fuzz.graph import Graph, Rejected, Value

_ACTIVATIONS = ("Relu", "Sigmoid", "Tanh", "LeakyRelu", "HardSwish", "Erf", "Softplus", "Elu")


def scaled(g: Graph, dtype: str, shape: tuple[int, ...], fan_in: int) -> Value:
    """A weight by which a product keeps the size of its operand."""
    return g.weight((g.rng.standard_normal(shape) / np.sqrt(max(fan_in, 1))).astype(dtype))


def width(g: Graph) -> int:
    return int(g.choose([1, 2, 3, 5, 8, 16, 17, 24, 32, 33, 48, 64]))


def behind(g: Graph, y: Value, channels: int, axis: int = -1) -> Value:
    """Bias, activation and residual, some of them; `axis` is the one that has the channels."""
    shape = [1] * y.ndim
    shape[axis] = channels
    if g.chance(0.5):
        bias = g.weight(
            g.content(y.dtype.name, shape if g.chance(0.5) else shape[y.ndim + axis if axis < 0 else axis :])
        )
        [y] = g.add("Add", [y, bias] if g.chance(0.8) else [bias, y])
    if g.chance(0.5):
        op = g.choose(_ACTIVATIONS)
        if op == "HardSwish" and g.opset < 14:
            op = "Relu"
        [y] = g.add(op, [y])
    if g.chance(0.3):
        other = g.pick(lambda v: v.dtype == y.dtype and v.shapes == y.shapes)
        [y] = g.add("Add", [y, other] if g.chance(0.5) else [other, y])
    return y


def matmul(g: Graph) -> None:
    """x @ w with a constant w, or with a batch of matrices."""
    x = g.floats(least=1)
    if not x.static(-1):
        raise Rejected("the number of columns is symbolic")
    k, n = x.sizes(-1)[0], width(g)
    lead: tuple[int, ...] = ()
    if x.ndim > 2 and g.chance(0.2):
        lead = (x.sizes(-3)[0] if x.static(-3) and g.chance(0.5) else 1,)
    vector = g.chance(0.05)
    [y] = g.add("MatMul", [x, scaled(g, x.dtype.name, (k,) if vector else (*lead, k, n), k)])
    if not vector and x.ndim > 1:
        behind(g, y, n)


def product(g: Graph) -> None:
    """The product of two values that the graph computes."""
    x = g.floats(least=2)
    y = g.pick(lambda v: v.dtype == x.dtype and v.ndim >= 2 and v.sizes(-2) == x.sizes(-1))
    g.add("MatMul", [x, y])


def gram(g: Graph) -> None:
    """x @ x^T, scaled."""
    x = g.floats(least=2)
    order = [*range(x.ndim - 2), x.ndim - 1, x.ndim - 2]
    [t] = g.add("Transpose", [x], perm=order)
    [y] = g.add("MatMul", [x, t] if g.chance(0.6) else [t, x])
    g.add("Mul", [y, g.weight(np.array(0.125, x.dtype))])


def gemm(g: Graph) -> None:
    x = g.floats(rank=2)
    trans_a, trans_b = g.integer(0, 1), g.integer(0, 1)
    if not x.static(0 if trans_a else 1):
        raise Rejected("the inner dimension is symbolic")
    k, n = x.sizes(0 if trans_a else 1)[0], width(g)
    w = scaled(g, x.dtype.name, (n, k) if trans_b else (k, n), k)
    c = g.weight(g.content(x.dtype.name, g.choose([(n,), (1, n), (1,), ()]))) if g.chance(0.7) else None
    attributes: dict[str, Any] = {
        "transA": trans_a or None, "transB": trans_b or None,
        "alpha": 0.5 if g.chance(0.2) else None, "beta": 1.5 if g.chance(0.2) else None,
    }  # fmt: skip
    [y] = g.add("Gemm", [x, w, c] if c is not None else [x, w], **attributes)
    behind(g, y, n)


_EQUATIONS = (
    *("ij->ji", "ij->i", "ij->", "ij,jk->ik", "bij,bjk->bik", "ij,ij->ij", "ij,kj->ik", "bij,bkj->bik", "i,j->ij"),
    *("abcd,abed->abce", "ii->i", "bij->b", "ijk,jil->kl", "...ij,...jk->...ik", "bij,j->bi"),
)


def einsum(g: Graph) -> None:
    equation = g.choose(_EQUATIONS)
    terms = equation.split("->")[0].split(",")
    x = g.floats(rank=len(terms[0])) if "." not in equation else g.floats(least=2)
    operands = [x]
    if len(terms) > 1:
        letters = {letter: x.sizes(a) for a, letter in enumerate(terms[0])} if "." not in equation else {}
        operands.append(
            g.pick(
                lambda v: (
                    v.dtype == x.dtype
                    and ("." in equation or v.ndim == len(terms[1]))
                    and all(
                        letters.get(letter, v.sizes(a)) == v.sizes(a) for a, letter in enumerate(terms[1]) if letters
                    )
                )
            )
        )
    g.add("Einsum", operands, equation=equation)


def mlp(g: Graph) -> None:
    """Two layers with an activation between them."""
    x = g.floats(least=2)
    if not x.static(-1):
        raise Rejected("the number of columns is symbolic")
    k, n = x.sizes(-1)[0], width(g)
    [y] = g.add("MatMul", [x, scaled(g, x.dtype.name, (k, n), k)])
    y = behind(g, y, n)
    [y] = g.add("MatMul", [y, scaled(g, x.dtype.name, (n, k), n)])
    g.add("Add", [y, x])


GENERATORS = {matmul: 5.0, product: 2.0, gram: 1.5, gemm: 3.0, einsum: 2.0, mlp: 1.5}
