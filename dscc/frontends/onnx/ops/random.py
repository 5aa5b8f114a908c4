"""Random numbers, drawn when the model runs: with a seed the same ones each time, without one other ones.

They are those of NumPy's RandomState for the same seed, as in ONNX's reference evaluator.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import count

from tvm import relax
from tvm.relax import Expr
from tvm.relax import op as R

from dscc import library
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.ops.detection import as_type, working_type
from dscc.frontends.onnx.registry import converter
from dscc.frontends.onnx.shapes import shape_expr
from dscc.frontends.onnx.values import Dim, Value, element_type, scalar

_CALLS = count()


def _options(node: Node, *more: int) -> Expr:
    """Whether there is a seed, the seed, `more`, and without a seed a number of the call's own: two draws are not one
    common subexpression.
    """
    seed = node.attr("seed", math.nan)
    if math.isnan(seed):
        return shape_expr([0, 0, *more, next(_CALLS)])
    return shape_expr([1, int(seed) % 2**32, *more])


def _draw(node: Node, shape: Sequence[Dim], dtype: str, scale: float, shift: float, normal: bool) -> Expr:
    working = working_type(dtype)
    args = [shape_expr(shape), scalar(scale, working), scalar(shift, working), _options(node, normal)]
    return as_type(node, node.emit(library.call("random", args, relax.TensorType(args[0], working))), dtype)


def _dtype(node: Node, default: str) -> str:
    code = node.attr("dtype", 0)
    return element_type(code, node.label) if code else default


@converter("RandomNormal")
def random_normal(node: Node) -> Expr:
    return _normal(node, node.required("shape"), "float32")


@converter("RandomNormalLike")
def random_normal_like(node: Node, x: Value) -> Expr:
    return _normal(node, x.shape, x.dtype)


def _normal(node: Node, shape: Sequence[Dim], default: str) -> Expr:
    return _draw(node, shape, _dtype(node, default), node.attr("scale", 1.0), node.attr("mean", 0.0), True)


@converter("RandomUniform")
def random_uniform(node: Node) -> Expr:
    return _uniform(node, node.required("shape"), "float32")


@converter("RandomUniformLike")
def random_uniform_like(node: Node, x: Value) -> Expr:
    return _uniform(node, x.shape, x.dtype)


def _uniform(node: Node, shape: Sequence[Dim], default: str) -> Expr:
    low, high = node.attr("low", 0.0), node.attr("high", 1.0)
    return _draw(node, shape, _dtype(node, default), high - low, low, False)


@converter("Bernoulli")
def bernoulli(node: Node, p: Value) -> Expr:
    chances = as_type(node, p.expr, working_type(p.dtype))
    drawn = library.call("random_bernoulli", [chances, _options(node)], relax.TensorType(p.expr.ty.shape, "bool"))
    return R.astype(node.emit(drawn), _dtype(node, p.dtype))


@converter("Multinomial")
def multinomial(node: Node, weights: Value) -> Expr:
    samples = node.attr("sample_size", 1)
    shape = shape_expr([weights.shape[0], samples])
    args = [as_type(node, weights.expr, working_type(weights.dtype)), _options(node, samples)]
    drawn = node.emit(library.call("random_classes", args, relax.TensorType(shape, "int64")))
    return as_type(node, drawn, _dtype(node, "int32"))


@converter("Dropout", since=12)
def dropout(
    node: Node, x: Value, ratio: Value | None = None, training: Value | None = None
) -> tuple[Value | Expr, Expr]:
    """The input passes, and the mask is all true, unless training_mode says otherwise when the model runs."""
    if training is None or (training.constant is not None and not training.constant.any()):
        return x, R.ones(shape_expr(x.shape), "bool")
    working = working_type(x.dtype)
    share = scalar(0.5, working) if ratio is None else as_type(node, ratio.expr, working)
    args = [shape_expr(x.shape), share, training.expr, _options(node)]
    kept = node.emit(library.call("random_kept", args, relax.TensorType(shape_expr(x.shape), "bool")))
    used = node.emit(R.where(training.expr, share, scalar(0, working)))
    factor = node.emit(R.divide(scalar(1, working), node.emit(R.subtract(scalar(1, working), used))))
    scaled = node.emit(R.multiply(as_type(node, x.expr, working), factor))
    return as_type(node, node.emit(R.where(kept, scaled, scalar(0, working))), x.dtype), kept
