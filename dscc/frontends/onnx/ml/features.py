"""What is done to features before a model sees them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm.relax import Expr
from tvm.relax import op as R

from dscc.frontends.onnx.ml.scores import DOMAIN
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.ops.detection import as_type
from dscc.frontends.onnx.registry import converter
from dscc.frontends.onnx.shapes import reshaped
from dscc.frontends.onnx.values import Array, Value, numpy_dtype, scalar, static

_MOST_KEYS = 1024  # every element is compared with all of them


@converter("Scaler", domain=DOMAIN)
def scaler(node: Node, x: Value) -> Expr:
    """float32, whatever x is."""
    offset, scale = (_per_feature(node, x, name) for name in ("offset", "scale"))
    centred = node.emit(R.subtract(as_type(node, x.expr, "float32"), offset))
    return node.emit(R.multiply(centred, scale))


def _per_feature(node: Node, x: Value, name: str) -> Expr:
    """An attribute with a number for all features, or one for each."""
    numbers = np.array(node.required(name, list), np.float32)
    if len(numbers) != 1:
        node.require_equal(x.shape[-1], len(numbers), f"the number of features that '{name}' has numbers for")
    return node.value(numbers).expr


@converter("Normalizer", domain=DOMAIN)
def normalizer(node: Node, x: Value) -> Expr:
    """Rows over their norm; a row of norm 0 stays."""
    kind = node.attr("norm", "MAX")
    floats = as_type(node, x.expr, "float32")
    if kind == "MAX":
        norm = node.emit(R.max(floats, axis=-1, keepdims=True))
    elif kind == "L1":
        norm = node.emit(R.sum(node.emit(R.abs(floats)), axis=-1, keepdims=True))
    elif kind == "L2":
        norm = node.emit(R.sqrt(node.emit(R.sum(node.emit(R.multiply(floats, floats)), axis=-1, keepdims=True))))
    else:
        raise node.error(f"norm is '{kind}'; allowed: L1, L2, MAX")
    nothing = node.emit(R.equal(norm, scalar(0, "float32")))
    return node.emit(R.divide(floats, node.emit(R.where(nothing, scalar(1, "float32"), norm))))


@converter("Binarizer", domain=DOMAIN)
def binarizer(node: Node, x: Value) -> Expr:
    above = node.emit(R.greater(x.expr, scalar(node.attr("threshold", 0.0), x.dtype)))
    return node.emit(R.astype(above, x.dtype))


@converter("Imputer", domain=DOMAIN)
def imputer(node: Node, x: Value) -> Expr:
    """x with a number of its column wherever it has the one that stands for none."""
    kind = "floats" if x.dtype in ("float32", "float64") else "int64s"
    single = kind.removesuffix("s")
    given = np.array(node.required(f"imputed_value_{kind}", list), numpy_dtype(x.dtype))
    if given.size != 1:
        node.require_equal(x.shape[-1], given.size, "the number of features that are imputed")
    none = node.attr(f"replaced_value_{single}", 0.0 if kind == "floats" else 0)
    is_nan = kind == "floats" and np.isnan(none)
    missing = node.emit(R.isnan(x.expr) if is_nan else R.equal(x.expr, scalar(none, x.dtype)))
    return node.emit(R.where(missing, node.value(given).expr, x.expr))


@converter("FeatureVectorizer", domain=DOMAIN)
def feature_vectorizer(node: Node, *inputs: Value) -> Expr:
    """Columns of all inputs side by side, as float32; an input has as many as `inputdimensions` says, or zeros."""
    wanted = node.attr("inputdimensions", None) or [static(x.shape[-1]) for x in inputs]
    if len(wanted) != len(inputs):
        raise node.error(f"{len(wanted)} inputdimensions are given for {len(inputs)} inputs")
    parts = []
    for x, count in zip(inputs, wanted, strict=True):
        part = as_type(node, x.expr, "float32")
        if x.ndim == 1:
            part = node.emit(reshaped(part, [x.shape[0], 1]))
        width = static(part.ty.shape.values[1])
        if width is None or count is None:
            raise node.unsupported("the number of columns of its inputs must be known while compiling")
        if count < width:
            part = node.emit(R.strided_slice(part, [1], [0], [count]))
        elif count > width:
            part = node.emit(R.nn.pad(part, [0, 0, 0, count - width]))
        parts.append(part)
    return node.emit(R.concat(parts, axis=1)) if len(parts) > 1 else parts[0]


@converter("ArrayFeatureExtractor", domain=DOMAIN)
def array_feature_extractor(node: Node, x: Value, places: Value) -> Expr:
    """The columns at these places; a row of x as a matrix of one."""
    data = node.emit(reshaped(x.expr, [1, x.shape[0]])) if x.ndim == 1 else x.expr
    flat = node.emit(reshaped(places.expr, [node.dims.product(places.shape)]))
    return node.emit(R.take(data, flat, axis=data.ty.ndim - 1))


@converter("OneHotEncoder", domain=DOMAIN)
def one_hot_encoder(node: Node, x: Value) -> Expr:
    """(..., categories): 1 at the category that an element is."""
    if node.attr("cats_strings", None):
        raise node.unsupported("its categories are strings, and compiled code computes on numbers only")
    if not node.attr("zeros", 1):
        raise node.unsupported("an element of no category is an error (zeros = 0); this is not compiled")
    categories = np.array(node.required("cats_int64s", list), np.int64)
    found = _equals(node, as_type(node, x.expr, "int64"), categories)
    return node.emit(R.astype(found, "float32"))


def _equals(node: Node, x: Expr, keys: Array) -> Expr:
    """(..., keys): whether an element is this key; NaN is NaN since version 4 of the domain."""
    wide, table = node.emit(R.expand_dims(x, x.ty.ndim)), node.value(keys).expr
    found = node.emit(R.equal(wide, table))
    if node.opset >= 4 and keys.dtype.kind == "f" and np.isnan(keys).any():
        both = node.emit(R.logical_and(node.emit(R.isnan(wide)), node.value(np.isnan(keys)).expr))
        found = node.emit(R.logical_or(found, both))
    return found


@converter("LabelEncoder", since=2, domain=DOMAIN)
def label_encoder(node: Node, x: Value) -> Expr:
    """The value of the key that an element is, or the default."""
    if any(node.attr(name, None) for name in ("keys_strings", "values_strings")):
        raise node.unsupported("it maps strings, and compiled code computes on numbers only")
    keys, values = (_table(node, what) for what in ("keys", "values"))
    if len(keys) != len(values):
        raise node.error(f"{len(keys)} keys are given, and {len(values)} values")
    if len(keys) > _MOST_KEYS:
        raise node.unsupported(f"{len(keys)} keys are more than are compared one by one ({_MOST_KEYS})")
    found = _equals(node, x.expr, keys.astype(numpy_dtype(x.dtype)))
    count = len(keys)
    places = node.emit(R.where(found, node.value(np.arange(count)).expr, scalar(count, "int64")))
    place = node.emit(R.min(places, axis=-1))
    return node.emit(R.take(node.value(np.append(values, _default(node, values.dtype))).expr, place, axis=0))


def _table(node: Node, what: str) -> Array:
    tensor: Any = node.attr(f"{what}_tensor", None)
    if tensor is not None:
        if tensor.dtype.kind not in "if":
            raise node.unsupported("it maps strings, and compiled code computes on numbers only")
        return np.asarray(tensor).reshape(-1)
    floats: Sequence[float] | None = node.attr(f"{what}_floats", None)
    integers: Sequence[int] | None = node.attr(f"{what}_int64s", None)
    if floats:
        return np.array(floats, np.float32)
    if integers:
        return np.array(integers, np.int64)
    raise node.error(f"there are no {what}")


def _default(node: Node, dtype: Any) -> Array:
    tensor = node.attr("default_tensor", None)
    if tensor is not None:
        return np.asarray(tensor, dtype).reshape(1)
    number: Any = node.attr("default_float", -0.0) if dtype.kind == "f" else node.attr("default_int64", -1)
    return np.array([number], dtype)
