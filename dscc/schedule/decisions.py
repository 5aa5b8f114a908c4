"""The free numbers of a schedule rule: each has a default from the model of the machine, and candidates for the tuner.

    rows = decisions.pick("rows", [6, 4, 8])     # 6, unless the tuner or a record of it says otherwise

What a rule picks is looked up by name; what it asked for is written down, so that one run of the rule tells the tuner
all there is to choose from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

Choice = int | str | tuple[int, ...]
T = TypeVar("T", int, str, tuple[int, ...])


class Decisions:
    """What to choose, by name; the default for what is not in it.

    Attributes:
        asked: every name that was asked for, with its candidates, the default first.
    """

    def __init__(self, chosen: Mapping[str, Choice] | None = None):
        self._chosen = dict(chosen or {})
        self.asked: dict[str, tuple[Choice, ...]] = {}

    def pick(self, name: str, candidates: Sequence[T]) -> T:
        """One of the candidates. A choice that is none of them, as one made for another kernel, counts for nothing."""
        self.asked[name] = tuple(candidates)
        chosen = self._chosen.get(name)
        return next((candidate for candidate in candidates if candidate == chosen), candidates[0])
