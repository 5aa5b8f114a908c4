"""`dscc plugins`: which plug-ins were found, what they offer, and why one is not used."""

from __future__ import annotations

import warnings

import click

from dscc.cli import output
from dscc.errors import PluginError


@click.command("plugins", short_help="List plug-ins, and why one is not used.")
def command() -> None:
    """List the plug-ins, with those that failed to load and why."""
    from dscc.plugins import HOOKS, PluginWarning, registry

    clash: PluginError | None = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PluginWarning)  # the table says it
        found = registry()
        for kind in ("passes", "targets", "frontends", "operators"):
            try:
                getattr(found, kind)
            except PluginError as err:
                clash = clash or err
    rows = []
    for plugin in found.plugins:
        source = f"{plugin.distribution} {plugin.version}".strip() or "-"
        if plugin.blocked:
            state = "blocked"
        elif plugin.error:
            state = f"failed: {plugin.error}"
        else:
            names = [name for hook in HOOKS for name in plugin.offers.get(hook, [])]
            state = " ".join(names) if len(names) <= 6 else output.count(len(names), "name")
        rows.append([plugin.name, plugin.origin, source, state or "offers nothing"])
    output.table(["plug-in", "origin", "package", "offers"], rows)
    if clash:
        raise clash
