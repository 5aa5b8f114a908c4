"""The schedule rules of CUDA's devices in the order in which they are asked; what none takes runs on the host."""

from __future__ import annotations

from dscc.schedule.base import Rule
from dscc.schedule.gpu.rules.attention import Attention
from dscc.schedule.gpu.rules.conv import Conv
from dscc.schedule.gpu.rules.direct import Direct
from dscc.schedule.gpu.rules.elementwise import Elementwise
from dscc.schedule.gpu.rules.matmul import Matmul
from dscc.schedule.gpu.rules.rows import Rowwise
from dscc.targets.cuda.attention import TensorAttention
from dscc.targets.cuda.bytes import ByteConv, ByteProduct
from dscc.targets.cuda.hopper import HopperConv, HopperProduct
from dscc.targets.cuda.tensor import TensorConv, TensorProduct

RULES: tuple[Rule, ...] = (
    TensorAttention(),
    Attention(),
    HopperProduct(),
    HopperConv(),
    TensorProduct(),
    TensorConv(),
    ByteProduct(),
    ByteConv(),
    Matmul(),
    Conv(),
    Rowwise(),
    Direct(),
    Elementwise(),
)
