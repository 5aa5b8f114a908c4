"""Interpolation along one axis of a tensor, as ONNX's Resize defines it, with what steers it known now or only when the
model runs (`steering.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from tvm import te, tirx
from tvm.relax import Expr
from tvm.relax import op as R

from dscc.elements import numpy_dtype
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.ops.cast import number_as
from dscc.frontends.onnx.shapes import shape_expr
from dscc.frontends.onnx.values import Dim, Value, is_float, scalar, static

_METHODS = ("nearest", "linear", "cubic")


@dataclass(frozen=True)
class Filter:
    """How a result is made of its neighbours, by the attributes of the node.

    Attributes:
        mode: how coordinates are mapped. nearest: how they are rounded. exclude: whether only what is inside counts.
    """

    method: str
    mode: str
    nearest: str
    antialias: bool
    exclude: bool
    cubic: float
    extrapolation: float

    @classmethod
    def of(cls, node: Node, mode: str, nearest: str) -> Filter:
        method = node.attr("mode", "nearest")
        if method not in _METHODS:
            raise node.error(f"mode is '{method}'; allowed: {', '.join(_METHODS)}")
        return cls(
            method,
            mode,
            nearest,
            bool(node.attr("antialias", 0)) and method != "nearest",
            bool(node.attr("exclude_outside", 0)),
            node.attr("cubic_coeff_a", -0.75),
            node.attr("extrapolation_value", 0.0),
        )

    def weight(self, d: Any) -> Any:
        """Of a neighbour at the distance d."""
        zero, a = tirx.const(0.0, str(d.ty.dtype)), self.cubic
        if self.method == "linear":
            return tirx.max(1 - d, zero)
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        return tirx.if_then_else(d <= 1, near, tirx.if_then_else(d < 2, far, zero))

    @property
    def support(self) -> int:
        """How far away the last neighbour is that counts."""
        return 1 if self.method == "linear" else 2

    def taps(self, t: Any, scale: float) -> list[tuple[int, Any]]:
        """(offset from floor, weight) for the fraction t; with scale < 1 the filter is widened against aliasing."""
        if self.method == "linear" and scale == 1:
            return [(0, 1 - t), (1, t)]
        reach = math.ceil(self.support / scale)
        return [(o, self.weight(tirx.abs((o - t) * scale))) for o in range(1 - reach, reach + 1)]

    def rounded(self, c: Any) -> Any:
        if self.nearest == "floor":
            return tirx.floor(c)
        if self.nearest == "ceil":
            return tirx.ceil(c)
        return tirx.ceil(c - 0.5) if self.nearest == "round_prefer_floor" else tirx.floor(c + 0.5)


@dataclass(frozen=True)
class Axis:
    """How one axis is brought to `size` elements.

    Attributes:
        scale: None where it is the ratio of the sizes. window: where the region begins and ends, from 0 to 1.
        steer: a tensor that has both in its row `row`, where they are known only when the model runs. taps: how many
        elements each result is made of, where that follows from a scale which is not known.
    """

    axis: int
    size: Dim
    scale: float | None = None
    window: tuple[float, float] | None = None
    steer: Expr | None = None
    row: int = 0
    taps: Dim | None = None


def interpolate(node: Node, x: Value, ways: Sequence[Axis], by: Filter) -> Value:
    """One axis after the other; integers are rounded once, at the end."""
    result = x.expr
    rounded = not is_float(x.dtype) and (by.method != "nearest" or by.mode == "tf_crop_and_resize")
    if rounded:
        result = node.emit(R.astype(result, "float64"))
    for along in ways:
        result = node.emit(_interpolate(node, result, along, by))
    return node.value(_to_integer(node, result, x.dtype) if rounded else result)


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


def _interpolate(node: Node, x: Expr, along: Axis, by: Filter) -> Expr:
    """One axis of x brought to another size."""
    axis, scale, mode = along.axis, along.scale, by.mode
    shape = list(x.ty.shape.values)
    before = static(shape[axis])
    shape[axis] = along.size

    def compute(data: te.Tensor, *rest: Any) -> te.Tensor:
        *steer, target, counts = rest
        length = data.shape[axis]
        working = "float64" if data.dtype == "float64" else "float32"

        def real(value: Any) -> Any:
            return tirx.Cast(working, value)

        def kept(value: Any, name: str) -> Any:
            """A number kept in a tensor of one element: TVM 0.27 binds such floats to variables and fails on their
            bounds as if they were integers ("IntImm supports only int").
            """
            return te.compute((1,), lambda _: value, name=name)

        # `ideal` is the size as the scale has it, before it is rounded.
        if steer:
            ideal = kept(real(length) * real(steer[0](along.row, 0)), "ideal")
            inverse = None
        elif scale is not None:
            ideal = kept(real(length) * tirx.const(scale, working), "ideal")
            inverse = tirx.const(1.0 / scale, working)
        else:
            ideal = kept(real(target[axis]), "ideal")
            steps = kept(real(tirx.max(target[axis] - 1, 1)), "steps")
            inverse = kept(real(length) / real(target[axis]), "ratio")(0)
        if steer or scale is not None:
            steps = kept(ideal(0) - 1, "steps")
        reach = kept(real(length - 1), "reach")
        growth = kept(real(target[axis]) / real(length), "growth")

        def spread(many: Any, one: Any) -> Any:
            """A coordinate by `steps`, and that of a lone element, for which it may be 0."""
            if scale is None and not steer and mode == "align_corners":
                return many
            return tirx.if_then_else(target[axis] > 1, many, one)

        def scaled(i: Any) -> Any:
            if steer:
                return i / real(steer[0](along.row, 0))
            if by.method == "nearest":  # whole numbers and halves must come out as such: they are rounded
                return i / (growth(0) if scale is None else tirx.const(scale, working))
            return i * inverse

        def coordinate(i: Any) -> Any:
            i = real(i)
            if mode == "asymmetric":
                return scaled(i)
            if mode == "align_corners":
                # In this order: a coordinate of a half must come out as one.
                return spread(i * reach(0) / steps(0), tirx.const(0.0, working))
            if mode == "pytorch_half_pixel":
                return (scaled(i + 0.5) - 0.5) * real(target[axis] > 1)
            if mode == "tf_half_pixel_for_nn":
                return scaled(i + 0.5)
            if mode == "half_pixel_symmetric":
                return real(length) / 2 * (1 - real(target[axis]) / ideal(0)) + scaled(i + 0.5) - 0.5
            if mode == "tf_crop_and_resize":
                if steer:
                    start, end = real(steer[0](along.row, 1)), real(steer[0](along.row, 2))
                else:
                    start, end = (tirx.const(bound, working) for bound in along.window or (0.0, 1.0))
                moved = start * reach(0) + i * (end - start) * reach(0) / steps(0)
                return spread(moved, (start + end) / 2 * reach(0))
            if mode == "half_pixel":
                return scaled(i + 0.5) - 0.5
            raise node.error(f"coordinate_transformation_mode is '{mode}'; the standard has no such one")

        def stored(i: tuple[Any, ...], at: Any) -> Any:
            return data(*i[:axis], tirx.max(tirx.min(at, length - 1), 0), *i[axis + 1 :])

        def read(i: tuple[Any, ...], at: Any) -> Any:
            return real(stored(i, at))

        def finished(c: Any, value: Any) -> Any:
            """Of the type of the data; outside of a region that is cropped there is nothing to read."""
            if mode == "tf_crop_and_resize":
                outside = tirx.any(c < 0, c > real(length - 1))
                value = tirx.if_then_else(outside, tirx.const(by.extrapolation, working), value)
            if data.dtype == working:
                return value
            return tirx.Cast(data.dtype, value)

        def inside(at: Any, weight: Any) -> Any:
            if not by.exclude:
                return weight
            return tirx.if_then_else(tirx.all(at >= 0, at < length), weight, tirx.const(0.0, working))

        def element(*i: Any) -> Any:
            c = coordinate(i[axis])
            if by.method == "nearest" and mode != "tf_crop_and_resize":  # large integers are no floats
                return stored(i, tirx.Cast("int64", by.rounded(c)))
            if by.method == "nearest":
                return finished(c, read(i, tirx.Cast("int64", by.rounded(c))))
            base = tirx.floor(c)
            first, t = tirx.Cast("int64", base), c - base
            narrow = 1.0
            if by.antialias:
                narrow = min(1.0, float(scale if scale is not None else int(along.size) / int(before or 1)))
            taps = [(o, inside(first + o, w)) for o, w in by.taps(t, narrow)]
            value = _total([read(i, first + o) * w for o, w in taps])
            return finished(c, value / _total([w for _, w in taps]) if by.exclude or by.antialias else value)

        if along.taps is None:
            return te.compute(list(target), element, name=f"resize_{by.method}")
        narrow = tirx.min(real(steer[0](along.row, 0)), tirx.const(1.0, working))
        first = te.compute(
            (target[axis],),
            lambda j: tirx.Cast("int64", tirx.floor(coordinate(j))) + 1 - counts[0] // 2,
            name="first",
        )
        weight = te.compute(
            (target[axis], counts[0]),
            lambda j, k: inside(first(j) + k, by.weight(tirx.abs((real(first(j) + k) - coordinate(j)) * narrow))),
            name="weight",
        )
        k, m = te.reduce_axis((0, counts[0]), "k"), te.reduce_axis((0, counts[0]), "m")
        whole = te.compute((target[axis],), lambda j: te.sum(weight(j, m), axis=m), name="whole")
        total = te.compute(
            list(target), lambda *i: te.sum(read(i, first(i[axis]) + k) * weight(i[axis], k), axis=k), name="total"
        )
        return te.compute(
            list(target),
            lambda *i: finished(coordinate(i[axis]), total(*i) / whole(i[axis])),
            name=f"resize_{by.method}",
        )

    args = [
        *([] if along.steer is None else [along.steer]),
        shape_expr(shape),
        shape_expr([1 if along.taps is None else along.taps]),
    ]
    return node.te(compute, x, *args, name=f"resize_{by.method}")


def _total(values: list[Any]) -> Any:
    return reduce(lambda a, b: a + b, values)
