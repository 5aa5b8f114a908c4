"""DynamicQuantizeLSTM: an LSTM with weights of 8 bits, whose input and state are quantized when the model runs."""

from __future__ import annotations

import numpy as np
from tvm import relax
from tvm.relax import op as R

from dscc.frontends.onnx.microsoft import contrib
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.ops.quantize import dynamic_quantize
from dscc.frontends.onnx.ops.recurrent import Operands, biases, cell_of, run, time_first
from dscc.frontends.onnx.shapes import reshaped, shape_expr
from dscc.frontends.onnx.values import Dim, Value


@contrib("DynamicQuantizeLSTM")
def dynamic_quantize_lstm(
    node: Node,
    x: Value,
    w: Value,
    r: Value,
    b: Value | None = None,
    lengths: Value | None = None,
    h: Value | None = None,
    c: Value | None = None,
    p: Value | None = None,
    w_scale: Value | None = None,
    w_zero: Value | None = None,
    r_scale: Value | None = None,
    r_zero: Value | None = None,
) -> list[relax.Expr]:
    """As LSTM, with W and R as (directions, size, gates * hidden). X is quantized as a whole, and so is the state of
    the whole batch before each step; scales and zero points are per direction, or per direction and column.
    """
    if w_scale is None or r_scale is None:
        raise node.error("W_scale and R_scale are missing; the operator requires them")
    cell = cell_of(node, x, r, transposed=True)
    rows = cell.gates * cell.hidden
    columns = cell.directions * rows
    steps, step, zero = dynamic_quantize(node, node.value(time_first(node, x)))
    whole = node.emit(R.astype(node.emit(steps), "float32"))
    shift = node.emit(R.astype(node.emit(zero), "float32"))
    weight = _centred(node, w, w_zero, [cell.directions, x.shape[2], rows])
    flat = _arranged(node, weight, [1, 0, 2], [x.shape[2], columns])
    wide = flat.expr if flat.dtype == "float32" else node.emit(R.astype(flat.expr, "float32"))
    product = node.emit(R.matmul(node.emit(R.subtract(whole, shift)), wide))
    scale = node.emit(R.multiply(_scales(node, w_scale, cell.directions, rows, [columns]).expr, step))
    projected = node.emit(R.multiply(product, scale))
    bias, _ = biases(node, cell, b)
    if bias is not None:
        projected = node.emit(R.add(projected, bias.expr))
    recurrent = _centred(node, r, r_zero, [cell.directions, cell.hidden, rows])
    turned = _arranged(node, recurrent, [0, 2, 1], [cell.directions, rows, cell.hidden])
    scales = _scales(node, r_scale, cell.directions, rows, [cell.directions, rows])
    return run(node, cell, Operands(projected, turned, lengths, h, c, p, None, scales), columns, "float32")


def _centred(node: Node, weight: Value, zero: Value | None, shape: list[Dim]) -> Value:
    """The weight less its zero point: of 8 bits if it fits, else float32; the shape is checked."""
    checked = node.value(node.restate(weight.expr, shape, "a weight")) if weight.constant is None else weight
    if checked.ndim != 3 or any(not node.dims.equal(a, b) for a, b in zip(checked.shape, shape, strict=True)):
        raise node.error(f"a weight has shape {list(checked.shape)}, expected {shape}")
    known = np.zeros(shape[0], np.int16) if zero is None else zero.constant
    if checked.constant is None or known is None:
        wide = node.emit(R.astype(checked.expr, "float32"))
        if zero is None:
            return node.value(wide)
        centre = node.emit(R.astype(zero.expr, "float32"))
        each = [zero.shape[0], 1, zero.shape[1] if zero.ndim == 2 else 1]
        return node.value(R.subtract(wide, node.emit(reshaped(centre, each))))
    values = checked.constant.astype(np.int16) - known.astype(np.int16).reshape(shape[0], 1, -1)
    small = values.size == 0 or (values.min() >= -128 and values.max() <= 127)
    return node.value(values.astype(np.int8 if small else np.float32))


def _arranged(node: Node, weight: Value, axes: list[int], shape: list[Dim]) -> Value:
    """The weight with its axes in another order, then in another shape."""
    if weight.constant is not None:
        return node.value(np.ascontiguousarray(weight.constant.transpose(axes).reshape([int(n) for n in shape])))
    return node.value(reshaped(node.emit(R.permute_dims(weight.expr, axes)), shape))


def _scales(node: Node, scale: Value, directions: int, rows: int, shape: list[int]) -> Value:
    """(directions,) or (directions, rows), one scale for each row."""
    full = (directions, rows)
    if scale.constant is not None:
        if scale.constant.size not in (directions, directions * rows):
            raise node.error(f"a scale has shape {list(scale.shape)}, expected {[directions]} or {list(full)}")
        each = scale.constant.reshape(directions, -1)
        return node.value(np.ascontiguousarray(np.broadcast_to(each, full).reshape(shape)))
    two = node.emit(reshaped(scale.expr, [directions, scale.shape[1] if scale.ndim == 2 else 1]))
    return node.value(reshaped(node.emit(R.broadcast_to(two, shape_expr(full))), shape))
