"""`dscc compile`: a model file becomes an artifact, or one of the forms that it passes through."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dscc.cli import flags, output
from dscc.cli.progress import Stages

if TYPE_CHECKING:
    from dscc.options import CompileOptions

FORMS = ("ir", "tir", "source", "asm", "binary", "artifact")


@click.command("compile", short_help="Compile a model to an artifact.")
@click.argument("model", type=click.Path(path_type=Path))
@flags.compile_flags()
@click.option(
    "--emit",
    type=click.Choice(FORMS),
    default="artifact",
    show_default=True,
    help="What to write: the graph, its scheduled kernels, their source, assembly or device code, or the artifact.",
)
@click.option("-o", "--output", "target_file", type=click.Path(path_type=Path), help="The file to write.")
def command(model: Path, emit: str, target_file: Path | None, **values: Any) -> None:
    """Compile MODEL to an artifact.

    Without -o the artifact goes to the current folder under the model's name, and other forms to standard output.
    """
    started = time.perf_counter()  # importing TVM is part of what the user waits for
    from dscc import emit as forms
    from dscc import files
    from dscc.artifact import store

    options = flags.compile_options(values)
    if emit == "artifact":
        _artifact(model, options, target_file or Path(f"{model.stem}.dscc"), started)
        return
    if target_file:
        files.check_writable(target_file)
    with Stages(f"compile {model.name}") as stages:
        shown = forms.emit(model, options, emit, progress=stages)
    if target_file:
        store.write(target_file, [shown.encode() if isinstance(shown, str) else shown])
    else:
        click.echo(shown)


def _artifact(model: Path, options: CompileOptions, target_file: Path, started: float) -> None:
    from dscc import compiler, files

    files.check_writable(target_file)
    with Stages(f"compile {model.name}") as stages:
        artifact = compiler.compile(model, options, progress=stages)
        stages("write")
        artifact.save(target_file)
    output.summary(artifact, target_file, time.perf_counter() - started)
