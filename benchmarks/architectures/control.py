"""Networks whose course depends on their data: as exporters write it, with If and Loop."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Accumulator(nn.Module):
    """A scripted loop over the steps of a sequence, with a branch in it; x: (batch, sequence, 16)."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.gate = nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        state = torch.zeros_like(x[:, 0])
        count = torch.zeros(1, dtype=torch.int64)
        for step in range(x.shape[1]):
            now = x[:, step]
            if bool(now.sum() > 0):
                state = torch.tanh(self.mix(now) + state)
                count = count + 1
            else:
                state = state * torch.sigmoid(self.gate(now))
        return state, count


class Search(nn.Module):
    """A scripted while loop: doubles until a bound is passed, or the limit is reached."""

    def forward(self, x: Tensor, limit: Tensor) -> tuple[Tensor, Tensor]:
        count = torch.zeros(1, dtype=torch.int64)
        while bool(x.abs().max() < 100.0) and int(count) < int(limit):
            x = x * 2 + 1
            count = count + 1
        return x, count


class Collector(nn.Module):
    """A scripted loop that gathers its steps in a list; x: (batch, sequence, 16)."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        steps: list[Tensor] = []
        state = torch.zeros_like(x[:, 0])
        for step in range(x.shape[1]):
            state = torch.tanh(self.mix(x[:, step]) + 0.5 * state)
            steps.append(state)
        return torch.stack(steps, dim=1)


class Branches(nn.Module):
    """`torch.cond`, nested, with weights and values from outside in its branches."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(x)

        def left(x: Tensor, y: Tensor) -> Tensor:
            return self.left(x) + y

        def right(x: Tensor, y: Tensor) -> Tensor:
            return torch.cond(y.max() > 1.5, lambda x, y: self.right(x) * y, lambda x, y: y - x, (x, y))

        return torch.cond(x.sum() > 0, left, right, (x, y)).mean(dim=1)


class Repeat(nn.Module):
    """`while_loop`: one layer applied as often as an input says."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 16)

    def forward(self, x: Tensor, times: Tensor) -> Tensor:
        from torch._higher_order_ops.while_loop import while_loop

        def going(count: Tensor, x: Tensor) -> Tensor:
            return count < times

        def body(count: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            return count + 1, torch.tanh(self.layer(x))

        return while_loop(going, body, (torch.zeros((), dtype=torch.int64), x))[1]


BUILDERS = {
    "accumulator": lambda: (torch.jit.script(Accumulator()), ["state", "count"]),
    "search": lambda: (torch.jit.script(Search()), ["y", "count"]),
    "collector": lambda: (torch.jit.script(Collector()), ["y"]),
    "branches": lambda: (Branches(), ["y"]),
    "repeat": lambda: (Repeat(), ["y"]),
}
