"""`dscc targets`: what can be compiled for, and with `--check` what it needs that is installed or missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dscc.cli import output

if TYPE_CHECKING:
    from dscc.targets.requirements import Requirement


@click.command("targets", short_help="List targets, and check what they need.")
@click.argument("names", metavar="[TARGET]...", nargs=-1)
@click.option("--check", is_flag=True, help="Say what is installed, what is missing, and what installs it.")
def command(names: tuple[str, ...], check: bool) -> None:
    """List the targets, or those that are named. With --check the exit status is 1 if one of these lacks something."""
    from dscc.cli.list import summary
    from dscc.errors import TargetError, unknown
    from dscc.plugins import registry

    known = registry().targets
    for name in names:
        if name not in known:
            raise TargetError(unknown("target", name, known))
    chosen = {name: cls for name, cls in known.items() if name in names or not names}
    if not check:
        output.table(
            ["target", "default", "is"],
            [[name, "this machine" if cls.is_host() else "", summary(cls)] for name, cls in chosen.items()],
        )
        return
    needs = [(name, need) for name, cls in chosen.items() for need in cls.requirements()]
    rows = [[name, need.what, need.purpose, need.found or _missing(need)] for name, need in needs]
    output.table(["target", "needs", "for", "found"], rows)
    if names and not all(need.found or need.optional for _, need in needs):
        raise SystemExit(1)


def _missing(need: Requirement) -> str:
    return f"{'not there' if need.optional else 'missing'}: {need.install}"
