"""The built-in passes."""

from __future__ import annotations

from dscc.passes.base import Pass
from dscc.passes.cleanup.eliminate_common_subexpressions import EliminateCommonSubexpressions
from dscc.passes.cleanup.eliminate_dead_code import EliminateDeadCode
from dscc.passes.cleanup.fold_constants import FoldConstants
from dscc.passes.cleanup.fold_padding import FoldPadding
from dscc.passes.cleanup.simplify_arithmetic import SimplifyArithmetic
from dscc.passes.cleanup.simplify_shapes import SimplifyShapes
from dscc.passes.fusion.fold_batch_norm import FoldBatchNorm
from dscc.passes.fusion.fuse_attention import FuseAttention
from dscc.passes.fusion.fuse_gelu import FuseGelu
from dscc.passes.fusion.fuse_gelu_tanh import FuseGeluTanh
from dscc.passes.fusion.fuse_group_norm import FuseGroupNorm
from dscc.passes.fusion.fuse_layer_norm import FuseLayerNorm
from dscc.passes.fusion.fuse_rms_norm import FuseRmsNorm
from dscc.passes.fusion.fuse_silu import FuseSilu
from dscc.passes.fusion.fuse_softmax import FuseSoftmax
from dscc.passes.fusion.group_queries import GroupQueries
from dscc.passes.layout.channels_last import ChannelsLast
from dscc.passes.lower.fuse_integer_casts import FuseIntegerCasts
from dscc.passes.lower.fuse_operators import FuseOperators
from dscc.passes.lower.fuse_weight_casts import FuseWeightCasts
from dscc.passes.lower.legalize_operators import LegalizeOperators
from dscc.passes.lower.schedule_kernels import ScheduleKernels
from dscc.passes.moe.fuse_experts import FuseExperts
from dscc.passes.moe.moe_partition import MoePartition
from dscc.passes.precision.lower_precision import LowerPrecision
from dscc.passes.precision.multiply_halves import MultiplyHalves
from dscc.passes.quantize.code_products import CodeProducts
from dscc.passes.quantize.gather_stored import GatherStored
from dscc.passes.quantize.integer_products import IntegerProducts
from dscc.passes.quantize.sink_scale import SinkScale

PASSES: tuple[type[Pass], ...] = (
    FoldConstants,
    SimplifyArithmetic,
    SimplifyShapes,
    FoldPadding,
    EliminateCommonSubexpressions,
    EliminateDeadCode,
    FuseExperts,
    MoePartition,
    FuseSoftmax,
    FuseLayerNorm,
    FuseRmsNorm,
    FuseGroupNorm,
    FuseGelu,
    FuseGeluTanh,
    FuseSilu,
    FuseAttention,
    IntegerProducts,
    CodeProducts,
    GatherStored,
    SinkScale,
    FoldBatchNorm,
    ChannelsLast,
    GroupQueries,
    LowerPrecision,
    MultiplyHalves,
    FuseIntegerCasts,
    FuseWeightCasts,
    LegalizeOperators,
    FuseOperators,
    ScheduleKernels,
)
