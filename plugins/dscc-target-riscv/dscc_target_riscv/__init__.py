"""The target `riscv`: 64-bit RISC-V processors with Linux and the vector extension; `riscv:sifive-x280` by LLVM's name.
"""

from __future__ import annotations

import dscc


@dscc.hookimpl
def dscc_targets() -> list[type[dscc.Target]]:
    """The one target of this package; its module imports TVM, so it waits until somebody asks."""
    from dscc_target_riscv.target import RiscV

    return [RiscV]
