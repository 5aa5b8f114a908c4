"""The schedule rules of every CPU in the order in which they are asked; the last one takes everything."""

from __future__ import annotations

from dscc.schedule.base import Rule
from dscc.schedule.rules.attention import Attention
from dscc.schedule.rules.conv import Conv
from dscc.schedule.rules.conv_bytes import ConvBytes
from dscc.schedule.rules.conv_transpose import ConvTranspose
from dscc.schedule.rules.conv_words import ConvWords
from dscc.schedule.rules.depthwise import Depthwise
from dscc.schedule.rules.experts import Experts
from dscc.schedule.rules.fallback import Fallback
from dscc.schedule.rules.matmul import Matmul
from dscc.schedule.rules.matmul_bytes import MatmulBytes
from dscc.schedule.rules.matmul_codes import MatmulCodes
from dscc.schedule.rules.matmul_words import MatmulWords
from dscc.schedule.rules.narrow import Narrow
from dscc.schedule.rules.pool import Pool
from dscc.schedule.rules.recurrent import Recurrent
from dscc.schedule.rules.rows import Rowwise
from dscc.schedule.rules.winograd import Winograd

RULES: tuple[Rule, ...] = (
    Attention(),
    Recurrent(),
    Experts(),
    Narrow(),
    MatmulCodes(),
    Matmul(),
    MatmulWords(),
    MatmulBytes(),
    Winograd(),
    Conv(),
    ConvWords(),
    ConvBytes(),
    Depthwise(),
    Pool(),
    ConvTranspose(),
    Rowwise(),
    Fallback(),
)
