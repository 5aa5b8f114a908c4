"""Passes: IRModule to IRModule, a folder per family. The built-in ones come in through the same hook as anybody's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dscc.hookspecs import hookimpl

if TYPE_CHECKING:
    from dscc.passes.base import Pass


@hookimpl
def dscc_passes() -> list[type[Pass]]:
    """The built-in passes; their modules need TVM, so they are imported only when somebody asks."""
    from dscc.passes.builtin import PASSES

    return list(PASSES)
