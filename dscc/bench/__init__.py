"""Races between engines: one child process per engine and thread count, taking turns, the others quiet."""

from dscc.bench.child import Contestant
from dscc.bench.race import Result, check_engine, race

__all__ = ["Contestant", "Result", "check_engine", "race"]
