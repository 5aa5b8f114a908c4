"""`dscc opt`: passes over TVMScript, for tests and for seeing what a pass does."""

from __future__ import annotations

import sys
from pathlib import Path

import click


@click.command("opt", short_help="Run passes over TVMScript.")
@click.argument("script", type=click.Path(path_type=Path))
@click.option(
    "-p", "--passes", required=True, metavar="PIPELINE", help="Passes to run, such as 'fuse-gelu,fold-constants'."
)
@click.option("--target", help="NAME[:ARCH] that the passes are for; this machine when left out.")
@click.option("--remarks", is_flag=True, help="Say where a pass was applied or why it refused, as comments first.")
@click.option("--dump", type=click.Path(path_type=Path), help="Folder for the module after every pass.")
def command(script: Path, passes: str, target: str | None, remarks: bool, dump: Path | None) -> None:
    """Run passes over SCRIPT, a file of TVMScript ('-' is standard input), and print the module that comes out."""
    from dscc import opt

    text = sys.stdin.read() if str(script) == "-" else opt.read(script)
    result = opt.optimize(text, passes, target, dump, source=str(script))
    if remarks:
        for remark in result.remarks:
            click.echo(f"# remark: {remark}")
    click.echo(result.mod.script())
