"""The hooks through which plug-ins add to dscc, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from dscc.frontends.base import Frontend
    from dscc.frontends.onnx.operator import OnnxOperator
    from dscc.passes.base import Pass
    from dscc.targets.base import Target

hookspec = pluggy.HookspecMarker("dscc")
hookimpl = pluggy.HookimplMarker("dscc")


@hookspec
def dscc_passes() -> list[type[Pass]]:  # type: ignore[empty-body]
    """Passes that this plug-in adds. Listing a pass never enables it: a pipeline does."""


@hookspec
def dscc_targets() -> list[type[Target]]:  # type: ignore[empty-body]
    """Targets that this plug-in adds."""


@hookspec
def dscc_frontends() -> list[type[Frontend]]:  # type: ignore[empty-body]
    """Model formats that this plug-in reads."""


@hookspec
def dscc_onnx_operators() -> list[type[OnnxOperator]]:  # type: ignore[empty-body]
    """ONNX operators of domains of its own that this plug-in converts."""
