"""Ensembles of decision trees; they are walked by dscc/library/trees.c."""

from __future__ import annotations

import numpy as np
from tvm import relax
from tvm.relax import Expr
from tvm.relax import op as R

from dscc import library
from dscc.frontends.onnx.ml import forest
from dscc.frontends.onnx.ml.forest import Forest
from dscc.frontends.onnx.ml.scores import DOMAIN, as_floats, label_of, labels, named, require_rows, transformed
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.ops.detection import as_type
from dscc.frontends.onnx.registry import converter
from dscc.frontends.onnx.shapes import shape_expr
from dscc.frontends.onnx.values import Value, numpy_dtype, scalar

_AGGREGATES = ("SUM", "AVERAGE", "MIN", "MAX")
_NUMBERED = (1, 0, 2, 3)  # places in it, as TreeEnsemble numbers them
_MOST_TARGETS = 1 << 16
_TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")


@converter("TreeEnsembleRegressor", domain=DOMAIN)
def tree_ensemble_regressor(node: Node, x: Value) -> Expr:
    """(rows, targets) of float32."""
    how = node.attr("aggregate_function", "SUM")
    if how not in _AGGREGATES:
        raise node.error(f"aggregate_function is '{how}'; allowed: {', '.join(_AGGREGATES)}")
    x = _features(node, x)
    trees = forest.of_lists(node, "target", numpy_dtype(x.dtype))
    sums = _walked(node, x, trees, node.attr("n_targets", 1), _AGGREGATES.index(how))
    based = _plus_base(node, as_type(node, sums, "float32"), node.attr("n_targets", 1))
    return transformed(node, based)


@converter("TreeEnsembleClassifier", domain=DOMAIN)
def tree_ensemble_classifier(node: Node, x: Value) -> tuple[Expr, Expr]:
    """Labels (rows,) of int64, and scores (rows, classes) of float32.

    Where all weights are those of one class of two, they say how much a row is of the second one, as they do in
    onnxruntime: a share if none is negative, else a distance from the boundary; only LOGISTIC transforms them.
    """
    names = labels(node, "classlabels_int64s", "classlabels_strings")
    x = _features(node, x)
    trees = forest.of_lists(node, "class", numpy_dtype(x.dtype))
    if len(names) < 2:
        raise node.unsupported("it has a single class")
    one_of_two = len(names) == 2 and len(np.unique(trees.targets)) == 1
    if one_of_two:
        trees.targets[:] = 0
    count = 1 if one_of_two else len(names)
    sums = as_type(node, _walked(node, x, trees, count, 0), "float32")
    scores = _plus_base(node, sums, count)
    if not one_of_two:
        return label_of(node, scores, names), transformed(node, scores)
    kind = node.attr("post_transform", "NONE")
    if kind == "PROBIT":
        raise node.unsupported("post_transform 'PROBIT' is not compiled")
    is_share = bool((trees.weights >= 0).all())
    is_second = node.emit(R.greater(scores, scalar(0.5 if is_share else 0, "float32")))
    place = node.emit(R.squeeze(node.emit(R.astype(is_second, "int64")), axis=[1]))
    one = scalar(1 if is_share and kind != "LOGISTIC" else 0, "float32")
    both = node.emit(R.concat([node.emit(R.subtract(one, scores)), scores], axis=1))
    return named(node, place, names), transformed(node, both) if kind == "LOGISTIC" else both


@converter("TreeEnsemble", since=5, domain=DOMAIN)
def tree_ensemble(node: Node, x: Value) -> Expr:
    """(rows, targets) of the type of x."""
    how, kind = node.attr("aggregate_function", 1), node.attr("post_transform", 0)
    if how not in range(4) or kind not in range(5):
        raise node.error(f"aggregate_function is {how}, post_transform {kind}; allowed: 0 to 3, and 0 to 4")
    if kind:
        raise node.unsupported(f"post_transform '{_TRANSFORMS[kind]}' is not compiled")
    floats = _features(node, x)
    trees = forest.of_arrays(node, numpy_dtype(floats.dtype))
    found = _walked(node, floats, trees, node.attr("n_targets", 1), _NUMBERED[how])
    return as_type(node, found, x.dtype)


def _features(node: Node, x: Value) -> Value:
    require_rows(node, x)
    return node.value(as_floats(node, x.expr))


def _walked(node: Node, x: Value, trees: Forest, count: int, how: int) -> Expr:
    """(rows, count): what the leaves of all trees add up to."""
    if count < 1 or ((trees.targets < 0) | (trees.targets >= count)).any():
        raise node.error(f"a weight is of a target or class that is not one of {count}")
    if count > _MOST_TARGETS:
        raise node.unsupported(f"it has {count} targets; compiled are {_MOST_TARGETS}")
    node.require_at_least(x.shape[1], trees.features, "the number of features")
    arrays = (trees.nodes, trees.thresholds, trees.spans, trees.targets, trees.weights, trees.roots)
    options = shape_expr([count, how, int(trees.is_plain)])
    args = [x.expr, *(node.value(array).expr for array in arrays), options]
    return node.emit(library.call("tree_ensemble", args, relax.TensorType(shape_expr([x.shape[0], count]), x.dtype)))


def _plus_base(node: Node, sums: Expr, count: int) -> Expr:
    tensor = node.attr("base_values_as_tensor", None)
    base = np.asarray(tensor if tensor is not None else node.attr("base_values", None) or [], np.float32).reshape(-1)
    if not base.size:
        return sums
    if base.size not in (1, count):
        raise node.unsupported(f"it has {base.size} base values for {count} scores")
    return node.emit(R.add(sums, node.value(base).expr))
