"""A workaround: TVM gives the symbols that a TIR function takes as numbers an order that changes from run to run.

`relax.BlockBuilder.call_te` of TVM 0.27 collects them in a `set` of variables, whose order is that of their addresses
(`gen_call_tir_inputs` in relax/utils.py: `list(used_vars - bound_vars)`). The same model then has functions of other
signatures and names every time: artifacts differ, and a tuner that looks kernels up by name misses most of them. To see
it: legalize a convolution of symbolic height and width a few times, and compare the printed modules.

That module's `set` becomes one that keeps the order in which its members came.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from tvm.relax import utils


class InOrder:
    """As much of a set as that function uses."""

    def __init__(self, members: Iterable[Any] = ()):
        self._members = dict.fromkeys(members)

    def add(self, member: Any) -> None:
        self._members[member] = None

    def update(self, members: Iterable[Any]) -> None:
        self._members.update(dict.fromkeys(members))

    def __sub__(self, other: InOrder) -> InOrder:
        return InOrder(member for member in self._members if member not in other._members)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._members)


def install() -> None:
    utils.set = InOrder
