"""`dscc inspect`: what an artifact says about itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from dscc.cli import output


@click.command("inspect", short_help="Show what an artifact holds.")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option("--weights", is_flag=True, help="List every weight.")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as it is stored.")
def command(artifact: Path, weights: bool, as_json: bool) -> None:
    """Show what ARTIFACT holds: where it runs, inputs, outputs, kernels, weights. Its hashes are checked first."""
    from dscc.artifact import Artifact

    opened = Artifact.open(artifact)
    manifest = opened.manifest
    if as_json:
        click.echo(json.dumps(manifest.to_dict(), indent=1, ensure_ascii=False))
        return
    stored = opened.weights()
    facts = {
        "target": f"{manifest.target} ({manifest.machine})",
        "needs": " ".join(manifest.cpu_features) or "nothing beyond that",
        **({"device": _device(manifest.device)} if manifest.device else {}),
        "pipeline": manifest.pipeline,
        "made by": ", ".join(f"{name} {version}" for name, version in manifest.versions.items()),
        "plug-ins": ", ".join(f"{name} {version}".strip() for name, version in manifest.plugins.items()) or "none",
        "weights": f"{output.count(len(stored), 'tensor')}, {output.size(len(opened.member('weights.safetensors')))}",
        "library": output.size(len(opened.member("model.so"))),
        **{name.replace("_", " "): _value(value) for name, value in manifest.summary.items()},
    }
    output.table(["", str(artifact)], [[name, text] for name, text in facts.items()])
    for title, specs in (("input", manifest.inputs), ("output", manifest.outputs)):
        click.echo()
        output.table([title, "type", "shape"], [[spec.name, spec.dtype, output.shape(spec.shape)] for spec in specs])
    if weights:
        click.echo()
        rows = [[tensor.name, tensor.dtype, output.shape(tensor.shape)] for tensor in stored.values()]
        output.table(["weight", "type", "shape"], rows)


def _device(device: Mapping[str, Any]) -> str:
    """What runs the kernels: the kind of runtime, and what else the artifact says of the device that it is for."""
    rest = {name: value for name, value in device.items() if name not in ("kind", "type", "host_parameters")}
    return f"{device['kind']} ({_value(rest)})" if rest else str(device["kind"])


def _value(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_value(item)}" for name, item in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(_value(item) for item in value) or "none"
    return str(value)
