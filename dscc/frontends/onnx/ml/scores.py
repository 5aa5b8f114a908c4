"""From the scores of classes or targets to what is asked of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tvm.relax import Expr
from tvm.relax import op as R

from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.ops.detection import as_type, working_type
from dscc.frontends.onnx.values import Value, scalar

DOMAIN = "ai.onnx.ml"


def require_rows(node: Node, x: Value) -> None:
    """Refuse features that are not (rows, features)."""
    if x.ndim != 2:
        raise node.error(f"'{x.name}' has rank {x.ndim}, expected 2")


def as_floats(node: Node, x: Expr) -> Expr:
    """Features as float32; doubles stay."""
    return as_type(node, x, working_type(str(x.ty.dtype)))


def transformed(node: Node, scores: Expr) -> Expr:
    """The scores, of shape (rows, classes), after the node's `post_transform`."""
    kind = node.attr("post_transform", "NONE")
    if kind == "NONE":
        return scores
    if kind == "LOGISTIC":
        return node.emit(R.sigmoid(scores))
    if kind == "SOFTMAX":
        return node.emit(R.nn.softmax(scores, axis=-1))
    if kind == "SOFTMAX_ZERO":
        return _softmax_zero(node, scores)
    raise node.unsupported(f"post_transform '{kind}' is not compiled")


def _softmax_zero(node: Node, scores: Expr) -> Expr:
    """Softmax in which a score of zero has no share, however it compares."""
    dtype = str(scores.ty.dtype)
    most = node.emit(R.max(scores, axis=-1, keepdims=True))
    powers = node.emit(R.exp(node.emit(R.subtract(scores, most))))
    nothing = node.emit(R.less_equal(node.emit(R.abs(scores)), scalar(1e-7, dtype)))
    shares = node.emit(R.where(nothing, scalar(0, dtype), powers))
    whole = node.emit(R.sum(shares, axis=-1, keepdims=True))
    even = node.emit(R.equal(whole, scalar(0, dtype)))
    divided = node.emit(R.divide(shares, node.emit(R.where(even, scalar(1, dtype), whole))))
    return node.emit(R.where(even, scalar(0.5, dtype), divided))


def labels(node: Node, integers: str, strings: str) -> list[int]:
    """The labels of the classes.

    Raises:
        UnsupportedError: they are strings.
        FrontendError: there are none.
    """
    if node.attr(strings, None):
        raise node.unsupported("its labels are strings, and compiled code computes on numbers only")
    found: Sequence[int] | None = node.attr(integers, None)
    if not found:
        raise node.error(f"neither '{integers}' nor '{strings}' has labels")
    return list(found)


def label_of(node: Node, scores: Expr, names: Sequence[int]) -> Expr:
    """The label of the greatest score of every row, the first one of equals."""
    return named(node, node.emit(R.argmax(scores, axis=1)), names)


def named(node: Node, places: Expr, names: Sequence[int]) -> Expr:
    """The label at each of these places."""
    if list(names) == list(range(len(names))):
        return places
    return node.emit(R.take(node.value(np.array(names, np.int64)).expr, places, axis=0))
