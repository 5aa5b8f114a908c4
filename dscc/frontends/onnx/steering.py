"""What steers a Resize whose scales or region the model computes, or follow from sizes that are not known yet."""

from __future__ import annotations

from functools import reduce
from typing import Any

from tvm import te, tirx

from dscc.frontends.onnx.interpolate import Axis, Filter, interpolate
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.shapes import equals, int64, reshaped, shape_expr
from dscc.frontends.onnx.values import Value

_POLICIES = ("stretch", "not_larger", "not_smaller")


def policy(node: Node) -> str:
    """What becomes of the ratio of the sizes."""
    found: str = node.attr("keep_aspect_ratio_policy", "stretch")
    if found not in _POLICIES:
        raise node.error(f"keep_aspect_ratio_policy is '{found}'; allowed: {', '.join(_POLICIES)}")
    return found


def computed(
    node: Node, x: Value, axes: list[int], by: Filter, scales: Value | None, sizes: Value | None, roi: Value | None
) -> Value:
    """For scales or a region that the model computes, and for what has to be computed from sizes that are not known.

    A kernel finds the scale and the region of every axis, another one the output's sizes, and of how many elements a
    filter is made that is widened against aliasing.
    """
    given, count = scales if scales is not None else sizes, len(axes)
    if given is None or given.shape != (count,):
        raise node.error(f"scales or sizes must be {count} numbers, one for each axis")
    if roi is not None and roi.shape != (2 * count,):
        raise node.error(f"roi must be {2 * count} numbers, two for each axis")
    lengths = shape_expr([x.shape[axis] for axis in axes])
    args = [given.expr, *([] if roi is None else [roi.expr]), lengths]
    steer = node.emit(node.te(_steering(scales is not None, count, policy(node)), *args, name="resize_steering"))
    plan = node.emit(node.te(_plan(scales is not None, count, by.support), steer, lengths, name="resize_plan"))
    flat = node.value(reshaped(plan, [2 * count]), "size")
    numbers = node.ints(flat, "the sizes", signed=False)
    if sizes is not None and policy(node) == "stretch":
        numbers[:count] = node.ints(sizes, "the sizes", signed=False)
    ways = [
        Axis(axis, numbers[k], steer=steer, row=k, taps=numbers[count + k] if by.antialias else None)
        for k, axis in enumerate(axes)
    ]
    return interpolate(node, x, ways, by)


def _steering(scaled: bool, count: int, kept: str) -> Any:
    """(axes, 3): scale, and where the region begins and ends."""

    def compute(number: te.Tensor, *rest: Any) -> te.Tensor:
        *bounds, length = rest

        def scale(k: int) -> Any:
            if scaled:
                return tirx.Cast("float32", number(k))
            ratios = [tirx.Cast("float32", number(i)) / tirx.Cast("float32", length[i]) for i in range(count)]
            return ratios[k] if kept == "stretch" else reduce(tirx.min if kept == "not_larger" else tirx.max, ratios)

        def element(k: Any, part: Any) -> Any:
            value: Any = tirx.const(0.0, "float32")
            for i in range(count):
                region = (
                    [bounds[0](i), bounds[0](i + count)] if bounds else [tirx.const(b, "float32") for b in (0.0, 1.0)]
                )
                for j, each in enumerate((scale(i), *region)):
                    here = tirx.all(equals(k, i), equals(part, j))
                    value = tirx.Select(here, tirx.Cast("float32", each), value)
            return value

        return te.compute((int64(count), int64(3)), element, name="steering")

    return compute


def _plan(scaled: bool, count: int, support: int) -> Any:
    """(2, axes): sizes of the output, and elements of the filter."""

    def compute(steer: te.Tensor, length: Any) -> te.Tensor:
        def element(row: Any, k: Any) -> Any:
            value: Any = int64(0)
            for i in range(count):
                exact = tirx.Cast("float32", length[i]) * steer(i, 0)
                if scaled:
                    exact = exact * (steer(i, 2) - steer(i, 1))
                size = tirx.Cast("int64", tirx.floor(exact if scaled else exact + 0.5))
                narrow = tirx.max(tirx.min(steer(i, 0), tirx.const(1.0, "float32")), tirx.const(1e-6, "float32"))
                taps = 2 * tirx.Cast("int64", tirx.ceil(tirx.const(float(support), "float32") / narrow))
                value = tirx.Select(equals(k, i), tirx.Select(equals(row, 0), tirx.max(size, 0), taps), value)
            return value

        return te.compute((int64(2), int64(count)), element, name="resize_plan")

    return compute
