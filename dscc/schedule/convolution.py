"""Recognises a two-dimensional convolution over channels-last data by its formula.

out[n, y, x, f] = sum over ry, rx, rc of
    pad[n, y * stride + ry * dilation, x * stride + rx * dilation, f // (F / G) * (C / G) + rc] * weight[f, ry, rx,
    rc]
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import tvm_ffi
from tvm import ir, tirx
from tvm.ir import Expr, Var
from tvm.ir import TensorLoad as Load
from tvm.sym import Analyzer, detect_linear_equation

from dscc.schedule.code import constant
from dscc.schedule.epilogue import Fused
from dscc.schedule.stages import is_one, is_zero, loads, product_of, substitute


@dataclass(frozen=True)
class Axis:
    """One spatial axis.

    Attributes:
        out: extent of the output.
        size: extent of the data without padding.
        before: padding before the first element.
        kernel, stride, dilation: of the window.
    """

    out: Expr
    size: Expr
    before: int
    kernel: int
    stride: int
    dilation: int
    padded: bool

    @property
    def reach(self) -> int:
        """Elements from the first to the last that a window covers."""
        return (self.kernel - 1) * self.dilation + 1


@dataclass(frozen=True)
class Convolution:
    """What a convolution computes; all of one output element's inputs lie within one group of channels.

    Attributes:
        data: the formula of an element of the data without padding, in terms of the variables `at`.
        at: (image, row, column, channel) of `data`.
        source: the parameter, if `data` is nothing but a load of it at `at`.
        weight: the load of the weight, with the axes (f, ry, rx, rc).
        batch: number of images.
        height, width: the spatial axes.
        groups: number of groups.
        inputs, outputs: channels of one group.
    """

    data: Expr
    at: tuple[Var, Var, Var, Var]
    source: Var | None
    weight: Load
    batch: Expr
    height: Axis
    width: Axis
    groups: int
    inputs: int
    outputs: int

    @property
    def channels(self) -> int:
        """Channels of the data, of all groups."""
        return self.groups * self.inputs

    @property
    def is_one_wide(self) -> bool:
        """Whether data and window have one column: in memory the same as one row."""
        return is_one(self.width.size) and is_one(self.width.out) and self.width.kernel == 1 and self.width.before == 0

    def turned(self) -> Convolution:
        """Height and width exchanged."""
        image, row, column, channel = self.at
        return dataclasses.replace(self, at=(image, column, row, channel), height=self.width, width=self.height)

    @staticmethod
    def of(fused: Fused, dtype: str = "float32", converted: bool = False) -> Convolution | None:
        """The convolution, or None if the anchor is none.

        Args:
            dtype: the type of the sum.
            converted: whether its factors may be converted to that type, as halves and bytes are.
        """
        anchor = fused.anchor
        factors = product_of(anchor, dtype)
        if factors is None or len(anchor.spatial) != 4 or len(anchor.reduce) != 3:
            return None
        n, y, x, f = anchor.spatial
        ry, rx, rc = anchor.reduce
        data, weight = (each.value if converted and isinstance(each, tirx.Cast) else each for each in factors)
        if not (isinstance(data, Load) and isinstance(weight, Load) and len(data.indices) == 4):
            return None
        axes = (f, ry, rx, rc)
        if len(weight.indices) != 4 or any(not a.same_as(b) for a, b in zip(weight.indices, axes, strict=True)):
            return None
        kernel = [constant(anchor.extents[var]) for var in (ry, rx, rc, f)]
        if any(extent is None for extent in kernel) or not data.indices[0].same_as(n):
            return None
        rows, columns, inputs, filters = (int(extent) for extent in kernel if extent is not None)
        down = window(data.indices[1], y, ry)
        along = window(data.indices[2], x, rx)
        channels = constant(data.source.shape[3])
        if down is None or along is None or channels is None or channels % inputs:
            return None
        groups = channels // inputs
        if filters % groups or not _is_channel(fused, data.indices[3], f, rc, filters // groups, inputs):
            return None
        inner = unpadded(fused, data.source, lambda value: value == 0.0)
        if inner is None:
            return None
        (top, tall), (left, wide) = inner.bounds
        return Convolution(
            data=inner.formula,
            at=inner.at,
            source=inner.source,
            weight=weight,
            batch=anchor.extents[n],
            height=Axis(anchor.extents[y], tall, top, rows, *down, inner.padded),
            width=Axis(anchor.extents[x], wide, left, columns, *along, inner.padded),
            groups=groups,
            inputs=inputs,
            outputs=filters // groups,
        )


def window(index: Expr, out: Var, within: Var) -> tuple[int, int] | None:
    """(stride, dilation) if the index is `out * stride + within * dilation`."""
    factors = detect_linear_equation(index, [out, within])
    if len(factors) != 3 or not is_zero(Analyzer().simplify(factors[2])):
        return None
    stride, dilation = constant(factors[0]), constant(factors[1])
    # A window of one element or an output of one has no factor left.
    return None if stride is None or dilation is None else (max(stride, 1), max(dilation, 1))


def _is_channel(fused: Fused, index: Expr, f: Var, rc: Var, outputs: int, inputs: int) -> bool:
    analyzer = Analyzer()
    for var in (f, rc):
        analyzer.bind(var, ir.Range(0, fused.anchor.extents[var]))
    expected = tirx.floordiv(f, tirx.const(outputs, "int64")) * inputs + rc
    return analyzer.can_prove_equal(index, expected)


class Data(NamedTuple):
    """What the data is within its padding; for both spatial axes (padding before, size without padding)."""

    formula: Expr
    at: tuple[Var, Var, Var, Var]
    source: Var | None
    bounds: Sequence[tuple[int, Expr]]
    padded: bool


def unpadded(fused: Fused, buffer: Var, is_neutral: Callable[[float], bool]) -> Data | None:
    """What `buffer` is within its padding, or None if it is padded with another value than a neutral one."""
    at = tuple(Var(name, "int64") for name in ("image", "row", "column", "channel"))
    value = fused.inline(tirx.BufferLoad(buffer, list(at)))
    bounds: list[tuple[int, Expr]] = [(0, buffer.shape[1]), (0, buffer.shape[2])]
    padded = isinstance(value, ir.Call) and isinstance(value.op, ir.Op) and value.op.name == "prim.if_then_else"
    if padded:
        condition, value, outside = value.args
        if not (isinstance(outside, tirx.FloatImm | tirx.IntImm) and is_neutral(float(outside.value))):
            return None
        low: dict[Var, Expr] = {}
        high: dict[Var, Expr] = {}
        spatial, others = set(at[1:3]), []
        for part in _conjuncts(condition):
            if isinstance(part, tirx.LE) and part.b in spatial:
                low[part.b] = part.a
            elif isinstance(part, tirx.LT) and part.a in spatial and part.a not in high:
                high[part.a] = part.b
            elif isinstance(part, tirx.LE) and part.a in spatial and part.a not in high:
                high[part.a] = part.b + 1
            else:
                others.append(part)
        if others and not _below_size(value, at, condition, low, high):
            return None
        analyzer = Analyzer()
        for axis in (0, 1):
            before = constant(low.get(at[axis + 1], 0))
            if before is None:
                return None
            end = high.get(at[axis + 1], buffer.shape[axis + 1])
            bounds[axis] = before, analyzer.simplify(end - before)
        value = substitute(value, {at[1]: at[1] + bounds[0][0], at[2]: at[2] + bounds[1][0]})
    value = Analyzer().simplify(value)
    plain = isinstance(value, Load) and all(a.same_as(b) for a, b in zip(value.indices, at, strict=True))
    source = value.source if plain else None
    return Data(value, (at[0], at[1], at[2], at[3]), source, bounds, padded)


def _below_size(
    value: Expr, at: Sequence[Var], condition: Expr, low: Mapping[Var, Expr], high: dict[Var, Expr]
) -> bool:
    """Whether the condition says that a row or column is below an extent that is the least or most of several.

    TVM splits `column < min(a, b)` into two conditions, and `column < max(a, b)` into one or the other. So what it
    makes of the extents of the data is compared with what is there; `high` gets these extents.
    """
    analyzer = Analyzer()
    for load in loads(value):
        found = dict(high)
        for position, extent in zip(load.indices, load.source.shape, strict=True):
            for var in at[1:3]:
                if is_zero(analyzer.simplify(position - (var - low.get(var, 0)))):
                    found[var] = extent + low.get(var, 0)
        stated = [part for var, end in found.items() for part in _conjuncts(analyzer.simplify(var < end))]
        stated += [analyzer.simplify(start <= var) for var, start in low.items()]
        parts = _conjuncts(condition)
        if len(stated) == len(parts) and all(any(tvm_ffi.structural_equal(a, b) for b in stated) for a in parts):
            high.update(found)
            return True
    return False


def _conjuncts(condition: Expr) -> list[Expr]:
    if isinstance(condition, tirx.And):
        return _conjuncts(condition.a) + _conjuncts(condition.b)
    return [condition]
