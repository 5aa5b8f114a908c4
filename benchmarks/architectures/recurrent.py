"""Recurrent networks of torch.nn: over a batch and a length that are both open."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class Tagger(nn.Module):
    """Every step of a sequence labelled; x: (batch, sequence, 24) -> (batch, sequence, 5) and the last state."""

    def __init__(self, cell: nn.RNNBase) -> None:
        super().__init__()
        self.cell = cell
        self.head = nn.Linear(cell.hidden_size * (2 if cell.bidirectional else 1), 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, state = self.cell(x)
        return self.head(y), state[0] if isinstance(state, tuple) else state


class Stepper(nn.Module):
    """An LSTM whose state is carried from call to call."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(24, 32, num_layers=2, batch_first=True)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, (h, c) = self.cell(x, (h, c))
        return y, h, c


def tagger(cell: Any, **options: Any) -> tuple[nn.Module, list[str]]:
    return Tagger(cell(24, 32, batch_first=True, **options)), ["labels", "state"]


BUILDERS = {
    "lstm": lambda: tagger(nn.LSTM, num_layers=2, bidirectional=True),
    "gru": lambda: tagger(nn.GRU, num_layers=2, bidirectional=True),
    "rnn": lambda: tagger(nn.RNN, nonlinearity="relu"),
    "lstm_stepper": lambda: (Stepper(), ["y", "h_out", "c_out"]),
}
