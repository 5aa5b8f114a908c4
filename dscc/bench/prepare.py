"""What engines compile ahead of time: made once in a process of its own, and kept for the next race."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shutil
from dataclasses import replace
from pathlib import Path

from dscc.bench.ahead import ENGINES
from dscc.bench.child import Child, Contestant, EngineError, EngineRefusal
from dscc.bench.engines import Engine
from dscc.feeds import Feeds

PREPARE_S = 3600.0


def prepare(contestant: Contestant, feeds: Feeds, feeds_file: Path, cache: Path) -> Path:
    """What the engine loads: its model, or what it makes of it ahead of time, in `cache` if it is there already.

    Raises:
        EngineError: its compiler fails on the model. That is remembered as well.
    """
    engine = ENGINES[contestant.engine]
    if not engine.ahead:
        return contestant.model
    shapes = sorted((name, array.shape, str(array.dtype)) for name, array in feeds.items())
    known = hashlib.sha256(repr((engine.name, version(engine), engine.settings, shapes)).encode())
    with contestant.model.open("rb") as file:
        while block := file.read(1 << 20):
            known.update(block)
    made = cache / f"{engine.name}-{known.hexdigest()[:24]}"
    refusal = made.with_suffix(".refused")
    if refusal.exists():
        raise EngineError(refusal.read_text())
    if not made.exists():
        aside = made.with_suffix(f".{os.getpid()}")
        shutil.rmtree(aside, ignore_errors=True)
        cache.mkdir(parents=True, exist_ok=True)
        try:
            with Child(replace(contestant, threads=1), feeds_file) as child:
                child.ask(f"prepare {aside}", PREPARE_S)
            aside.replace(made)
        except EngineRefusal as err:
            refusal.write_text(str(err))
            raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return made


def version(engine: type[Engine]) -> str:
    """Of the engine's package."""
    module = engine.package.partition(".")[0]
    names = importlib.metadata.packages_distributions().get(module, [])
    return " ".join(f"{name} {importlib.metadata.version(name)}" for name in sorted(set(names)))
