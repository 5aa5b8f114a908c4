"""The generators: each adds one or a few nodes of its family to a graph, or raises `Rejected`.

A module's `GENERATORS` maps each generator to its weight: how often it is tried, relative to the others.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from functools import cache

from benchmarks.fuzz.graph import Graph

Generator = Callable[[Graph], None]


@cache
def generators() -> dict[Generator, float]:
    """All generators of the modules in this folder, with their weights."""
    table: dict[Generator, float] = {}
    for module in sorted(found.name for found in pkgutil.iter_modules(__path__)):
        table |= importlib.import_module(f"{__name__}.{module}").GENERATORS
    return table
