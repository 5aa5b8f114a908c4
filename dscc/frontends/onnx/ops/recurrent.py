"""LSTM, GRU and RNN: the inputs of all steps are multiplied at once, then one kernel takes the steps.

    Y, Y_h, Y_c = LSTM(X, W, R, B)  ->  x = X W^T + (b_w + b_r);  R.call_tir(lstm, (x, R))

The kernel is that of dscc/schedule/recurrent. Narrow floats are computed in float32.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from tvm import relax
from tvm.relax import op as R

from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.registry import converter
from dscc.frontends.onnx.shapes import reshaped, shape_expr
from dscc.frontends.onnx.values import Dim, Value, numpy_dtype
from dscc.schedule.recurrent.activation import NAMES, Activation, choose
from dscc.schedule.recurrent.cell import Cell
from dscc.schedule.recurrent.define import define

_DEFAULTS = {"LSTM": ["sigmoid", "tanh", "tanh"], "GRU": ["sigmoid", "tanh"], "RNN": ["tanh"]}
_REVERSE = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
_UNBOUNDED = 3e38  # exporters write the largest float as a clip


@converter("LSTM", "GRU", "RNN")
def recurrent(
    node: Node,
    x: Value,
    w: Value,
    r: Value,
    b: Value | None = None,
    lengths: Value | None = None,
    h: Value | None = None,
    c: Value | None = None,
    p: Value | None = None,
) -> list[relax.Expr]:
    """Y (length, directions, batch, hidden), Y_h and Y_c (directions, batch, hidden); batch first in layout 1."""
    own = x.dtype
    dtype = own if own == "float64" else "float32"
    x, w, r = (cast(node, value, dtype) for value in (x, w, r))
    b, h, c, p = (None if value is None else cast(node, value, dtype) for value in (b, h, c, p))
    cell = cell_of(node, x, r)
    columns = cell.directions * cell.gates * cell.hidden
    weight = turned(node, w, [cell.directions, cell.gates * cell.hidden, x.shape[2]])
    projected = node.emit(R.matmul(time_first(node, x), weight))
    bias, late = biases(node, cell, b)
    if bias is not None:
        projected = node.emit(R.add(projected, bias.expr))
    operands = Operands(projected, r, lengths, h, c, p, late)
    return run(node, cell, operands, columns, own)


@dataclass(frozen=True)
class Operands:
    """What the kernel reads, as the node gives it; x is the product of all steps, `b` the bias of a GRU's r2."""

    x: relax.Expr
    r: Value
    lengths: Value | None = None
    h: Value | None = None
    c: Value | None = None
    p: Value | None = None
    b: Value | None = None
    scale: Value | None = None


def cell_of(node: Node, x: Value, r: Value, transposed: bool = False) -> Cell:
    """The operator's attributes, checked; R is (directions, gates * hidden, hidden), or with the last two exchanged."""
    kind = "LSTM" if node.op.endswith("LSTM") else node.op
    direction = node.attr("direction", "forward")
    if direction not in _REVERSE:
        raise node.error(f"direction is '{direction}'; allowed: {', '.join(_REVERSE)}")
    if node.attr("layout", 0) not in (0, 1):
        raise node.error(f"layout is {node.attr('layout')}; allowed: 0 and 1")
    if x.ndim != 3 or r.ndim != 3:
        raise node.error(f"X and R have to have rank 3, got {x.ndim} and {r.ndim}")
    hidden: Dim = node.attr("hidden_size") or r.shape[1 if transposed else 2]
    if not isinstance(hidden, int):
        raise node.error("the hidden size is not known while compiling; attribute 'hidden_size' states it")
    reverse = _REVERSE[direction]
    clip = node.attr("clip", 0.0)
    if kind == "LSTM" and node.attr("input_forget", 0) not in (0, 1):
        raise node.error(f"input_forget is {node.attr('input_forget')}; allowed: 0 and 1")
    return Cell(
        kind,
        hidden,
        reverse,
        _activations(node, kind, len(reverse)),
        (),
        clip if 0 < clip < _UNBOUNDED else None,
        kind == "LSTM" and bool(node.attr("input_forget", 0)),
        kind == "GRU" and bool(node.attr("linear_before_reset", 0)),
    )


def _activations(node: Node, kind: str, directions: int) -> tuple[tuple[Activation, ...], ...]:
    count = len(_DEFAULTS[kind])
    given: list[str] = node.attr("activations", [])
    names = [name.lower() for name in given] or _DEFAULTS[kind] * directions
    for name in names:
        if name not in NAMES:
            raise node.error(f"activation '{name}' is unknown; allowed: {', '.join(NAMES)}")
    if len(names) != count * directions:
        raise node.error(f"got {len(names)} activations, expected {count * directions}: {count} for each direction")
    chosen = choose(names, node.attr("activation_alpha", []), node.attr("activation_beta", []))
    return tuple(tuple(chosen[i * count : (i + 1) * count]) for i in range(directions))


def cast(node: Node, value: Value, dtype: str) -> Value:
    """The value in another type, now if it is a constant."""
    if value.dtype == dtype:
        return value
    if value.constant is not None:
        return node.value(value.constant.astype(numpy_dtype(dtype)), value.name)
    return node.value(R.astype(value.expr, dtype))


def time_first(node: Node, x: Value) -> relax.Expr:
    """X as (length, batch, size), whatever the layout."""
    return node.emit(R.permute_dims(x.expr, [1, 0, 2])) if node.attr("layout", 0) else x.expr


def turned(node: Node, w: Value, shape: list[Dim]) -> relax.Expr:
    """W (directions, columns, size), checked, as (size, directions * columns)."""
    directions, columns, size = shape
    if w.constant is not None:
        if w.shape != (directions, columns, w.shape[-1]):
            raise node.error(f"W has shape {list(w.shape)}, expected {shape}")
        node.require_equal(size, w.shape[2], "the last dimension of X")
        return node.value(np.ascontiguousarray(w.constant.reshape(-1, w.shape[2]).T)).expr
    checked = node.restate(w.expr, shape, "W")
    flat = node.emit(reshaped(checked, [directions * columns, size]))
    return node.emit(R.permute_dims(flat, [1, 0]))


def biases(node: Node, cell: Cell, b: Value | None) -> tuple[Value | None, Value | None]:
    """B (directions, 2 * gates * hidden) as the sum of its halves, in one dimension; and apart from it the part that a
    GRU multiplies with its reset gate.
    """
    if b is None:
        return None, None
    directions, gates, hidden = cell.directions, cell.gates, cell.hidden
    keep = np.ones((1, gates, 1), bool)
    if cell.reset_after:
        keep[0, 2] = False
    if b.constant is not None:
        if b.shape != (directions, 2 * gates * hidden):
            raise node.error(f"B has shape {list(b.shape)}, expected {[directions, 2 * gates * hidden]}")
        both = b.constant.reshape(directions, 2, gates, hidden)
        bias = node.value((both[:, 0] + both[:, 1] * keep.astype(both.dtype)).reshape(-1))
        return bias, node.value(np.ascontiguousarray(both[:, 1, 2])) if cell.reset_after else None
    checked = node.restate(b.expr, [directions, 2 * gates * hidden], "B")
    halves = node.emit(reshaped(checked, [directions, 2, gates, hidden]))
    first = node.emit(R.squeeze(node.emit(R.strided_slice(halves, [1], [0], [1])), [1]))
    second = node.emit(R.squeeze(node.emit(R.strided_slice(halves, [1], [1], [2])), [1]))
    late = None
    if cell.reset_after:
        late = node.value(R.squeeze(node.emit(R.strided_slice(second, [1], [2], [3])), [1]))
        second = node.emit(R.multiply(second, node.value(keep.astype(b.dtype)).expr))
    total = node.emit(R.add(first, second))
    return node.value(reshaped(total, [directions * gates * hidden])), late


def run(node: Node, cell: Cell, given: Operands, columns: int, own: str) -> list[relax.Expr]:
    """The call of the kernel, and its outputs in the node's layout and in the type `own`."""
    length, batch = (node.dims.simplify(dim) for dim in given.x.ty.shape.values[:2])
    state = [cell.directions, batch, cell.hidden]
    named: dict[str, relax.Expr] = {"x": given.x}
    named["R"] = node.restate(given.r.expr, [cell.directions, cell.gates * cell.hidden, cell.hidden], "R")
    for name, value in (("h", given.h), ("c", given.c if cell.kind == "LSTM" else None)):
        if value is not None:
            turned_ = R.permute_dims(value.expr, [1, 0, 2]) if node.attr("layout", 0) else value.expr
            named[name] = node.restate(node.emit(turned_), state, f"initial_{name}")
    if given.lengths is not None:
        named["lengths"] = node.restate(cast(node, given.lengths, "int32").expr, [batch], "sequence_lens")
    if given.p is not None and cell.kind == "LSTM":
        named["p"] = node.restate(given.p.expr, [cell.directions, 3 * cell.hidden], "P")
    if given.b is not None:
        named["b"] = given.b.expr
    if given.scale is not None:
        named["scale"] = node.restate(given.scale.expr, [cell.directions, columns // cell.directions], "R_scale")
    cell = replace(cell, operands=tuple(named))
    dtype = str(given.x.ty.dtype)
    func = node.bb.add_func(define(cell, dtype, str(named["R"].ty.dtype)), cell.kind.lower())
    shapes = {"y": [length, cell.directions, batch, cell.hidden], "y_h": state, "y_c": state}
    types = [relax.TensorType(shape_expr(shapes[name]), dtype) for name in cell.outputs]
    call = node.emit(relax.call_tir(func, relax.Tuple(list(named.values())), types))
    axes = {"y": [2, 0, 1, 3], "y_h": [1, 0, 2], "y_c": [1, 0, 2]}
    results = []
    for number, name in enumerate(cell.outputs):
        out = node.emit(relax.TupleGetItem(call, number))
        if node.attr("layout", 0):
            out = node.emit(R.permute_dims(out, axes[name]))
        results.append(out if dtype == own else node.emit(R.astype(out, own)))
    return results
