"""Transposed convolution without multiplications by zero: an output element gets every stride-th tap of the kernel.

    out[n, y, x, f] = sum over t, u, c of data[n, (y + top) // stride - t, (x + left) // stride - u, c]
                                    * weight[(y + top) % stride + t * stride, (x + left) % stride + u * stride, c, f]

All elements of the output with one (y + top) // stride and one (x + left) // stride have the same window of the data.
So where windows overlap it is a convolution with stride * stride times the filters, whose result is then put in order:
the rules for convolutions take it.

TVM has no definition for channels-last data, and that for channels-first multiplies by the zeros between its elements.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tvm import relax, te, tirx, topi
from tvm.ir import GenericConst

from dscc.constants import contents
from dscc.passes.lower.legalize import legalize
from dscc.passes.values import const

_FUSABLE = 4  # TVM's number for "elementwise consumers may join"


@legalize("relax.nn.conv2d_transpose")
def conv2d_transpose(bb: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """Data NHWC or NCHW, weight IOHW."""
    attrs = call.attrs
    layout = str(attrs.data_layout)
    plain = layout in ("NHWC", "NCHW") and str(attrs.out_layout) in ("", layout) and str(attrs.kernel_layout) == "IOHW"
    if not plain or any(not isinstance(d, tirx.IntImm) for d in call.args[1].ty.shape):
        return call
    kernel = [int(d) for d in call.args[1].ty.shape][2:]
    over = [
        _Axis(
            kernel[a],
            int(attrs.strides[a]),
            int(attrs.dilation[a]),
            int(attrs.padding[a]),
            int(attrs.padding[a + 2]),
            int(attrs.output_padding[a]),
        )
        for a in (0, 1)
    ]
    data = call.args[0] if layout == "NHWC" else bb.emit_te(topi.transpose, call.args[0], [0, 2, 3, 1])
    weight = _rows_columns_inputs_outputs(bb, call.args[1])
    shape = data.ty.shape
    over = [axis.of_one_pixel() if _is_one(shape[1 + a]) else axis for a, axis in enumerate(over)]
    overlap = any(not axis.whole for axis in over) and all(axis.is_window for axis in over)
    if overlap and int(attrs.groups) == 1 and isinstance(weight, GenericConst):
        made = _as_convolution(bb, data, weight, over)
        return made if layout == "NHWC" else relax.op.permute_dims(bb.emit(made), [0, 3, 1, 2])
    made = bb.call_te(
        lambda data, weight: _define(data, weight, over, int(attrs.groups)),
        data,
        weight,
        primfunc_name_hint="conv2d_transpose",
        primfunc_attrs={"op_pattern": _FUSABLE},
    )
    return made if layout == "NHWC" else relax.op.permute_dims(bb.emit(made), [0, 3, 1, 2])


def _rows_columns_inputs_outputs(bb: relax.BlockBuilder, weight: relax.Expr) -> relax.Expr:
    """(I, O, H, W) as (H, W, I, O), at compile time if it is constant."""
    if isinstance(weight, GenericConst):
        return const(contents(weight.value).transpose(2, 3, 0, 1))
    return bb.emit_te(topi.transpose, weight, [2, 3, 0, 1])


def _is_one(extent: Any) -> bool:
    return isinstance(extent, tirx.IntImm) and int(extent) == 1


def _as_convolution(bb: relax.BlockBuilder, data: relax.Expr, weight: GenericConst, over: list[_Axis]) -> relax.Expr:
    """Data NHWC, weight (H, W, I, O) -> NHWC."""
    made = contents(weight.value)
    outputs = made.shape[3]
    for a, axis in enumerate(over):
        # Position r + t * stride of the kernel, zero beyond it, becomes filter r and, from the window's end, tap t.
        room = np.pad(made, [(0, axis.taps * axis.stride - axis.kernel if a == d else 0) for d in range(made.ndim)])
        split = room.reshape(*room.shape[:a], axis.taps, axis.stride, *room.shape[a + 1 :])
        made = np.moveaxis(np.flip(split, a), a + 1, 2 + a)
    # Now (taps, taps, stride, stride, I, O).
    filters = made.transpose(2, 3, 5, 0, 1, 4).reshape(-1, *made.shape[:2], made.shape[4])
    wide = bb.emit_te(
        topi.nn.conv,
        data,
        const(np.ascontiguousarray(filters)),
        stride=[1, 1],
        padding=[axis.window_padding[side] for side in (0, 1) for axis in over],
        dilation=[1, 1],
        groups=1,
        data_layout="NHWC",
        kernel_layout="OHWI",
        primfunc_name_hint="conv2d",
    )
    down, along = over

    def in_order(wide: te.Tensor, data: te.Tensor) -> te.Tensor:
        def element(image: Any, y: Any, x: Any, f: Any) -> Any:
            y, x = y + down.before % down.stride, x + along.before % along.stride
            which = (y % down.stride * along.stride + x % along.stride) * outputs + f
            return wide[image, y // down.stride, x // along.stride, which]

        shape = (data.shape[0], down.out(data.shape[1]), along.out(data.shape[2]), outputs)
        return te.compute(shape, element, name="conv2d_transpose")

    return bb.call_te(in_order, wide, data, primfunc_name_hint="put_in_order")


@dataclass(frozen=True)
class _Axis:
    """One spatial axis of the kernel."""

    kernel: int
    stride: int
    dilation: int
    before: int
    after: int
    extra: int

    @property
    def taps(self) -> int:
        """How many taps an output element gets at most; with a dilation all are tried."""
        return self.kernel if self.dilation > 1 else -(-self.kernel // self.stride)

    @property
    def whole(self) -> bool:
        """Whether windows neither overlap nor leave anything out: a rule of its own takes that."""
        return self.kernel == self.stride and self.before == self.after == self.extra == 0

    @property
    def is_window(self) -> bool:
        """Whether it is a convolution over a window of `taps` elements."""
        return self.dilation == 1 and min(self.window_padding) >= 0

    @property
    def window_padding(self) -> tuple[int, int]:
        """What that convolution adds before and after the data."""
        last = self.kernel - 1 - self.after + self.extra
        return self.taps - 1 - self.before // self.stride, last // self.stride

    def of_one_pixel(self) -> _Axis:
        """The same for data of one element, which no window shares with another."""
        return self if self.dilation > 1 or self.stride > self.kernel else replace(self, stride=self.kernel)

    def out(self, size: Any) -> Any:
        """The extent of the output."""
        return (size - 1) * self.stride + (self.kernel - 1) * self.dilation + 1 - self.before - self.after + self.extra

    def source(self, at: Any, tap: Any, size: Any) -> tuple[Any, Any, list[Any]]:
        """(position in the kernel, in the data, conditions that both exist) of a tap of output position `at`."""
        shifted = at + self.before
        if self.dilation > 1:
            first = shifted - tap * self.dilation
            source = first // self.stride
            return tap, source, [tirx.EQ(first % self.stride, tirx.const(0, "int64")), source >= 0, source < size]
        position = shifted % self.stride + tap * self.stride
        source = shifted // self.stride - tap
        exists = [position < self.kernel] if self.kernel % self.stride else []
        return position, source, [] if self.whole else [*exists, source >= 0, source < size]


def _define(data: te.Tensor, weight: te.Tensor, over: list[_Axis], groups: int) -> te.Tensor:
    n, height, width, channels = data.shape
    outputs = weight.shape[3]
    inputs = channels // groups
    taps = [te.reduce_axis((0, axis.taps), "tap") for axis in over]
    c = te.reduce_axis((0, inputs), "c")

    def element(image: Any, y: Any, x: Any, f: Any) -> Any:
        down = over[0].source(y, taps[0], height)
        along = over[1].source(x, taps[1], width)
        first = c if groups == 1 else f // outputs * inputs + c
        filters = f if groups == 1 else f % outputs
        value = data[image, down[1], along[1], first] * weight[down[0], along[0], first, filters]
        conditions = [*down[2], *along[2]]
        if conditions:
            value = tirx.if_then_else(tirx.all(*conditions), value, tirx.const(0, data.dtype))
        return te.sum(value, axis=[*taps, c])

    shape = (n, over[0].out(height), over[1].out(width), outputs * groups)
    return te.compute(shape, element, name="conv2d_transpose")
