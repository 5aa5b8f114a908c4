"""Signals: Fourier transforms and what goes with them."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax, te, tirx
from tvm.relax import Expr
from tvm.relax import op as R

from dscc import library
from dscc.frontends.onnx.axes import axes_of, replaced, view_shape
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.ops.detection import as_type, working_type
from dscc.frontends.onnx.registry import converter
from dscc.frontends.onnx.shapes import reshaped, shape_expr
from dscc.frontends.onnx.values import Array, Dim, Value, element_type, static

_MATRIX = 1024  # up to this length a transform of neighbouring elements is a product with a constant matrix


@converter("DFT", since=17)
def dft_17(node: Node, x: Value, length: Value | None = None) -> Expr:
    return _dft(node, x, length, node.axis(node.attr("axis", 1), x.ndim))


@converter("DFT", since=20)
def dft(node: Node, x: Value, length: Value | None = None, axis: Value | None = None) -> Expr:
    where = x.ndim - 2 if axis is None else axes_of(node, axis, x.ndim, "the axis")[0]
    return _dft(node, x, length, where)


def _dft(node: Node, x: Value, length: Value | None, axis: Dim) -> Expr:
    """Along `axis` of x (..., parts): 1 part is real, 2 are complex."""
    inverse, half = bool(node.attr("inverse", 0)), bool(node.attr("onesided", 0))
    *outer, parts = x.shape
    working = working_type(x.dtype)
    seen = view_shape(node, outer, axis)
    signal = node.emit(reshaped(as_type(node, x.expr, working), [*seen, parts]))
    if length is not None:
        count = node.ints(length, "the length", signed=False)[0]
    else:
        count = node.dims.simplify(2 * (seen[1] - 1)) if inverse and half else seen[1]
    found = _fourier(node, signal, count, inverse, half)
    _, kept, _, out_parts = found.ty.shape.values
    shape = [*replaced(node, outer, axis, node.dims.simplify(kept)), out_parts]
    return as_type(node, node.emit(reshaped(found, shape)), x.dtype)


def _fourier(node: Node, x: Expr, length: Dim, inverse: bool, half: bool) -> Expr:
    """x (before, n, after, parts) transformed along n, after it is cut or filled up to `length`: see
    dscc/library/signal.c.
    """
    before, size, after, last = x.ty.shape.values
    parts, known, dtype = static(last), static(length), str(x.ty.dtype)
    if parts not in (1, 2):
        raise node.error(f"the last dimension is {last}; it must be 1 (real) or 2 (complex)")
    if half and not inverse and parts == 2:
        raise node.error("onesided is 1, but the input is complex; only of a real one does one half say all")
    real = inverse and half
    kept = node.dims.simplify(node.dims.floordiv(length, 2) + 1) if half and not real else length
    shape = [before, kept, after, 1 if real else 2]
    if known and known <= _MATRIX and static(after) == 1 and static(size) is not None and dtype == "float32":
        matrix = node.value(_matrix(int(static(size) or 0), parts, known, inverse, half)).expr
        rows = node.emit(reshaped(x, [before, node.dims.simplify(size * parts)]))
        return node.emit(reshaped(node.emit(R.matmul(rows, matrix)), shape))
    kind = relax.TensorType(shape_expr(shape), dtype)
    return node.emit(library.call("fourier", [x, shape_expr([length, inverse, half])], kind))


def _matrix(size: int, parts: int, length: int, inverse: bool, half: bool) -> Array:
    """The matrix (size * parts, kept * parts of the result) by which rows are transformed."""
    units = np.zeros((size * parts, size), complex)
    for index in range(size):
        for part in range(parts):
            units[index * parts + part, index] = 1j if part else 1
    if inverse and half:
        return np.fft.irfft(units, length).astype(np.float32)
    found = np.fft.ifft(units, length) if inverse else np.fft.fft(units, length)
    found = found[:, : length // 2 + 1] if half else found
    return np.stack([found.real, found.imag], -1).reshape(size * parts, -1).astype(np.float32)


@converter("STFT")
def stft(
    node: Node, signal: Value, step: Value, window: Value | None = None, frame_length: Value | None = None
) -> Expr:
    """signal (batch, n) or (batch, n, parts) in frames, one every `step`, times the window, each transformed."""
    batch, size = signal.shape[:2]
    parts = signal.shape[2] if signal.ndim == 3 else 1
    hop = node.dims.maximum(node.ints(step, "the step", signed=False)[0], 1)  # 0 would trap
    if frame_length is not None:
        length = node.ints(frame_length, "the frame's length", signed=False)[0]
        if window is not None:
            node.require_equal(window.shape[0], length, "the length of the window")
    elif window is not None:
        length = window.shape[0]
    else:
        raise node.error("neither a window nor a frame_length is given; one of them says how long a frame is")
    working = working_type(signal.dtype)
    data = node.emit(reshaped(as_type(node, signal.expr, working), [batch, size, parts]))
    count = node.dims.simplify(node.dims.floordiv(size - length, hop) + 1)
    weights = [] if window is None else [as_type(node, window.expr, working)]

    def compute(x: te.Tensor, *rest: Any) -> te.Tensor:
        *weight, shape, by = rest

        def element(b: Any, f: Any, i: Any, p: Any) -> Any:
            value = x(b, f * by[0] + i, p)
            return value * weight[0](i) if weight else value

        return te.compute(list(shape), element, name="frames")

    shape = shape_expr([batch, count, length, parts])
    frames = node.emit(node.te(compute, data, *weights, shape, shape_expr([hop]), name="frames"))
    flat = node.emit(reshaped(frames, [node.dims.simplify(batch * count), length, 1, parts]))
    found = _fourier(node, flat, length, False, bool(node.attr("onesided", 1)))
    result = reshaped(found, [batch, count, found.ty.shape.values[1], 2])
    return as_type(node, node.emit(result), signal.dtype)


@converter("MelWeightMatrix")
def mel_weight_matrix(node: Node, filters: Value, length: Value, rate: Value, low: Value, high: Value) -> Expr:
    sizes = [node.ints(filters, "num_mel_bins", signed=False)[0], node.ints(length, "dft_length", signed=False)[0]]
    edges = [as_type(node, edge.expr, working_type(edge.dtype)) for edge in (low, high)]
    shape = shape_expr([node.dims.simplify(node.dims.floordiv(sizes[1], 2) + 1), sizes[0]])
    args = [rate.expr, *edges, shape_expr(sizes)]
    found = node.emit(library.call("mel_weights", args, relax.TensorType(shape, "float64")))
    return as_type(node, found, element_type(node.attr("output_datatype", 1), node.label))


def _window(node: Node, size: Value, terms: tuple[float, ...]) -> Expr:
    """terms[0] - terms[1] cos(a) + terms[2] cos(2 a), where a goes once around over `size` elements."""
    count = node.ints(size, "the size", signed=False)[0]
    length = count if node.attr("periodic", 1) else node.dims.simplify(count - 1)
    dtype = element_type(node.attr("output_datatype", 1), node.label)

    def compute(shape: Any, around: Any) -> te.Tensor:
        def element(i: Any) -> Any:
            turn = tirx.Cast("float64", i) * (2 * np.pi) / tirx.Cast("float64", tirx.max(around[0], 1))
            total: Any = tirx.const(0.0, "float64")
            for order, term in enumerate(terms):
                total = total + (-1) ** order * term * tirx.cos(turn * order)
            return tirx.Cast(dtype, total)

        return te.compute(list(shape), element, name="window")

    return node.te(compute, shape_expr([count]), shape_expr([length]), name="window")


@converter("HannWindow")
def hann_window(node: Node, size: Value) -> Expr:
    return _window(node, size, (0.5, 0.5))


@converter("HammingWindow")
def hamming_window(node: Node, size: Value) -> Expr:
    return _window(node, size, (25 / 46, 21 / 46))


@converter("BlackmanWindow")
def blackman_window(node: Node, size: Value) -> Expr:
    return _window(node, size, (0.42, 0.5, 0.08))
