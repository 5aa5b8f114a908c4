"""`dscc verify`: how far a compiled model is from a reference."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dscc.cli import flags, output
from dscc.cli.model import is_artifact, open_artifact

if TYPE_CHECKING:
    from dscc.options import CompileOptions
    from dscc.verify import Departure


@click.command("verify", short_help="Compare a compiled model with a reference.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--against", type=click.Path(path_type=Path), help="The ONNX file that the model was compiled from.")
@click.option("--input", "inputs", metavar="NAME=@FILE.npy", multiple=True, help="An input; random ones otherwise.")
@flags.feed_flags
@click.option(
    "--tolerance",
    type=float,
    help="Largest error relative to the largest reference value. [default: 1e-4; 4e-3 for float16]",
)
@click.option("--atol", type=float, help="Differences up to this count as no ULP.")
@click.option("--per-node", is_flag=True, help="Name the first node whose values depart from the reference.")
@flags.compile_flags(shapes=False)
def command(
    model: Path,
    against: Path | None,
    inputs: tuple[str, ...],
    dims: Mapping[str, int],
    seed: int,
    threads: int | None,
    tolerance: float | None,
    atol: float | None,
    per_node: bool,
    **values: Any,
) -> None:
    """Compare MODEL with onnxruntime, or with onnx's reference evaluator where that is not installed.

    MODEL is an artifact, or an ONNX file that is compiled on the way and is its own reference. An artifact without
    --against is compared with what it computed where it was compiled. Exit status 1 where an output is off by more than
    the tolerance.
    """
    from dscc import feeds, verify

    if against is None:
        if is_artifact(model):
            return _check_itself(model, threads)
        against = model
    options = flags.compile_options(values)
    engine = verify.reference(against)
    module = open_artifact(model, options).load(threads)
    given = feeds.read_feeds(inputs)
    missing = [info for info in module.get_inputs() if info.name not in given]
    given |= feeds.random_feeds(missing, dims, seed)
    with flags.guessed(missing, dims):
        found = verify.differences(module, engine, given, atol)
    click.echo(f"reference: {engine.engine}")
    rows = []
    for diff in found:
        verdict = (
            "ok"
            if diff.within(tolerance)
            else diff.reason or f"above {diff.usual if tolerance is None else tolerance:g}"
        )
        numbers = [f"{diff.max_abs:.3g}", f"{diff.max_rel:.3g}", str(diff.max_ulp), f"{diff.cosine:.8f}"]
        rows.append([diff.name, *(["", "", "", ""] if diff.reason else numbers), verdict])
    output.table(["output", "max abs", "relative", "max ULP", "cosine", "verdict"], rows)
    if per_node:
        click.echo(_departure(against, given, options, threads, tolerance))
    wrong = [diff.name for diff in found if not diff.within(tolerance)]
    if wrong:
        raise click.exceptions.Exit(1)


def _check_itself(artifact: Path, threads: int | None) -> None:
    from dscc import load, selfcheck

    module = load(artifact, threads)
    wrong = selfcheck.failures(module)
    click.echo("reference: this artifact, where it was compiled")
    names = [info.name for info in module.get_outputs()]
    output.table(["output", "verdict"], [[name, wrong.get(name, "ok")] for name in names])
    if wrong:
        raise click.exceptions.Exit(1)


def _departure(
    against: Path, given: dict[str, Any], options: CompileOptions, threads: int | None, tolerance: float | None
) -> str:
    from dscc import compiler, verify

    def load(model: Path) -> Any:
        return compiler.compile(model, options).load(threads)

    found = verify.first_departure(against, given, load, tolerance)
    return "no node departs from the reference" if found is None else _sentence(found)


def _sentence(found: Departure) -> str:
    diff = found.difference
    how = diff.reason or f"relative error {diff.max_rel:.3g}"
    when = ", only when it is fused with its neighbours" if found.fused else ""
    return f"first node that departs: '{found.node}' ({found.operator}), value '{diff.name}': {how}{when}"
