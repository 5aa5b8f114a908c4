"""Sums over support vectors, and the votes that they decide."""

from __future__ import annotations

import itertools

import numpy as np
from tvm import relax
from tvm.relax import Expr
from tvm.relax import op as R

from dscc import library
from dscc.frontends.onnx.ml.linear import plus
from dscc.frontends.onnx.ml.scores import DOMAIN, label_of, labels, require_rows, transformed
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.ops.detection import as_type
from dscc.frontends.onnx.registry import converter
from dscc.frontends.onnx.shapes import shape_expr
from dscc.frontends.onnx.values import Array, Value, scalar


@converter("SVMRegressor", domain=DOMAIN)
def svm_regressor(node: Node, x: Value) -> Expr:
    """(rows, 1): the coefficients' sum over the kernels of the support vectors; without any, a linear function."""
    require_rows(node, x)
    coefficients = np.array(node.required("coefficients", list), np.float32)
    supports, vectors = node.attr("n_supports", 0), np.array(node.attr("support_vectors", None) or [], np.float32)
    features = as_type(node, x.expr, "float32")
    if supports:
        if len(coefficients) != supports or vectors.size % supports:
            raise node.error(f"{len(coefficients)} coefficients and {vectors.size} numbers for {supports} vectors")
        rows = vectors.reshape(supports, -1)
        node.require_equal(x.shape[1], rows.shape[1], "the number of features")
        scores = _kernel(node, features, rows)
    else:
        node.require_equal(x.shape[1], len(coefficients), "the number of features")
        scores = features
    found = node.emit(R.matmul(scores, node.value(coefficients.reshape(-1, 1)).expr))
    found = plus(node, found, node.attr("rho", None), 1, "values of rho")
    if node.attr("one_class", 0):
        inside = node.emit(R.greater(found, scalar(0, "float32")))
        return node.emit(R.where(inside, scalar(1, "float32"), scalar(-1, "float32")))
    return transformed(node, found)


@converter("SVMClassifier", domain=DOMAIN)
def svm_classifier(node: Node, x: Value) -> tuple[Expr, Expr]:
    """Labels (rows,) of int64, and float32 scores: of every two classes, or where these have probabilities, of every
    class. The label is that of the class that wins most often against another.
    """
    names = labels(node, "classlabels_ints", "classlabels_strings")
    listed: list[int] | None = node.attr("vectors_per_class", None)
    sizes = listed or []
    if len(sizes) != len(names) or len(names) < 2:
        raise node.unsupported(
            f"it has vectors for {len(sizes)} of {len(names)} classes; only those of all are compiled"
        )
    require_rows(node, x)
    vectors, coefficients = (np.array(node.required(n, list), np.float32) for n in ("support_vectors", "coefficients"))
    total, pairs = sum(sizes), list(itertools.combinations(range(len(names)), 2))
    rho = np.array(node.required("rho", list), np.float32)
    if min(sizes) < 0 or not total or vectors.size % total or coefficients.size != total * (len(names) - 1):
        raise node.error(f"{vectors.size} numbers and {coefficients.size} coefficients are given for {total} vectors")
    if len(rho) != len(pairs):
        raise node.error(f"{len(rho)} values of rho are given for {len(pairs)} pairs of classes")
    rows = vectors.reshape(total, -1)
    node.require_equal(x.shape[1], rows.shape[1], "the number of features")
    kernels = _kernel(node, as_type(node, x.expr, "float32"), rows)
    weights = _pair_weights(coefficients.reshape(-1, total), sizes, pairs)
    scores = node.emit(R.add(node.emit(R.matmul(kernels, node.value(weights).expr)), node.value(rho).expr))
    label = label_of(node, _votes(node, scores, len(names), pairs), names)
    if node.attr("prob_a", None):
        return label, transformed(node, _coupled(node, scores, len(names)))
    if len(names) == 2:
        scores = node.emit(R.concat([node.emit(R.negative(scores)), scores], axis=1))
    return label, transformed(node, scores)


def _pair_weights(coefficients: Array, sizes: list[int], pairs: list[tuple[int, int]]) -> Array:
    """(vectors, pairs): what a vector of one of two classes counts in favour of the first one."""
    begins = np.cumsum([0, *sizes])
    found = np.zeros((coefficients.shape[1], len(pairs)), np.float32)
    for pair, (i, j) in enumerate(pairs):
        for which, row in ((i, j - 1), (j, i)):
            span = slice(begins[which], begins[which + 1])
            found[span, pair] = coefficients[row, span]
    return found


def _votes(node: Node, scores: Expr, count: int, pairs: list[tuple[int, int]]) -> Expr:
    """(rows, classes): how often each wins."""
    for_class, at_first = np.zeros((len(pairs), count), np.float32), np.zeros(count, np.float32)
    for pair, (i, j) in enumerate(pairs):
        for_class[pair, i], for_class[pair, j] = 1, -1
        at_first[j] += 1
    wins = node.emit(R.astype(node.emit(R.greater(scores, scalar(0, "float32"))), "float32"))
    return node.emit(R.add(node.emit(R.matmul(wins, node.value(for_class).expr)), node.value(at_first).expr))


def _coupled(node: Node, scores: Expr, count: int) -> Expr:
    """(rows, classes): probabilities, after those of every two classes, sigmoids of their scores."""
    slope, offset = (np.array(node.attr(name, None) or [], np.float32) for name in ("prob_a", "prob_b"))
    if not len(slope) == len(offset) == count * (count - 1) // 2:
        raise node.error(f"{len(slope)} and {len(offset)} numbers are given for the sigmoids of {count} classes")
    lines = node.emit(R.add(node.emit(R.multiply(scores, node.value(slope).expr)), node.value(offset).expr))
    first = node.emit(R.sigmoid(node.emit(R.negative(lines))))
    shape = shape_expr([scores.ty.shape.values[0], count])
    return node.emit(library.call("couple", [first, shape_expr([count])], relax.TensorType(shape, "float32")))


def _kernel(node: Node, x: Expr, vectors: Array) -> Expr:
    """(rows, vectors): how alike they are."""
    kind = node.attr("kernel_type", "LINEAR")
    gamma, offset, degree = (*(node.attr("kernel_params", None) or ()), 0.0, 0.0, 0.0)[:3]
    if kind == "RBF":
        apart = node.emit(R.subtract(node.emit(R.expand_dims(x, 1)), node.value(vectors[None]).expr))
        distances = node.emit(R.sum(node.emit(R.multiply(apart, apart)), axis=2))
        return node.emit(R.exp(node.emit(R.multiply(distances, scalar(-gamma, "float32")))))
    products = node.emit(R.matmul(x, node.value(np.ascontiguousarray(vectors.T)).expr))
    if kind == "LINEAR":
        return products
    scaled = node.emit(R.add(node.emit(R.multiply(products, scalar(gamma, "float32"))), scalar(offset, "float32")))
    if kind == "SIGMOID":
        return node.emit(R.tanh(scaled))
    if kind == "POLY":
        return node.emit(R.power(scaled, scalar(degree, "float32")))
    raise node.error(f"kernel_type is '{kind}'; allowed: LINEAR, POLY, RBF, SIGMOID")
