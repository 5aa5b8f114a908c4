"""Resize and its predecessor Upsample.

The usual image cases (rank 4, both spatial dimensions, scales that the sizes state exactly) become `image.resize2d`,
which the passes and schedules know. Everything else is one interpolation per axis, as the standard defines it, in
kernels of ours.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
from tvm import te, tirx
from tvm.relax import Expr
from tvm.relax import op as R

from dscc.elements import numpy_dtype
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.ops.cast import number_as
from dscc.frontends.onnx.registry import converter
from dscc.frontends.onnx.shapes import int64, shape_expr
from dscc.frontends.onnx.values import Dim, Ratio, Value, is_float, scalar, static

_METHODS = {"nearest": "nearest_neighbor", "linear": "linear", "cubic": "cubic"}
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
    return _upsample(node, x, _scales(node, scales))


def _upsample(node: Node, x: Value, scales: list[Any]) -> Expr | Value:
    return _resize(node, x, list(range(x.ndim)), scales, None, "asymmetric", "floor")


@converter("Resize", since=10)
def resize_10(node: Node, x: Value, scales: Value) -> Expr | Value:
    return _upsample(node, x, _scales(node, scales))


@converter("Resize", since=11)
def resize(
    node: Node, x: Value, roi: Value | None = None, scales: Value | None = None, sizes: Value | None = None
) -> Expr | Value:
    axes = [node.axis(axis, x.ndim) for axis in node.attr("axes", list(range(x.ndim)))]
    given = None if scales is None or scales.shape == (0,) else _scales(node, scales)
    goal = None if sizes is None or sizes.shape == (0,) else node.ints(sizes, "the sizes", signed=False)
    if (given is None) == (goal is None):
        raise node.error("exactly one of scales and sizes must be given")
    if goal is not None and node.attr("keep_aspect_ratio_policy", "stretch") != "stretch":
        given, goal = _keep_aspect(node, x, axes, goal)
    mode = node.attr("coordinate_transformation_mode", "half_pixel")
    window = None
    if mode == "tf_crop_and_resize":
        if roi is None:
            raise node.error("coordinate_transformation_mode tf_crop_and_resize needs the input roi")
        numbers = node.numbers(roi, "the region of interest")
        window = [(numbers[index], numbers[index + len(axes)]) for index in range(len(axes))]
    return _resize(node, x, axes, given, goal, mode, node.attr("nearest_mode", "round_prefer_floor"), window)


def _scales(node: Node, scales: Value) -> list[Any]:
    if scales.data is None:
        raise node.unsupported(
            f"the scales ('{scales.name}') are computed when the model runs; they must follow from shapes and constants"
        )
    return scales.data.reshape(-1).tolist()


def _keep_aspect(node: Node, x: Value, axes: list[int], goal: list[Dim]) -> tuple[list[float], list[Dim]]:
    sizes = [static(x.shape[axis]) for axis in axes]
    wanted = [static(dim) for dim in goal]
    if None in sizes or None in wanted:
        raise node.unsupported("keep_aspect_ratio_policy needs known sizes")
    ratios = [w / s for w, s in zip(wanted, sizes, strict=True)]  # type: ignore[operator]
    scale = min(ratios) if node.attr("keep_aspect_ratio_policy") == "not_larger" else max(ratios)
    return [scale] * len(axes), [math.floor(scale * s + 0.5) for s in sizes]  # type: ignore[operator]


def _resize(
    node: Node,
    x: Value,
    axes: list[int],
    scales: list[Any] | None,
    sizes: list[Dim] | None,
    mode: str,
    nearest: str,
    window: list[tuple[float, float]] | None = None,
) -> Expr | Value:
    method = node.attr("mode", "nearest")
    if method not in _METHODS:
        raise node.error(f"mode is '{method}'; allowed: {', '.join(_METHODS)}")
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
    antialias = node.attr("antialias", 0) and method != "nearest"
    plain = (
        exact and mode in _SHARED_MODES and x.ndim == 4 and set(moved) <= {2, 3} and method != "cubic" and not antialias
    )
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
    result = x.expr
    rounded = not is_float(x.dtype) and (method != "nearest" or mode == "tf_crop_and_resize")
    if rounded:  # once, at the end
        result = node.emit(R.astype(result, "float64"))
    for axis in moved:
        bounds = window[axes.index(axis)] if window is not None else None
        factor = factors.get(axis)
        result = node.emit(
            _along(
                node,
                result,
                axis,
                shape[axis],
                None if factor is None or isinstance(factor, Ratio) else factor,
                method,
                mode,
                nearest,
                bounds,
            )
        )
    return node.value(_to_integer(node, result, x.dtype)) if rounded else node.value(result)


def _to_integer(node: Node, x: Expr, dtype: str) -> Expr:
    """The nearest integers, saturated; what is 2 ** 63 or 2 ** 64 as a float is no number of 64 bits."""
    if dtype == "bool":
        return R.not_equal(x, scalar(0, str(x.ty.dtype)))
    kind, limits = numpy_dtype(str(x.ty.dtype)), np.iinfo(dtype)
    low, high = kind.type(limits.min), kind.type(limits.max)
    if int(high) > limits.max:
        high = np.nextafter(high, kind.type(0))

    def compute(data: te.Tensor) -> te.Tensor:
        def element(*i: Any) -> Any:
            nearest = tirx.nearbyint(data(*i))
            inside = tirx.min(tirx.max(nearest, tirx.const(low, data.dtype)), tirx.const(high, data.dtype))
            return number_as(inside, dtype)

        return te.compute(data.shape, element, name="round")

    return node.te(compute, x, name=f"round_to_{dtype}")


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


def _along(
    node: Node,
    x: Expr,
    axis: int,
    size: Dim,
    scale: float | None,
    method: str,
    mode: str,
    nearest: str,
    window: tuple[float, float] | None,
) -> Expr:
    """One axis of x brought to `size` elements."""
    shape = list(x.ty.shape.values)
    shape[axis] = size
    cubic_a, exclude = node.attr("cubic_coeff_a", -0.75), bool(node.attr("exclude_outside", 0))
    extrapolation = node.attr("extrapolation_value", 0.0)
    antialias = bool(node.attr("antialias", 0)) and method != "nearest"
    if antialias and (
        not isinstance(size, int) or static(shape[axis]) is None or static(x.ty.shape.values[axis]) is None
    ):
        raise node.unsupported("antialias needs known sizes")

    def compute(data: te.Tensor, target: Any) -> te.Tensor:
        length = data.shape[axis]
        working = "float64" if data.dtype == "float64" else "float32"

        def real(value: Any) -> Any:
            return tirx.Cast(working, value)

        # Kept in tensors of one element: TVM 0.27 binds such floats to variables and fails on their bounds as if they
        # were integers ("IntImm supports only int").
        corners = te.compute((1,), lambda _: real(length - 1) / real(target[axis] - 1), name="corners")
        # In this order: a coordinate that is a half must come out as one.
        spread = te.compute(
            (target[axis],),
            lambda i: real(i) * real(length - 1) / real(tirx.max(target[axis] - 1, 1)),
            name="spread",
        )
        ratio = te.compute((1,), lambda _: real(length) / real(target[axis]), name="ratio")
        growth = te.compute((1,), lambda _: real(target[axis]) / real(length), name="growth")
        inverse = ratio(0) if scale is None else tirx.const(1.0 / scale, working)

        def coordinate(index: Any) -> Any:
            i = real(index)
            if mode == "asymmetric":
                return i * inverse
            if mode == "align_corners":
                return spread(index)
            if mode == "pytorch_half_pixel":
                return ((i + 0.5) * inverse - 0.5) * real(target[axis] > 1)
            if mode == "tf_half_pixel_for_nn":
                return (i + 0.5) * inverse
            if mode == "half_pixel_symmetric":
                ideal = real(length) / inverse
                return real(length) / 2 * (1 - real(target[axis]) / ideal) + (i + 0.5) * inverse - 0.5
            if mode == "tf_crop_and_resize" and window is not None:
                start, end = window
                middle = tirx.const(0.5 * (start + end), working) * real(length - 1)
                step = tirx.const(end - start, working) * corners(0)
                return tirx.if_then_else(target[axis] > 1, start * real(length - 1) + i * step, middle)
            if mode == "half_pixel" and method == "nearest" and scale is None:
                return (i + 0.5) / growth(0) - 0.5  # halves must come out as halves: they are rounded
            if mode == "half_pixel":
                return (i + 0.5) * inverse - 0.5
            raise node.unsupported(f"coordinate_transformation_mode '{mode}' is not supported")

        def stored(i: tuple[Any, ...], at: Any) -> Any:
            return data(*i[:axis], tirx.max(tirx.min(at, length - 1), 0), *i[axis + 1 :])

        def read(i: tuple[Any, ...], at: Any) -> Any:
            return real(stored(i, at))

        def element(*i: Any) -> Any:
            c = coordinate(i[axis])
            if method == "nearest" and mode != "tf_crop_and_resize":  # large integers are no floats
                return stored(i, tirx.Cast("int64", _round(c, nearest)))
            if method == "nearest":
                value = read(i, tirx.Cast("int64", _round(c, nearest)))
            else:
                base = tirx.floor(c)
                first, t = tirx.Cast("int64", base), c - base
                taps = _taps(
                    method,
                    t,
                    cubic_a,
                    min(1.0, float(scale if scale is not None else size / int(length))) if antialias else 1.0,
                )
                if exclude:
                    taps = [
                        (
                            o,
                            tirx.if_then_else(
                                tirx.all(first + o >= 0, first + o < length), w, tirx.const(0.0, working)
                            ),
                        )
                        for o, w in taps
                    ]
                value = _total([read(i, first + o) * w for o, w in taps])
                if exclude or antialias:
                    value = value / _total([w for _, w in taps])
            if mode == "tf_crop_and_resize":
                outside = tirx.any(c < 0, c > real(length - 1))
                value = tirx.if_then_else(outside, tirx.const(extrapolation, working), value)
            if data.dtype == working:
                return value
            return tirx.Cast(data.dtype, value)

        return te.compute(list(target), element, name=f"resize_{method}")

    return node.te(compute, x, shape_expr(shape), name=f"resize_{method}")


def _total(values: list[Any]) -> Any:
    result = values[0]
    for value in values[1:]:
        result = result + value
    return result


def _round(c: Any, nearest: str) -> Any:
    if nearest == "floor":
        return tirx.floor(c)
    if nearest == "ceil":
        return tirx.ceil(c)
    return tirx.ceil(c - 0.5) if nearest == "round_prefer_floor" else tirx.floor(c + 0.5)


def _taps(method: str, t: Any, a: float, scale: float) -> list[tuple[int, Any]]:
    """(offset from floor, weight) for the fraction t; with scale < 1 the filter is widened against aliasing."""
    if method == "linear" and scale == 1:
        return [(0, 1 - t), (1, t)]
    reach = math.ceil((1 if method == "linear" else 2) / scale)
    return [(o, _weight(method, tirx.abs((o - t) * scale), a)) for o in range(1 - reach, reach + 1)]


def _weight(method: str, d: Any, a: float) -> Any:
    zero = tirx.const(0.0, str(d.ty.dtype))
    if method == "linear":
        return tirx.max(1 - d, zero)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return tirx.if_then_else(d <= 1, near, tirx.if_then_else(d < 2, far, zero))
