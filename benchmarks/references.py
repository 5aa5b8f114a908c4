"""The operators of `com.microsoft` that models in the benchmarks have and ONNX's reference evaluator lacks, in NumPy.

    ReferenceEvaluator(path, new_ops=OPERATORS)

Written from the description of the operator in onnxruntime (docs/ContribOperators.md, 1.31), not from what dscc does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun

Array = np.ndarray[Any, Any]


class DynamicQuantizeLSTM(OpRun):
    """An LSTM with W and R of 8 bits, whose input and state are quantized to uint8 over their whole range: X once, the
    state before each step. Default activations; no peepholes and no sequence lengths.
    """

    op_domain = "com.microsoft"

    def _run(
        self, x: Array, w: Array, r: Array, b: Array | None = None, lengths: Array | None = None,
        h: Array | None = None, c: Array | None = None, p: Array | None = None, w_scale: Array | None = None,
        w_zero: Array | None = None, r_scale: Array | None = None, r_zero: Array | None = None, **attributes: Any,
    ) -> tuple[Array, Array, Array]:  # fmt: skip
        """X (steps, batch, input), W (directions, input, 4 * hidden), R (directions, hidden, 4 * hidden), gates in the
        order input, output, forget, cell; gives Y (steps, directions, batch, hidden), Y_h and Y_c.
        """
        if lengths is not None or p is not None:
            raise NotImplementedError("sequence lengths and peepholes")
        (steps, batch, _), (directions, hidden, _) = x.shape, r.shape
        y = np.zeros((steps, directions, batch, hidden), np.float32)
        y_h, y_c = np.zeros((2, directions, batch, hidden), np.float32)
        for d in range(directions):
            backwards = attributes.get("direction") == "reverse" or d == 1
            state = np.zeros((batch, hidden), np.float32) if h is None else h[d]
            cell = np.zeros((batch, hidden), np.float32) if c is None else c[d]
            projected = _product(x.reshape(steps * batch, -1), w[d], _of(w_scale, d), _of(w_zero, d))
            projected = projected.reshape(steps, batch, 4 * hidden)
            if b is not None:
                projected = projected + b[d, : 4 * hidden] + b[d, 4 * hidden :]
            for step in reversed(range(steps)) if backwards else range(steps):
                gates = projected[step] + _product(state, r[d], _of(r_scale, d), _of(r_zero, d))
                i, o, f, g = np.split(gates, 4, axis=1)
                cell = _sigmoid(f) * cell + _sigmoid(i) * np.tanh(g)
                state = _sigmoid(o) * np.tanh(cell)
                y[step, d] = state
            y_h[d], y_c[d] = state, cell
        return y, y_h, y_c


OPERATORS: list[type[OpRun]] = [DynamicQuantizeLSTM]


def _of(parameter: Array | None, direction: int) -> Array:
    return np.zeros((), np.int32) if parameter is None else parameter[direction]


def _sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)), np.float32)


def _product(left: Array, right: Array, scale: Array, zero: Array) -> Array:
    """left @ right in whole numbers, left quantized as DynamicQuantizeLinear does, scaled to float32."""
    low, high = min(float(left.min()), 0.0), max(float(left.max()), 0.0)
    step = np.float32((high - low) / 255) or np.float32(1)
    origin = np.clip(np.rint(np.float32(0 - low) / step), 0, 255)
    codes = np.clip(np.rint(left / step) + origin, 0, 255) - origin
    whole = codes.astype(np.int32) @ (right.astype(np.int32) - zero.astype(np.int32))
    return np.asarray(whole.astype(np.float32) * (scale * step), np.float32)
