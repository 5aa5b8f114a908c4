"""Opening what a command was given: an artifact as it is, a model file compiled on the way."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dscc.cli.progress import Stages

if TYPE_CHECKING:
    from dscc.artifact import Artifact
    from dscc.options import CompileOptions


def is_artifact(model: Path) -> bool:
    """Artifacts are told by their suffix: other formats are zip files too."""
    return model.suffix == ".dscc"


def open_artifact(model: Path, options: CompileOptions) -> Artifact:
    """The artifact at `model`, or the one that is made of the model file there."""
    if is_artifact(model):
        from dscc.artifact import Artifact

        return Artifact.open(model)
    from dscc import compiler

    with Stages(f"compile {model.name}") as stages:
        return compiler.compile(model, options, progress=stages)
