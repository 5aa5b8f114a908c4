"""What was measured, in a file that survives the process: SQLite, one row for every candidate of a kernel.

A kernel is found by the hash of its structure and then compared with what is stored, so that two models share what
they have in common. Every measurement is committed before the next one begins.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tvm
import tvm_ffi
from tvm import tirx

import dscc
from dscc.artifact import host
from dscc.errors import TuneError
from dscc.schedule.decisions import Choice

if TYPE_CHECKING:
    from dscc.targets.base import Target

_SCHEMA = """
CREATE TABLE IF NOT EXISTS kernel (
  id INTEGER PRIMARY KEY, hash TEXT NOT NULL, func TEXT NOT NULL, constants TEXT NOT NULL, target TEXT NOT NULL,
  machine TEXT NOT NULL, version TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS kernel_hash ON kernel (hash, target, machine, version);
CREATE TABLE IF NOT EXISTS trial (
  kernel INTEGER NOT NULL REFERENCES kernel (id), choices TEXT NOT NULL, sizes TEXT NOT NULL, state TEXT NOT NULL,
  ratio REAL, time_ns REAL, confirmed INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (kernel, choices, sizes)
) WITHOUT ROWID;
"""
FASTER = 0.97
"""A candidate is used where its time is below this part of the default's, and was so again when it was confirmed."""

Choices = Mapping[str, Choice]


@dataclass(frozen=True)
class Trial:
    """One candidate.

    Attributes:
        choices: by name; what is left out has its default.
        state: `right`, `wrong` (its result is not the default's), `refused` (its device has too few registers or too
            little memory for it), or `failed` (it could not be built or run).
        ratio: its time over that of the default, measured in turns; None unless right.
        time_ns: of a call.
        confirmed: it was measured again, longer, and was faster again.
    """

    choices: Choices
    state: str
    ratio: float | None = None
    time_ns: float | None = None
    confirmed: bool = False


class Database:
    """A tuning database; made if it is not there.

    Args:
        path: the file.
        target: `NAME:ARCH`, with the precision unless it is float32; machine: the processor that measures, as the
            operating system names it, or the device, as its driver does.

    Raises:
        TuneError: the file cannot be opened, or is no database of dscc.
    """

    def __init__(self, path: Path, target: str, machine: str):
        self._where = (target, machine, f"dscc {dscc.__version__}")
        try:
            self._db = sqlite3.connect(path, timeout=30)
            self._db.executescript(_SCHEMA)
        except sqlite3.Error as err:
            raise TuneError(f"tuning database '{path}' cannot be used: {err}") from err

    def kernel(self, func: tirx.PrimFunc, constants: frozenset[int]) -> int:
        """The number of a kernel; it is entered if it is new."""
        for found in self._equal(func, constants, everywhere=False):
            return found
        bare = func.without_attr("global_symbol")
        row = (_hash(bare), tvm.ir.save_json(bare), json.dumps(sorted(constants)), *self._where)
        with self._db:
            insert = "INSERT INTO kernel (hash, func, constants, target, machine, version) VALUES (?, ?, ?, ?, ?, ?)"
            entered = self._db.execute(insert, row)
        assert entered.lastrowid is not None  # a row has just been inserted
        return entered.lastrowid

    def _equal(self, func: tirx.PrimFunc, constants: frozenset[int], everywhere: bool = True) -> Iterator[int]:
        """The kernels with this structure for this target and version: this machine's, then those of others."""
        bare = func.without_attr("global_symbol")
        target, machine, version = self._where
        query = "SELECT id, func FROM kernel WHERE hash = ? AND constants = ? AND target = ? AND version = ?"
        query += " ORDER BY machine <> ?, id" if everywhere else " AND machine = ? ORDER BY id"
        rows = self._db.execute(query, (_hash(bare), json.dumps(sorted(constants)), target, version, machine))
        for number, text in rows.fetchall():
            if tvm_ffi.structural_equal(tvm.ir.load_json(text), bare):
                yield number

    def trials(self, kernel: int, sizes: Sequence[Any]) -> list[Trial]:
        """What was measured of a kernel at these sizes."""
        query = "SELECT choices, state, ratio, time_ns, confirmed FROM trial WHERE kernel = ? AND sizes = ?"
        rows = self._db.execute(query, (kernel, json.dumps(sizes)))
        return [Trial(_choices(text), state, ratio, ns, bool(sure)) for text, state, ratio, ns, sure in rows]

    def add(self, kernel: int, sizes: Sequence[Any], trial: Trial) -> None:
        """Keep a measurement; the same candidate at the same sizes replaces the one before."""
        row = (kernel, _text(trial.choices), json.dumps(sizes), trial.state, trial.ratio, trial.time_ns)
        with self._db:
            self._db.execute("INSERT OR REPLACE INTO trial VALUES (?, ?, ?, ?, ?, ?, ?)", (*row, trial.confirmed))

    def best(self, func: tirx.PrimFunc, constants: frozenset[int]) -> Choices:
        """The choices for a kernel that are measurably faster than the default, the fastest of them; else none."""
        query = "SELECT choices FROM trial WHERE kernel = ? AND confirmed AND state = 'right' AND ratio < ?"
        for kernel in self._equal(func, constants):
            row = self._db.execute(f"{query} ORDER BY ratio, choices LIMIT 1", (kernel, FASTER)).fetchone()
            if row:
                return _choices(row[0])
        return {}


def open_existing(path: Path, target: Target, precision: str) -> Database:
    """The database at `path`, to look choices up for `target` on this machine.

    Raises:
        TuneError: there is none.
    """
    if not path.is_file():
        raise TuneError(f"tuning database '{path}' does not exist; 'dscc tune MODEL --db {path}' makes it")
    return Database(path, key(target, precision), host.processor())


def key(target: Target | str, precision: str) -> str:
    """What kernels of a target are filed under: those of one structure are others where factors are rounded first."""
    return str(target) if precision == "fp32" else f"{target} {precision}"


def _hash(func: tirx.PrimFunc) -> str:
    return f"{tvm_ffi.structural_hash(func) & (1 << 64) - 1:016x}"


def _text(choices: Choices) -> str:
    return json.dumps(dict(choices), sort_keys=True)


def _choices(text: str) -> Choices:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in json.loads(text).items()}
