"""Boxes: which of many to keep, and what lies inside of them."""

from __future__ import annotations

import numpy as np
from tvm import relax
from tvm.relax import Expr
from tvm.relax import op as R

from dscc import library
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.registry import converter
from dscc.frontends.onnx.shapes import reshaped, shape_expr
from dscc.frontends.onnx.values import Value, numpy_dtype, scalar


@converter("NonMaxSuppression")
def non_max_suppression(
    node: Node,
    boxes: Value,
    scores: Value,
    most: Value | None = None,
    overlap: Value | None = None,
    least: Value | None = None,
) -> Expr:
    """Rows of image, class, box; how many there are only the running model knows."""
    count = 0 if most is None else node.ints(most, "max_output_boxes_per_class", signed=False)[0]
    numbers = [_single(node, value) for value in (overlap, least)]
    options = shape_expr([count, node.attr("center_point_box", 0), least is not None])
    args = [as_type(node, boxes.expr, "float32"), as_type(node, scores.expr, "float32"), *numbers, options]
    found = node.bb.emit(library.call("non_max_suppression", args, relax.TensorType(ndim=2, dtype="int64")))
    return node.bb.match_cast(found, relax.TensorType(shape_expr([node.dims.symbol("selected", 0), 3]), "int64"))


def _single(node: Node, value: Value | None) -> Expr:
    """A number as a tensor of float32; 0 if it is left out, or is an empty list."""
    if value is None or 0 in value.shape:
        return scalar(0, "float32")
    return as_type(node, value.expr, "float32")


def as_type(node: Node, x: Expr, dtype: str) -> Expr:
    return x if str(x.ty.dtype) == dtype else node.emit(R.astype(x, dtype))


def working_type(dtype: str) -> str:
    """The type in which functions in C compute on tensors of type `dtype`."""
    return "float64" if dtype == "float64" else "float32"


@converter("RoiAlign")
def roi_align(node: Node, x: Value, rois: Value, images: Value) -> Expr:
    mode = node.attr("mode", "avg").lower()
    if mode not in ("avg", "max"):
        raise node.error(f"mode is '{mode}'; allowed: avg, max")
    default = "half_pixel" if node.opset >= 16 else "output_half_pixel"
    options = [
        node.attr("output_height", 1),
        node.attr("output_width", 1),
        node.attr("sampling_ratio", 0),
        mode == "avg",
        node.attr("coordinate_transformation_mode", default) == "half_pixel",
    ]
    return _regions(node, "roi_align", x, rois, as_type(node, images.expr, "int64"), options)


@converter("MaxRoiPool")
def max_roi_pool(node: Node, x: Value, rois: Value) -> Expr:
    first = node.emit(R.strided_slice(rois.expr, [1], [0], [1]))
    images = node.emit(R.astype(node.emit(reshaped(first, [rois.shape[0]])), "int64"))
    return _regions(node, "roi_pool", x, rois, images, node.required("pooled_shape"))


def _regions(node: Node, function: str, x: Value, rois: Value, images: Expr, options: list[int]) -> Expr:
    """(regions, channels, rows, columns); the first two options are the rows and columns."""
    node.require_equal(images.ty.shape.values[0], rois.shape[0], "the number of regions")
    working = working_type(x.dtype)
    scale = node.value(np.asarray(node.attr("spatial_scale", 1.0), numpy_dtype(working))).expr
    args = [as_type(node, x.expr, working), as_type(node, rois.expr, working), images, scale, shape_expr(options)]
    shape = shape_expr([rois.shape[0], x.shape[1], *options[:2]])
    return as_type(node, node.emit(library.call(function, args, relax.TensorType(shape, working))), x.dtype)
