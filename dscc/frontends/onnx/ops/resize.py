"""Resize and its predecessor Upsample.

The usual image cases (rank 4, both spatial dimensions, scales that the sizes state exactly) become `image.resize2d`,
which the passes and schedules know. Everything else is one interpolation per axis, as the standard defines it, in
kernels of ours.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

from tvm.relax import Expr
from tvm.relax import op as R

from dscc.frontends.onnx.interpolate import Axis, Filter, interpolate
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.registry import converter
from dscc.frontends.onnx.shapes import int64
from dscc.frontends.onnx.steering import computed, policy
from dscc.frontends.onnx.values import Dim, Ratio, Value, static

_METHODS = {"nearest": "nearest_neighbor", "linear": "linear"}
_ROUNDING = {
    "round_prefer_floor": "round_prefer_floor",
    "round_prefer_ceil": "round_prefer_ceil",
    "floor": "floor",
    "ceil": "ceil",
}
_SHARED_MODES = ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel")


@converter("Upsample", since=1)
def upsample_attributes(node: Node, x: Value) -> Expr | Value:
    scales = node.attr("scales", None) or [1.0, 1.0, node.required("height_scale"), node.required("width_scale")]
    return _upsample(node, x, scales)


@converter("Upsample", since=9)
def upsample(node: Node, x: Value, scales: Value) -> Expr | Value:
    if scales.data is None:
        return computed(node, x, list(range(x.ndim)), Filter.of(node, "asymmetric", "floor"), scales, None, None)
    return _upsample(node, x, _scales(scales))


def _upsample(node: Node, x: Value, scales: list[Any]) -> Expr | Value:
    return _resize(node, x, list(range(x.ndim)), scales, None, Filter.of(node, "asymmetric", "floor"))


@converter("Resize", since=10)
def resize_10(node: Node, x: Value, scales: Value) -> Expr | Value:
    return upsample(node, x, scales)


@converter("Resize", since=11)
def resize(
    node: Node, x: Value, roi: Value | None = None, scales: Value | None = None, sizes: Value | None = None
) -> Expr | Value:
    axes = [node.axis(axis, x.ndim) for axis in node.attr("axes", list(range(x.ndim)))]
    scales = None if scales is None or scales.shape == (0,) else scales
    sizes = None if sizes is None or sizes.shape == (0,) else sizes
    if (scales is None) == (sizes is None):
        raise node.error("exactly one of scales and sizes must be given")
    mode = node.attr("coordinate_transformation_mode", "half_pixel")
    by = Filter.of(node, mode, node.attr("nearest_mode", "round_prefer_floor"))
    if mode != "tf_crop_and_resize":
        roi = None
    elif roi is None:
        raise node.error("coordinate_transformation_mode tf_crop_and_resize needs the input roi")
    goal = None if sizes is None else node.ints(sizes, "the sizes", signed=False)
    kept = goal is not None and policy(node) != "stretch"
    known = all(static(dim) is not None for dim in [*(x.shape[axis] for axis in axes), *(goal or [])])
    if (
        (scales is not None and scales.data is None)
        or (roi is not None and roi.constant is None)
        or (not known and (by.antialias or kept))
    ):
        return computed(node, x, axes, by, scales, sizes, roi)
    given = None if scales is None else _scales(scales)
    if goal is not None and kept:
        given, goal = _keep_aspect(node, x, axes, goal)
    window = None
    if roi is not None:
        numbers = node.numbers(roi, "the region of interest")
        window = [(numbers[index], numbers[index + len(axes)]) for index in range(len(axes))]
    return _resize(node, x, axes, given, goal, by, window)


def _scales(scales: Value) -> list[Any]:
    return [] if scales.data is None else scales.data.reshape(-1).tolist()


def _keep_aspect(node: Node, x: Value, axes: list[int], goal: list[Dim]) -> tuple[list[float], list[Dim]]:
    """For sizes in numbers."""
    sizes = [int(x.shape[axis]) for axis in axes]
    ratios = [int(wanted) / max(size, 1) for wanted, size in zip(goal, sizes, strict=True)]
    scale = min(ratios) if policy(node) == "not_larger" else max(ratios)
    return [scale] * len(axes), [math.floor(scale * size + 0.5) for size in sizes]


def _resize(
    node: Node,
    x: Value,
    axes: list[int],
    scales: list[Any] | None,
    sizes: list[Dim] | None,
    by: Filter,
    window: list[tuple[float, float]] | None = None,
) -> Expr | Value:
    for scale in scales or []:
        if isinstance(scale, int | float) and not 0 < scale < math.inf:
            raise node.error(f"a scale is {scale}; scales are positive numbers")
    method, mode, nearest = by.method, by.mode, by.nearest
    shape = list(x.shape)
    factors: dict[int, Any] = {}
    exact = True
    for index, axis in enumerate(axes):
        dim = x.shape[axis]
        if sizes is not None:
            shape[axis] = sizes[index]
        elif scales is not None:
            start, end = window[index] if window is not None else (0.0, 1.0)
            shape[axis] = _scaled(node, dim, scales[index], end - start)
        if scales is not None:
            factors[axis] = scales[index]
            exact = exact and _is_exact(node, dim, shape[axis], scales[index])
    moved = [axis for axis in axes if not node.dims.equal(shape[axis], x.shape[axis]) or mode == "tf_crop_and_resize"]
    if not moved:
        return x
    plain = exact and mode in _SHARED_MODES and x.ndim == 4 and set(moved) <= {2, 3} and method != "cubic"
    plain = plain and not by.antialias
    if plain and method == "nearest" and not _nearest_agrees(node, mode, nearest, factors, moved):
        plain = False
    if plain and str(x.dtype) == "float32":
        return R.image.resize2d(
            x.expr,
            (int64(shape[2]), int64(shape[3])),
            layout="NCHW",
            method=_METHODS[method],
            coordinate_transformation_mode=mode,
            rounding_method=_ROUNDING[nearest] if method == "nearest" else "",
        )
    ways = []
    for axis in moved:
        factor = factors.get(axis)
        ways.append(
            Axis(
                axis,
                shape[axis],
                scale=None if factor is None or isinstance(factor, Ratio) else factor,
                window=window[axes.index(axis)] if window is not None else None,
            )
        )
    return interpolate(node, x, ways, by)


def _nearest_agrees(node: Node, mode: str, nearest: str, factors: dict[int, Any], moved: list[int]) -> bool:
    """Whole-number upsampling by floor of asymmetric coordinates is the one case that rounding cannot disturb."""
    return (
        mode == "asymmetric"
        and nearest == "floor"
        and all(isinstance(factors.get(axis), float | int) and float(factors[axis]).is_integer() for axis in moved)
    )


def _scaled(node: Node, dim: Dim, scale: Any, extent: float) -> Dim:
    """floor(dim * extent * scale)."""
    if isinstance(scale, Ratio) or not isinstance(scale, int | float | Fraction):
        raise node.unsupported("the scales depend on the model's dimensions; sizes may, scales may not")
    factor = float(scale) * extent
    if isinstance(dim, int):
        return math.floor(dim * factor)
    fraction = Fraction(factor).limit_denominator(4096)
    if abs(float(fraction) - factor) > 1e-6 * factor:
        fraction = Fraction(factor)
    return node.dims.floordiv(dim * fraction.numerator, fraction.denominator)


def _is_exact(node: Node, dim: Dim, size: Dim, scale: Any) -> bool:
    """Whether size / dim is the scale, so that it need not be passed on."""
    if isinstance(dim, int) and isinstance(size, int):
        return abs(size - dim * scale) < 1e-6 * size
    return float(scale).is_integer()
