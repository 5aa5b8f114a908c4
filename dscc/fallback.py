"""Regions of a model that another engine runs, as they travel on the module: the attribute `dscc.fallback` of `main`.

The module calls region N by `dscc.library.call("fallback", [R.shape([N]), ...])`; a front end that cuts regions out of
its model attaches them here, and the artifact gets them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import tvm
from tvm import relax

ATTRIBUTE = "dscc.fallback"


@dataclass(frozen=True)
class Region:
    """One region.

    Attributes:
        model: it as an ONNX model, whose inputs and outputs are those of the call, in order.
        engine: what runs it (`dscc.runtime.engines`), of this `version` when this was compiled.
        what: its nodes, for people; `why` dscc does not compile them; `cost` of a call, beside the work itself.
        inputs, outputs: types as dscc/runtime/fallback.py has them.
    """

    model: bytes
    engine: str
    version: str
    what: str
    why: str
    cost: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.what} on {self.engine} ({self.cost}): {self.why}"

    def spec(self) -> dict[str, Any]:
        """What the manifest says of it."""
        fields = asdict(self)
        del fields["model"]
        return fields


def attach(main: relax.Function, regions: Sequence[Region]) -> relax.Function:
    """`main` with its regions."""
    if not regions:
        return main
    return main.with_attr(ATTRIBUTE, [[region.model, json.dumps(region.spec())] for region in regions])


def of(mod: tvm.IRModule) -> list[Region]:
    """The regions that the module's `main` calls."""
    attrs = mod["main"].attrs
    found = attrs.get(ATTRIBUTE) if attrs else None
    regions = []
    for model, text in found or []:
        spec = json.loads(str(text))
        spec |= {name: tuple(spec[name]) for name in ("inputs", "outputs")}
        regions.append(Region(bytes(model), **spec))
    return regions
