"""`dscc run`: an artifact, or a model file compiled on the way, on inputs from files or from a seed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from dscc.cli import flags, output
from dscc.cli.model import open_artifact


@click.command("run", short_help="Run an artifact or a model file.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--input", "inputs", metavar="NAME=@FILE.npy", multiple=True, help="An input; @FILE.npz gives several.")
@click.option("--random", is_flag=True, help="Make the inputs that are not given.")
@flags.feed_flags
@click.option(
    "--output", "output_file", type=click.Path(path_type=Path), help="The .npz file that receives the outputs."
)
@click.option("--device", metavar="NAME", help="Part of the name of the device to run on, where there are several.")
@flags.compile_flags(shapes=False)
def command(
    model: Path,
    inputs: tuple[str, ...],
    random: bool,
    dims: Mapping[str, int],
    seed: int,
    threads: int | None,
    device: str | None,
    output_file: Path | None,
    **values: Any,
) -> None:
    """Run MODEL, an artifact or a model file, and print or save its outputs."""
    from dscc import feeds, files
    from dscc.errors import InputError
    from dscc.runtime.containers import flatten

    if output_file:
        files.check_writable(output_file)
    given = feeds.read_feeds(inputs)
    module = open_artifact(model, flags.compile_options(values)).load(threads, device)
    missing = [info for info in module.get_inputs() if info.name not in given]
    if missing and not random:
        kinds = ", ".join(f"'{info.name}' {output.shape(info.shape)} {info.type}" for info in missing)
        raise InputError(f"no value for input {kinds}; give --input {missing[0].name}=@FILE.npy or --random")
    made = feeds.random_feeds(missing, dims, seed)
    names = [info.name for info in module.get_outputs()]
    found = zip(names, module.run(names, {**given, **made}), strict=True)
    results = {key: array for name, held in found for key, array in flatten(name, held).items()}
    if output_file:
        feeds.save(output_file, results)
    rows = [[name, str(value.dtype), output.shape(value.shape), *_statistics(value)] for name, value in results.items()]
    output.table(["output", "type", "shape", "min", "mean", "max"], rows)
    if module.device:
        click.echo(f"on {module.device}", err=True)


def _statistics(value: Any) -> list[str]:
    """Least, mean and greatest element: enough to see a network that has gone to zero, to infinity or to NaN."""
    from dscc.elements import is_real

    if not value.size or not is_real(value.dtype):
        return ["", "", ""]
    numbers = value.astype("float64")
    return [f"{number:.6g}" for number in (numbers.min(), numbers.mean(), numbers.max())]
