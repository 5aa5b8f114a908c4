"""Races between engines: one child process per engine and thread count, taking turns, the others quiet."""

from dscc.bench.race import Contestant, Result, race

__all__ = ["Contestant", "Result", "race"]
