"""`dscc run`: an artifact, or a model file compiled on the way, on inputs from files or from a seed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dscc.cli import flags, output
from dscc.cli.model import open_artifact

if TYPE_CHECKING:
    from dscc.artifact import Artifact


@click.command("run", short_help="Run an artifact or a model file.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--input", "inputs", metavar="NAME=@FILE.npy", multiple=True, help="An input; @FILE.npz gives several.")
@click.option("--random", is_flag=True, help="Make the inputs that are not given.")
@flags.feed_flags
@click.option(
    "--output", "output_file", type=click.Path(path_type=Path), help="The .npz file that receives the outputs."
)
@click.option("--device", metavar="NAME", help="Part of the name of the device to run on, where there are several.")
@click.option("--stats", type=click.Choice(["moe"]), help="moe: run once more, and count the tokens of every expert.")
@click.option("--plot", "plot_file", type=click.Path(path_type=Path), help="The .png file that shows the statistics.")
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
    stats: str | None,
    plot_file: Path | None,
    **values: Any,
) -> None:
    """Run MODEL, an artifact or a model file, and print or save its outputs."""
    from dscc import feeds, files
    from dscc.errors import InputError
    from dscc.runtime.containers import flatten

    if plot_file and not stats:
        raise InputError("--plot shows statistics; give --stats moe")
    for file in filter(None, (output_file, plot_file)):
        files.check_writable(file)
    given = feeds.read_feeds(inputs)
    artifact = open_artifact(model, flags.compile_options(values))
    module = artifact.load(threads, device)
    missing = [info for info in module.get_inputs() if info.name not in given]
    if missing and not random:
        kinds = ", ".join(f"'{info.name}' {output.shape(info.shape)} {info.type}" for info in missing)
        raise InputError(f"no value for input {kinds}; give --input {missing[0].name}=@FILE.npy or --random")
    made = feeds.random_feeds(missing, dims, seed)
    names = [info.name for info in module.get_outputs()]
    with flags.guessed(missing, dims):
        found = zip(names, module.run(names, {**given, **made}), strict=True)
    results = {key: array for name, held in found for key, array in flatten(name, held).items()}
    if output_file:
        feeds.save(output_file, results)
    rows = [[name, str(value.dtype), output.shape(value.shape), *_statistics(value)] for name, value in results.items()]
    output.table(["output", "type", "shape", "min", "mean", "max"], rows)
    if stats:
        _experts(artifact, {**given, **made}, module.threads, plot_file)
    if module.device:
        click.echo(f"on {module.device}", err=True)


def _experts(artifact: Artifact, feeds: Mapping[str, Any], threads: int, plot_file: Path | None) -> None:
    """How the tokens are spread over the experts of every layer."""
    from dscc import balance_plot
    from dscc.runtime import balance

    loads = balance.measure(artifact, feeds, threads)
    rows = [
        [one.layer, str(one.tokens), f"{one.imbalance:.2f}", str(one.dropped), " ".join(map(str, one.chosen))]
        for one in loads
    ]
    output.table(["experts of", "tokens", "max over mean", "dropped", "tokens per expert"], rows)
    if plot_file:
        balance_plot.draw(loads, plot_file)


def _statistics(value: Any) -> list[str]:
    """Least, mean and greatest element: enough to see a network that has gone to zero, to infinity or to NaN."""
    from dscc.elements import is_real

    if not value.size or not is_real(value.dtype):
        return ["", "", ""]
    numbers = value.astype("float64")
    return [f"{number:.6g}" for number in (numbers.min(), numbers.mean(), numbers.max())]
