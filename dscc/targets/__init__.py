"""The targets that dscc brings, and how `NAME[:ARCH]` becomes one."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from dscc.errors import TargetError, unknown
from dscc.hookspecs import hookimpl

if TYPE_CHECKING:
    from dscc.targets.base import Target


@hookimpl
def dscc_targets() -> list[type[Target]]:
    """The built-in targets."""
    from dscc.targets.arm.target import Arm
    from dscc.targets.cuda.target import Cuda
    from dscc.targets.oneapi.target import OneAPI
    from dscc.targets.rocm.target import Rocm
    from dscc.targets.x86.target import X86

    return [Arm, Cuda, OneAPI, Rocm, X86]


def resolve(text: str | None) -> Target:
    """The target that `NAME[:ARCH]` names; None means this machine.

    Raises:
        TargetError: the name or the architecture is unknown, or no target fits this machine.
    """
    from dscc.plugins import registry

    known = registry().targets
    if text is None:
        for cls in known.values():
            if cls.is_host():
                return cls.resolve(None)
        raise TargetError(f"no target for this machine ('{platform.machine()}'); name one: {', '.join(known)}")
    name, _, arch = text.partition(":")
    if name not in known:
        raise TargetError(unknown("target", name, known))
    return known[name].resolve(arch or None)
