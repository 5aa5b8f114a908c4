"""The exceptions that dscc raises on purpose.

    DsccError
    ├── FrontendError    the model file: missing, damaged, shapes that do not fit
    │   └── UnsupportedError    a valid part of a model that dscc does not compile; another engine may run it
    ├── PipelineError    the pipeline text: syntax, unknown pass, option out of range
    ├── PassError        a pass refused or failed
    ├── TargetError      the target: unknown name or architecture, missing toolchain
    ├── ArtifactError    the artifact: truncated, altered, for another machine, of a newer format
    ├── InputError       what a caller hands to a loaded module: names, shapes, types
    ├── TuneError        the tuner: its database, remote machines and builders
    └── PluginError      a plug-in: import failed, duplicate name, unknown hook

A `DsccError` prints one line and exits 1; anything else is a bug of dscc and keeps its traceback. The wording is
always: what, the value in quotes, what was allowed, what to do.
"""

from __future__ import annotations

from collections.abc import Iterable


class DsccError(Exception):
    """Base of everything that dscc raises on purpose."""


class FrontendError(DsccError):
    """The model file cannot be read as a model. The text is one line, whatever names from the model are in it."""

    def __init__(self, text: str = ""):
        super().__init__(one_line(text))


class UnsupportedError(FrontendError):
    """A part of the model is valid, as far as dscc sees, but has no compiled form: a matter for the fallback engine.

    Attributes:
        reason: what is missing, without the advice for someone who wants no fallback.
    """

    def __init__(self, text: str, reason: str = ""):
        super().__init__(text)
        self.reason = reason or text.split("; ")[0]


class PipelineError(DsccError):
    """The pipeline text cannot be turned into passes."""


class PassError(DsccError):
    """A pass cannot do its work."""


class TargetError(DsccError):
    """The target is unknown, or its tools are missing."""


class ArtifactError(DsccError):
    """The artifact cannot be written, read or trusted."""


class InputError(DsccError):
    """The inputs handed to a loaded module do not fit it."""


class TuneError(DsccError):
    """The tuner cannot go on: its database, a remote machine or a remote builder."""


class PluginError(DsccError):
    """A plug-in cannot be used."""


LONGEST = 1000


def first_line(err: BaseException) -> str:
    """The first line of what an error says; its type where it says nothing."""
    return (str(err).strip().splitlines() or [type(err).__name__])[0]


def one_line(text: str) -> str:
    """`text` without line breaks and other control characters, and cut in the middle where it is very long."""
    line = "".join(char if char.isprintable() else " " for char in " ".join(str(text).split()))
    return line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}"


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The text for a name that is not known: `unknown pass 'fuse-slu'; did you mean 'fuse-silu'?`"""
    known = sorted(known)
    import difflib  # only when something is wrong: it takes as long as loading a small model

    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known) or 'none'}"
    return f"unknown {kind} '{name}'; {hint}"
