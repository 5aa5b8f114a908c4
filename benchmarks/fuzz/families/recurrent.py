"""RNN, GRU and LSTM: both directions, other activations, sequence lengths, initial states, batch first."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.fuzz.families.linear import scaled
from benchmarks.fuzz.graph import Graph, Rejected, Value

_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
_FUNCTIONS = {"RNN": 1, "GRU": 2, "LSTM": 3}
_ACTIVATIONS = ("Sigmoid", "Tanh", "Relu", "HardSigmoid", "Softsign")


def _operand(g: Graph) -> Value:
    """(length, batch, width), or (batch, length, width)."""
    if g.chance(0.5) and len(g.inputs) < 5:
        dims = [g.symbol() if g.chance(0.5) else g.integer(1, 4) for _ in range(2)]
        return g.input("float32", [*dims, int(g.choose([1, 3, 4, 8, 16]))])
    return g.pick(lambda v: v.dtype == np.float32 and v.ndim == 3 and v.static(2) and not v.fixed)


def recurrent(g: Graph) -> None:
    op = g.choose(list(_GATES))
    x = _operand(g)
    if max(a.size for a in x.arrays) > 4000 or min(min(s) for s in x.shapes) < 1:
        raise Rejected("slow in the evaluators, or empty")
    layout = 1 if g.opset >= 14 and g.chance(0.15) else None
    batch = x.sizes(0 if layout else 1)
    direction = g.choose([None, None, "forward", "reverse", "bidirectional", "bidirectional"])
    count, hidden, width = 2 if direction == "bidirectional" else 1, int(g.choose([1, 2, 4, 5, 8, 16])), x.sizes(2)[0]
    rows = _GATES[op] * hidden
    inputs: list[Value | None] = [
        x,
        scaled(g, "float32", (count, rows, width), width),
        scaled(g, "float32", (count, rows, hidden), hidden),
    ]
    inputs.append(g.weight(0.3 * g.content("float32", (count, 2 * rows))) if g.chance(0.7) else None)
    fixed = len(set(batch)) == 1
    lengths = None
    if fixed and not layout and g.chance(0.3):
        shortest = min(x.sizes(0))
        lengths = g.weight(g.rng.integers(1, shortest + 1, batch[0]).astype(np.int32))
    inputs.append(lengths)
    shape = (batch[0], count, hidden) if layout else (count, batch[0], hidden)
    states = fixed and g.chance(0.4)
    inputs.append(g.weight(g.content("float32", shape)) if states else None)
    attributes: dict[str, Any] = {"hidden_size": hidden, "direction": direction, "layout": layout}
    if op == "LSTM":
        inputs.append(g.weight(g.content("float32", shape)) if states else None)
        inputs.append(g.weight(0.3 * g.content("float32", (count, 3 * hidden))) if g.chance(0.2) else None)
        attributes["input_forget"] = 1 if g.chance(0.1) else None
    if op == "GRU":
        attributes["linear_before_reset"] = g.choose([None, 0, 1])
    if g.chance(0.2):
        attributes["activations"] = [str(g.choose(_ACTIVATIONS)) for _ in range(_FUNCTIONS[op] * count)]
    if g.chance(0.1):
        attributes["clip"] = 0.7
    while inputs[-1] is None:
        inputs.pop()
    made = g.add(op, inputs, outputs=g.integer(1, 3 if op == "LSTM" else 2), **attributes)
    if g.chance(0.5) and made[0].ndim == 4 and not layout:  # as exporters bring the directions together
        [y] = g.add("Transpose", [made[0]], perm=[0, 2, 1, 3])
        g.add("Reshape", [y, g.ints(0, 0, -1)])


GENERATORS = {recurrent: 3.0}
