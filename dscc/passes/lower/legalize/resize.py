"""Resizing of images, for symbolic sizes too: TVM's definition wants the quotient of two sizes to be a constant.

    nearest  y[n, i, j, c] = x[n, i * H // H', j * W // W', c]              (asymmetric coordinates, rounded down)
    linear   y[n, i, j, c] = the mean of four neighbours weighted by the distance to (v(i), u(j))

Coordinates are computed per row and column, never per channel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import relax, sym, te, tirx

from dscc.passes.lower.legalize import legalize

_MODES = ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel", "tf_half_pixel_for_nn")
_ROUNDINGS: dict[str, Callable[[Any], Any]] = {
    "round": tirx.round,
    "round_prefer_floor": lambda v: tirx.ceil(v - 0.5),
    "round_prefer_ceil": lambda v: tirx.floor(v + 0.5),
    "floor": lambda v: tirx.floor(v + 1e-5),
    "ceil": lambda v: tirx.ceil(v - 1e-5),
}


@legalize("relax.image.resize2d")
def resize2d(bb: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """Nearest and linear interpolation of NHWC or NCHW data; TVM's definition for everything else."""
    attrs = call.attrs
    layout, method, mode = str(attrs.layout), str(attrs.method), str(attrs.coordinate_transformation_mode)
    known = layout in ("NHWC", "NCHW") and method in ("nearest_neighbor", "linear") and mode in _MODES
    if not known or str(call.args[0].ty.dtype) not in ("float32", "float16"):
        return call
    rows = layout.index("H")
    rounding = str(attrs.rounding_method) or ("round" if mode == "align_corners" else "floor")

    def define(x: te.Tensor, size: list[Any]) -> te.Tensor:
        shape = [*x.shape[:rows], *size, *x.shape[rows + 2 :]]

        def element(*at: Any) -> Any:
            def read(row: Any, column: Any) -> Any:
                return x(*at[:rows], row, column, *at[rows + 2 :])

            axes = [(at[rows + k], x.shape[rows + k], size[k]) for k in (0, 1)]
            if method == "nearest_neighbor":
                return read(*(_nearest(i, length, target, mode, rounding) for i, length, target in axes))
            (top, bottom, v), (left, right, u) = (_between(i, length, target, mode) for i, length, target in axes)
            v, u = v.astype(x.dtype), u.astype(x.dtype)
            one = tirx.const(1.0, x.dtype)
            above = read(top, left) * (one - u) + read(top, right) * u
            below = read(bottom, left) * (one - u) + read(bottom, right) * u
            return above * (one - v) + below * v

        return te.compute(shape, element, name="resize")

    return bb.call_te(define, call.args[0], call.args[1], primfunc_name_hint="resize2d")


def _coordinate(i: Any, length: Any, target: Any, mode: str) -> Any:
    """Where output index i lies in the input."""
    i, step = i.astype("float32"), length.astype("float32") / target.astype("float32")
    if mode == "asymmetric":
        return i * step
    if mode == "align_corners":
        last = tirx.max(target - 1, 1).astype("float32")
        return i * ((length - 1).astype("float32") / last)
    if mode == "tf_half_pixel_for_nn":
        return (i + 0.5) * step
    middle = (i + 0.5) * step - 0.5
    return tirx.Select(target > 1, middle, tirx.const(0.0, "float32")) if mode == "pytorch_half_pixel" else middle


def _nearest(i: Any, length: Any, target: Any, mode: str, rounding: str) -> Any:
    if mode == "asymmetric" and rounding == "floor":
        factor = sym.Analyzer().simplify(target // length)
        if isinstance(factor, tirx.IntImm) and sym.Analyzer().can_prove_equal(length * factor, target):
            return i // factor
        return i * length // target
    return _within(_ROUNDINGS[rounding](_coordinate(i, length, target, mode)), length)


def _between(i: Any, length: Any, target: Any, mode: str) -> tuple[Any, Any, Any]:
    """The two input indices around output index i, and how far it is from the first."""
    at = _coordinate(i, length, target, mode)
    below = tirx.floor(at)
    return _within(below, length), _within(below + 1.0, length), at - below


def _within(at: Any, length: Any) -> Any:
    return tirx.max(tirx.min(at.astype("int64"), length - 1), tirx.const(0, "int64"))
