"""The model formats that dscc reads, and how the one for a model is found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dscc.errors import FrontendError
from dscc.hookspecs import hookimpl

if TYPE_CHECKING:
    from dscc.frontends.base import Frontend


@hookimpl
def dscc_frontends() -> list[type[Frontend]]:
    """The built-in front ends."""
    from dscc.frontends.onnx.frontend import OnnxFrontend

    return [OnnxFrontend]


def find(model: Path | str | Any) -> Frontend:
    """The front end that reads `model`: by suffix for a path, by the type for a model in memory.

    Raises:
        FrontendError: none does.
    """
    from dscc.plugins import registry

    known = registry().frontends
    if isinstance(model, Path | str):
        for cls in known.values():
            if Path(model).suffix.lower() in cls.suffixes:
                return cls()
        suffixes = sorted(suffix for cls in known.values() for suffix in cls.suffixes)
        raise FrontendError(f"no front end reads '{model}'; known suffixes: {', '.join(suffixes)}")
    for cls in known.values():
        if cls.reads(model):
            return cls()
    raise FrontendError(
        f"no front end reads an object of type '{type(model).__name__}'; front ends: {', '.join(known)}"
    )
