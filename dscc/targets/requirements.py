"""What a target needs to be installed, for `dscc targets --check`, with the command that installs what is missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dscc.errors import DsccError


@dataclass(frozen=True)
class Requirement:
    """One thing.

    Attributes:
        what: a tool, a library, a device.
        purpose: what it is needed for.
        found: where it is, or its version; empty where it is missing.
        install: the command that installs it.
        optional: there is another way without it.
    """

    what: str
    purpose: str
    found: str
    install: str
    optional: bool = False

    @staticmethod
    def of(what: str, purpose: str, install: str, find: Callable[[], str], optional: bool = False) -> Requirement:
        """A requirement that `find` gives the place of, or raises a DsccError."""
        try:
            return Requirement(what, purpose, find(), install, optional)
        except DsccError:
            return Requirement(what, purpose, "", install, optional)


def linker(machine: str = "") -> Requirement:
    """The C compiler that libraries are linked with.

    Args:
        machine: the family of processors that they are for; this machine's if empty.
    """
    from dscc.targets import toolchain

    what = f"C compiler for {machine}" if machine else "C compiler"
    return Requirement.of(what, "compiling", "pip install ziglang", lambda: " ".join(toolchain.find_linker(machine)))


def compiler() -> Requirement:
    """The C++ compiler that a device's runtime is built with on first use."""
    from dscc.runtime import sidecar

    return Requirement.of("C++ compiler", "running", "pip install ziglang", lambda: " ".join(sidecar.compiler()))
