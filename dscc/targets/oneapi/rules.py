"""The schedule rules of oneAPI's devices in the order in which they are asked; what none takes runs on the host."""

from __future__ import annotations

from dscc.schedule.base import Rule
from dscc.schedule.gpu.rules.elementwise import Elementwise

RULES: tuple[Rule, ...] = (Elementwise(),)
