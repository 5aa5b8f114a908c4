"""`dscc list passes|targets|frontends`: what there is, and from whom."""

from __future__ import annotations

import dataclasses
import inspect
from typing import TYPE_CHECKING

import click

from dscc.cli import output

if TYPE_CHECKING:
    from dscc.plugins import Registry


@click.command("list", short_help="List passes, targets or front ends.")
@click.argument("kind", type=click.Choice(["passes", "targets", "frontends"]))
def command(kind: str) -> None:
    """List the passes, targets or front ends that there are."""
    from dscc.plugins import registry

    headers, rows = {"passes": _passes, "targets": _targets, "frontends": _frontends}[kind](registry())
    output.table(headers, rows)


def _passes(registry: Registry) -> tuple[list[str], list[list[str]]]:
    rows = []
    for name, cls in registry.passes.items():
        options = " ".join(f"{entry.name}={entry.default}" for entry in dataclasses.fields(cls))
        rows.append([name, cls.stage, options, registry.owner("pass", name).name, summary(cls)])
    return ["pass", "stage", "options", "from", "does"], rows


def _targets(registry: Registry) -> tuple[list[str], list[list[str]]]:
    rows = []
    for name, cls in registry.targets.items():
        host = "this machine" if cls.is_host() else ""
        rows.append([name, host, registry.owner("target", name).name, summary(cls)])
    return ["target", "default", "from", "is"], rows


def _frontends(registry: Registry) -> tuple[list[str], list[list[str]]]:
    rows = []
    for name, cls in registry.frontends.items():
        rows.append([name, " ".join(cls.suffixes), registry.owner("front end", name).name, summary(cls)])
    return ["front end", "reads", "from", "is"], rows


def summary(cls: type) -> str:
    """The first line of the class's docstring, or of its module's when that is where the description is."""
    own = cls.__doc__ if cls.__doc__ and not cls.__doc__.startswith(f"{cls.__name__}(") else None
    text = own or getattr(inspect.getmodule(cls), "__doc__", None) or ""
    return inspect.cleandoc(text).partition("\n")[0]
