"""Passes over TVMScript text: what `dscc opt` does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dscc.errors import FrontendError

if TYPE_CHECKING:
    import tvm


@dataclass(frozen=True)
class Optimized:
    """A module after its passes, and what they remarked."""

    mod: tvm.IRModule
    remarks: tuple[str, ...]


def read(path: Path) -> str:
    """The text of a file of TVMScript.

    Raises:
        FrontendError: it is missing, or no text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as err:
        raise FrontendError(f"script '{path}' does not exist") from err
    except (OSError, UnicodeDecodeError) as err:
        raise FrontendError(f"script '{path}' cannot be read as text: {err}") from err


def optimize(text: str, passes: str, target: str | None, dump: Path | None = None, source: str = "<text>") -> Optimized:
    """Parse `text`, run the pipeline `passes` over it.

    Raises:
        PipelineError: the pipeline text cannot be used.
        FrontendError: the text is no TVMScript module.
    """
    from dscc import pipeline, targets
    from dscc.passes.base import PassContext
    from dscc.plugins import registry

    run = pipeline.parse(passes, registry().passes)
    ctx = PassContext(targets.resolve(target))
    mod = run.run(parse(text, source), ctx, dump=dump)
    return Optimized(mod, tuple(ctx.remarks))


def parse(text: str, source: str) -> tvm.IRModule:
    """The module that a TVMScript text describes; a single function becomes the module's `main`.

    Raises:
        FrontendError: it is none; the parser's message says where.
    """
    import tvm

    try:
        parsed = tvm.script.from_source(text, check_well_formed=True)
    # The parser raises whatever a name in the text happens to raise, and a DiagnosticError without a common base.
    except Exception as err:
        said = " ".join(str(err).split()) or type(err).__name__
        raise FrontendError(f"script '{source}' is not TVMScript: {said[-300:]}") from err
    return parsed if isinstance(parsed, tvm.IRModule) else tvm.IRModule({"main": parsed})
