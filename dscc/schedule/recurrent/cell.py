"""What one time step of a recurrent operator computes for one hidden unit: formulas over scalars.

    LSTM   i, o, f = f(x + h R [+ p c]);  c' = f c + i g(x + h R);  h' = o h(c')
    GRU    z, r = f(x + h R);  n = g(x + (r h) R)  or  g(x + r (h R + b));  h' = (1 - z) n + z h
    RNN    h' = f(x + h R)

x is the gate's part that does not depend on the state, bias included: (W x_t + b), a product over all steps that is
computed before. A step is made of phases: a product of a state with some gates of R, then formulas over its results.
Only a GRU that resets before the product has two.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.ir import Expr, Var

from dscc.schedule.recurrent.activation import Activation

ATTRIBUTE = "dscc.recurrent"  # of a PrimFunc: its Cell as text
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


@dataclass(frozen=True)
class Phase:
    """A product and what is made of it.

    Attributes:
        operand: the state that is multiplied with R.
        gates: the gates, as numbered in R.
        inputs: what the formulas read, by name: x0.. and r0.. (the two parts of a gate), the states before the step (h,
        c; also z, of an earlier phase), p0.. (peepholes), b (the bias of r2).
        steps: variables, each with its formula over inputs and earlier variables.
        results: states that are written, by name.
    """

    operand: str
    gates: tuple[int, ...]
    inputs: Mapping[str, Var]
    steps: tuple[tuple[Var, Expr], ...]
    results: Mapping[str, Expr]


@dataclass(frozen=True)
class Cell:
    """A recurrent operator but for its sizes.

    Attributes:
        kind: LSTM, GRU or RNN.
        hidden: number of hidden units.
        reverse: for each direction, whether it runs from the last step to the first.
        activations: for each direction, its functions in the order of ONNX.
        operands: the names of the function's inputs in order, of: x, R, h (first state), c (first cell state), lengths
        (steps of each sequence), p (peepholes), b (the bias of a GRU's r2), scale (R and the state are quantized).
        clip: bound of what the activations are given, or None.
        coupled: the forget gate of an LSTM is one minus its input gate.
        reset_after: a GRU multiplies first, then resets.
    """

    kind: str
    hidden: int
    reverse: tuple[bool, ...]
    activations: tuple[tuple[Activation, ...], ...]
    operands: tuple[str, ...]
    clip: float | None = None
    coupled: bool = False
    reset_after: bool = False

    @property
    def gates(self) -> int:
        return GATES[self.kind]

    @property
    def directions(self) -> int:
        return len(self.reverse)

    @property
    def outputs(self) -> tuple[str, ...]:
        """All states of all steps, the last state, for an LSTM the last cell state."""
        return ("y", "y_h", "y_c") if self.kind == "LSTM" else ("y", "y_h")

    def text(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @staticmethod
    def of(text: str) -> Cell:
        fields: dict[str, Any] = json.loads(text)
        fields["activations"] = tuple(
            tuple(Activation(**activation) for activation in some) for some in fields["activations"]
        )
        fields |= {key: tuple(fields[key]) for key in ("reverse", "operands")}
        return Cell(**fields)

    def phases(self, direction: int, dtype: str) -> tuple[Phase, ...]:
        """The formulas in `dtype`."""
        formulas = {"LSTM": _lstm, "GRU": _gru, "RNN": _rnn}[self.kind]
        return formulas(self, self.activations[direction], dtype)


class _Formulas:
    """The formulas of one phase in the making."""

    def __init__(self, cell: Cell, dtype: str):
        self._cell, self._dtype = cell, dtype
        self._inputs: dict[str, Var] = {}
        self._steps: list[tuple[Var, Expr]] = []

    def __getitem__(self, name: str) -> Var:
        if name not in self._inputs:
            self._inputs[name] = Var(name, self._dtype)
        return self._inputs[name]

    def let(self, name: str, value: Expr) -> Var:
        var = Var(name, self._dtype)
        self._steps.append((var, value))
        return var

    def gate(self, name: str, function: Activation, number: int, more: Expr | None = None) -> Var:
        """The activation of a gate's sum."""
        total = self[f"x{number}"] + self[f"r{number}"]
        return self.activate(name, function, total if more is None else total + more)

    def activate(self, name: str, function: Activation, total: Expr) -> Var:
        bound = self._cell.clip
        if bound is not None:
            high = tirx.const(bound, self._dtype)
            total = tirx.min(high, tirx.max(tirx.const(-bound, self._dtype), total))
        return self.let(name, function(self.let("sum", total)))

    def peephole(self, number: int, state: Expr) -> Expr | None:
        return self[f"p{number}"] * state if "p" in self._cell.operands else None

    def phase(self, operand: str, gates: tuple[int, ...], **results: Expr) -> Phase:
        return Phase(operand, gates, self._inputs, tuple(self._steps), results)


def _lstm(cell: Cell, functions: tuple[Activation, ...], dtype: str) -> tuple[Phase, ...]:
    f, g, h = functions
    to = _Formulas(cell, dtype)
    admit = to.gate("i", f, 0, to.peephole(0, to["c"]))
    if cell.coupled:
        keep = to.let("f", tirx.const(1.0, dtype) - admit)
    else:
        keep = to.gate("f", f, 2, to.peephole(2, to["c"]))
    state = to.let("c", keep * to["c"] + admit * to.gate("g", g, 3))
    show = to.gate("o", f, 1, to.peephole(1, state))
    return (to.phase("h", (0, 1, 2, 3), c=state, h=to.let("h", show * h(state))),)


def _gru(cell: Cell, functions: tuple[Activation, ...], dtype: str) -> tuple[Phase, ...]:
    f, g = functions

    def mixed(to: _Formulas, update: Expr, new: Expr) -> Expr:
        return to.let("h", (tirx.const(1.0, dtype) - update) * new + update * to["h"])

    to = _Formulas(cell, dtype)
    update, reset = to.gate("z", f, 0), to.gate("r", f, 1)
    if cell.reset_after:
        inner = to["r2"] + to["b"] if "b" in cell.operands else to["r2"]
        new = to.activate("n", g, to["x2"] + reset * inner)
        return (to.phase("h", (0, 1, 2), h=mixed(to, update, new)),)
    first = to.phase("h", (0, 1), z=update, reset=to.let("reset", reset * to["h"]))
    to = _Formulas(cell, dtype)
    new = to.gate("n", g, 2)
    return first, to.phase("reset", (2,), h=mixed(to, to["z"], new))


def _rnn(cell: Cell, functions: tuple[Activation, ...], dtype: str) -> tuple[Phase, ...]:
    to = _Formulas(cell, dtype)
    return (to.phase("h", (0,), h=to.gate("h", functions[0], 0)),)
