"""Attention on a device: the cases of attention.py, and heads that share keys and values."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from tvm.relax import op

from dscc.schedule.gpu.rules.attention import Attention

from ..attention import *  # noqa: F403
from ..attention import attention, close, normal


@pytest.fixture
def compiled(on_device):
    return partial(on_device, Attention())


@pytest.fixture
def compiled_for_all(compiled):
    return compiled


def test_groups_of_heads(compiled):
    run = compiled(
        {"q": (1, "s", 4, 16), "k": (1, "s", 2, 16), "v": (1, "s", 2, 16)},
        lambda bb, q, k, v: op.nn.attention(q, k, v),
    )
    q, k, v = normal(1, 21, 4, 16), normal(1, 21, 2, 16), normal(1, 21, 2, 16)
    close(run(q, k, v), attention(q, np.repeat(k, 2, 2), np.repeat(v, 2, 2)))
