"""From a complete sum to the operator: its formulas, its weights in one order, its operands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tvm
from tvm import ir, relax, tirx
from tvm.ir import Expr, Var
from tvm.relax import op as R

from dscc.passes.graph import Graph
from dscc.passes.moe.merge import variables_of, with_leaves
from dscc.passes.moe.routed import Core, Input, Leaves, Part, Product, Routing, Share, Vector
from dscc.passes.moe.scalars import is_float
from dscc.passes.moe.stored import Stored, kept, stacked
from dscc.passes.moe.trace import Mixed
from dscc.passes.moe.weights import Weights
from dscc.passes.values import const, dims, dtype, same_dim
from dscc.schedule.experts import formula
from dscc.schedule.experts.mixture import Mixture


class Refused(Exception):
    """Says what is in the way."""


@dataclass(frozen=True)
class Experts:
    """A mixture and what it is called with: rows (tokens, hidden), ids, shares, constants by name."""

    mixture: Mixture
    x: relax.Expr
    share: Share
    routing: Routing
    constants: dict[str, np.ndarray]


def build(mixed: Mixed, leaves: Leaves, weights: Weights) -> Experts:
    """The operator for a sum.

    Raises:
        Refused: it is no mixture of two products.
    """
    routing = mixed.routing
    last = _only(_products(mixed.formula, leaves), "the result is not made of one product")
    shares: list[Share] = []
    leave, vectors = _named(mixed.formula, leaves, shares)
    middle_of = last.core.operand.formula
    firsts = _products(middle_of, leaves)
    if not 1 <= len(firsts) <= 2:
        raise Refused(f"the hidden layer is made of {len(firsts)} products, not of one or two")
    middle, biases = _named(middle_of, leaves, shares, firsts)
    cores = [leaf.core for leaf in firsts]
    sources = {id(core.operand.formula): core for core in cores}
    enter_of = cores[0].operand.formula
    if len(sources) > 1 and not all(tvm.ir.structural_equal(enter_of, core.operand.formula) for core in cores):
        raise Refused("the two parts of the hidden layer are products of different values")
    x, enter = _input(enter_of, cores[0], leaves, shares)
    if not shares:
        raise Refused("no weight of the router is in the sum")
    if any(not share.source.same_as(shares[0].source) for share in shares):
        raise Refused("several weights of the router are in the sum")
    if any(share.dense and share.outside for share in shares):
        raise Refused("the weights of experts that were not chosen are not zero")
    if any(share.dense or share.spread for share in shares) and not _vanishes(mixed.formula, leaves):
        raise Refused("an expert that was not chosen adds something to the sum")
    experts = routing.experts
    first = kept([_matrix(weights, leaf.core, leaf.part, experts) for leaf in firsts])
    second = kept([_matrix(weights, last.core, last.part, experts)])
    constants = {f"{kind}1": array for kind, array in first.operands.items()}
    constants |= {f"{kind}2": array for kind, array in second.operands.items()}
    if biases:
        if len(biases) < len(firsts):
            raise Refused("one part of the hidden layer has a bias and the other has none")
        several = [_vector(weights, biases[i], experts) for i in range(len(firsts))]
        constants["b1"] = np.concatenate(several, axis=1)
    if vectors:
        constants["b2"] = _vector(weights, vectors[0], experts)
    order = [name for name in ("w1", "s1", "z1", "b1", "w2", "s2", "z2", "b2") if name in constants]
    mixture = Mixture(
        experts=experts,
        top=routing.top,
        hidden=first.depth,
        inner=firsts[0].part.count,
        out=len(second.operands["w"][0]),
        parts=len(firsts),
        operands=("x", "ids", "shares", *order),
        enter=enter,
        middle=middle,
        leave=leave,
        first=first.storage,
        second=second.storage,
    )
    if second.depth != mixture.inner or len(first.operands["w"][0]) != mixture.columns:
        raise Refused("the products do not fit each other")
    wide = routing.experts if shares[0].dense else routing.top
    for expr, width in ((x, mixture.hidden), (routing.ids, routing.top), (shares[0].source, wide)):
        if not same_dim(math.prod(dims(expr) or (0,)), routing.tokens * width):
            raise Refused(f"'{expr}' is not known to have a row of {width} for every token")
    return Experts(mixture, x, shares[0], routing, {name: constants[name] for name in order})


def _products(expr: Expr, leaves: Leaves) -> list[Product]:
    """The products that a formula reads, each once; equal parts of one product are one."""
    found: list[Product] = []
    for var in variables_of(expr):
        leaf = leaves.get(var)
        if isinstance(leaf, Product) and not any(leaf.core is o.core and leaf.part == o.part for o in found):
            found.append(leaf)
    return found


def _only(products: Sequence[Product], otherwise: str) -> Product:
    if len(products) != 1:
        raise Refused(otherwise)
    return products[0]


def _named(
    expr: Expr, leaves: Leaves, shares: list[Share], several: Sequence[Product] = ()
) -> tuple[str, list[Vector]]:
    """The formula as text, p0 and p1 for the products in `several`, else p; and its biases in their order."""
    names: dict[Var, str] = {}
    vectors: list[Vector] = []
    for var in variables_of(expr):
        leaf = leaves.get(var)
        if isinstance(leaf, Product):
            number = next((i for i, o in enumerate(several) if leaf.core is o.core and leaf.part == o.part), None)
            names[var] = "p" if number is None else f"p{number}"
        elif isinstance(leaf, Vector):
            place = next(
                (i for i, o in enumerate(vectors) if o.constants == leaf.constants and o.part == leaf.part), None
            )
            if place is None:
                place = len(vectors)
                vectors.append(leaf)
            names[var] = f"b{place}" if several else "b"
            if place >= max(1, len(several)):
                raise Refused("there are more biases than products")
        elif isinstance(leaf, Share) and not several:
            names[var] = "share"
            shares.append(leaf)
        else:
            raise Refused(f"the formula reads '{var.name}', which is neither a product nor a bias")
    try:
        return formula.text(expr, names), vectors
    except ValueError as err:
        raise Refused(str(err)) from None


def _input(expr: Expr, core: Core, leaves: Leaves, shares: list[Share]) -> tuple[relax.Expr, str]:
    """The tokens' rows, and the formula of what is multiplied."""
    names: dict[Var, str] = {}
    source = None
    for var in variables_of(expr):
        leaf = leaves.get(var)
        if isinstance(leaf, Input):
            names[var], source = "x", leaf.source
        elif isinstance(leaf, Share):
            names[var] = "share"
            shares.append(leaf)
    if source is not None and len(names) == len(variables_of(expr)):
        return source, formula.text(expr, names)
    if core.operand.kinds == "TN" and not any(isinstance(leaves.get(var), Share) for var in variables_of(expr)):
        return core.source, '"x"'  # the rows are computed by what looks like a layer of its own
    raise Refused("the experts do not read the tokens' rows")


def _vanishes(expr: Expr, leaves: Leaves) -> bool:
    """Whether a formula is zero where the share is: there, products of what is zero are zero too."""
    zero = {v: tirx.const(0.0, "float32") for v in variables_of(expr) if _is_zero(leaves.get(v), leaves)}
    left = tvm.sym.Analyzer().simplify(with_leaves(expr, zero))
    return (isinstance(left, tirx.FloatImm) and float(left.value) == 0.0) or _is_product_with_zero(
        with_leaves(expr, zero)
    )


def _is_zero(leaf: object, leaves: Leaves) -> bool:
    if isinstance(leaf, Product):
        return _vanishes(leaf.core.operand.formula, leaves)
    return isinstance(leaf, Share)


def _is_product_with_zero(expr: Expr) -> bool:
    """Whether a factor is the number zero; that one of them may be infinite does not count."""
    if isinstance(expr, tirx.FloatImm):
        return float(expr.value) == 0.0
    if isinstance(expr, tirx.Mul):
        return _is_product_with_zero(expr.a) or _is_product_with_zero(expr.b)
    if isinstance(expr, tirx.Add | tirx.Sub):
        return _is_product_with_zero(expr.a) and _is_product_with_zero(expr.b)
    return False


def _matrix(weights: Weights, core: Core, part: Part, experts: int) -> Stored:
    """(experts, columns, depth)"""
    content = _stacked(weights, core.weights, experts, 3)
    columns = content if core.columns_first else content.permuted((0, 2, 1))
    return columns.taken(1, part.begin, part.step, part.count)


def _vector(weights: Weights, vector: Vector, experts: int) -> np.ndarray:
    """(experts, columns), float32"""
    several = vector.routed or len(vector.constants) > 1
    content = _stacked(weights, vector.constants, experts, 2 if several else 1).real()
    if content.ndim == 1:
        content = np.broadcast_to(content, (experts, *content.shape))
    part = vector.part
    return content[:, part.begin : part.begin + part.step * part.count : part.step].astype(np.float32)


def _stacked(weights: Weights, each: Sequence[relax.Expr], experts: int, rank: int) -> Stored:
    """One weight of all experts, of this rank."""
    read = [weights.read(expr) for expr in each]
    found = [one for one in read if one is not None]
    if len(found) < len(read):
        raise Refused("it is not known how a weight is expanded")
    shape = found[0].codes.shape
    if len(found) > 1:
        whole = stacked([one.reshaped(shape[len(shape) - rank + 1 :]) for one in found])
    elif rank == 2 and len(shape) == 3:  # (experts, 1, columns), beside rows of all experts
        whole = found[0].reshaped((shape[0], shape[2]))
    else:
        whole = found[0]
    if whole is None or whole.codes.ndim != rank or (rank > 1 and len(whole.codes) != experts):
        raise Refused(f"a weight has shape {tuple(shape)}, which is not that of {experts} experts")
    return whole


def emit(graph: Graph, mixed: Mixed, found: Experts, function: ir.GlobalVar, mixture: Mixture) -> relax.Expr:
    """The call of the operator in the place of the sum, in the sum's shape and type, with what else is in it."""
    node, routing = mixed.node, found.routing

    def shaped(expr: relax.Expr, shape: Sequence[object], kind: str) -> relax.Expr:
        out = graph.emit(node, R.reshape(expr, relax.ShapeExpr(_dims(shape))))
        return out if dtype(expr) == kind else graph.emit(node, R.astype(out, kind))

    x = shaped(found.x, [routing.tokens, mixture.hidden], "float32")
    ids = shaped(routing.ids, [routing.tokens, routing.top], "int64")
    source: relax.Expr = found.share.source
    if found.share.dense:
        wide = [routing.tokens, routing.experts]
        if found.share.turned:
            source = shaped(source, wide[::-1], dtype(source))
            source = graph.emit(node, R.permute_dims(source, [1, 0]))
        source = graph.emit(node, R.gather_elements(shaped(source, wide, dtype(source)), ids, axis=1))
    shares = shaped(source, [routing.tokens, routing.top], "float32")
    args = [x, ids, shares, *(const(array) for array in found.constants.values())]
    out = relax.TensorType(_dims([routing.tokens, mixture.out]), "float32")
    made = graph.emit(node, relax.call_tir(function, relax.Tuple(args), out))
    shape = dims(node.var)
    assert shape is not None  # a sum has one
    whole = shaped(made, shape, dtype(node.var)) if is_float(dtype(node.var)) else made
    for part in mixed.rest:
        whole = graph.emit(node, R.add(shaped(part, shape, dtype(node.var)), whole))
    return whole


def _dims(shape: Sequence[object]) -> list[Expr]:
    return [tirx.IntImm("int64", d) if isinstance(d, int) else d for d in shape]
