"""Races between engines: one child process per engine and thread count, taking turns, the others quiet."""

from dscc.bench.race import Contestant, Result, check_engine, race

__all__ = ["Contestant", "Result", "check_engine", "race"]
