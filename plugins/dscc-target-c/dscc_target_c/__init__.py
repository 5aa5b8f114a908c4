"""The target `c`: kernels as C source that a person can read, compiled by the system's C compiler.

Nothing is vectorised or run in parallel here, that is left to the compiler, so it is slow; but it goes wherever there
is a C compiler, and `dscc compile --target c --emit source` shows what a kernel does.
"""

from __future__ import annotations

import dscc


@dscc.hookimpl
def dscc_targets() -> list[type[dscc.Target]]:
    """The one target of this package; its module imports TVM, so it waits until somebody asks."""
    from dscc_target_c.target import C

    return [C]
