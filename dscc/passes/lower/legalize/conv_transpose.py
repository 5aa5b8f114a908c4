"""Transposed convolution without multiplications by zero: an output element gets every stride-th tap of the kernel.

    out[n, y, x, f] = sum over t, u, c of data[n, (y + top) // stride - t, (x + left) // stride - u, c]
                                    * weight[(y + top) % stride + t * stride, (x + left) % stride + u * stride, c, f]

TVM has no definition for channels-last data, and that for channels-first multiplies by the zeros between its elements.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
        whole = self.kernel == self.stride and self.before == self.after == self.extra == 0
        position = shifted % self.stride + tap * self.stride
        source = shifted // self.stride - tap
        exists = [position < self.kernel] if self.kernel % self.stride else []
        return position, source, [] if whole else [*exists, source >= 0, source < size]


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
