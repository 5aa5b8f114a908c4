"""The built-in passes."""

from __future__ import annotations

from dscc.passes.base import Pass
from dscc.passes.fusion.fold_batch_norm import FoldBatchNorm
from dscc.passes.fusion.fuse_silu import FuseSilu
from dscc.passes.lower.fuse_operators import FuseOperators
from dscc.passes.lower.legalize_operators import LegalizeOperators
from dscc.passes.lower.schedule_kernels import ScheduleKernels

PASSES: tuple[type[Pass], ...] = (
    FoldBatchNorm,
    FuseSilu,
    LegalizeOperators,
    FuseOperators,
    ScheduleKernels,
)
