"""Products of features with coefficients."""

from __future__ import annotations

import numpy as np
from tvm.relax import Expr
from tvm.relax import op as R

from dscc.frontends.onnx.ml.scores import DOMAIN, label_of, labels, require_rows, transformed
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.ops.detection import as_type
from dscc.frontends.onnx.registry import converter
from dscc.frontends.onnx.values import Value


@converter("LinearRegressor", domain=DOMAIN)
def linear_regressor(node: Node, x: Value) -> Expr:
    return transformed(node, _products(node, x, node.attr("targets", 1)))


@converter("LinearClassifier", domain=DOMAIN)
def linear_classifier(node: Node, x: Value) -> tuple[Expr, Expr]:
    names = labels(node, "classlabels_ints", "classlabels_strings")
    count = len(node.attr("intercepts", None) or ()) or len(names)
    if count != len(names) or count < 2:
        raise node.unsupported(f"it has scores for {count} of {len(names)} classes; only one for each is compiled")
    scores = _products(node, x, count)
    return label_of(node, scores, names), transformed(node, scores)


def _products(node: Node, x: Value, count: int) -> Expr:
    """(rows, count) of float32: x times the coefficients, plus the intercepts."""
    require_rows(node, x)
    given = np.array(node.required("coefficients", list), np.float32)
    if count < 1 or given.size % count:
        raise node.error(f"{given.size} coefficients are given for {count} targets; they must be as many for each")
    node.require_equal(x.shape[1], given.size // count, "the number of features")
    weights = np.ascontiguousarray(given.reshape(count, -1).T)
    features = as_type(node, x.expr, "float32")
    scores = node.emit(R.matmul(features, node.value(weights).expr))
    return plus(node, scores, node.attr("intercepts", None), count, "intercepts")


def plus(node: Node, scores: Expr, added: list[float] | None, count: int, what: str) -> Expr:
    if not added:
        return scores
    if len(added) not in (1, count):
        raise node.error(f"{len(added)} {what} are given for {count} targets")
    return node.emit(R.add(scores, node.value(np.array(added, np.float32)).expr))
