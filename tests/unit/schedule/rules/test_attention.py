"""Attention on processors: the cases of attention.py, and lengths that are known."""

from __future__ import annotations

from functools import partial

import pytest
from tvm.relax import op

from dscc.schedule.rules.attention import Attention

from ..attention import *  # noqa: F403
from ..attention import attention, close, normal


@pytest.fixture
def compiled(compile_one):
    return partial(compile_one, Attention())


@pytest.fixture
def compiled_for_all(compile_any):
    return partial(compile_any, Attention())


def test_known_lengths(compiled):
    shapes = {"q": (1, 197, 2, 64), "k": (1, 197, 2, 64), "v": (1, 197, 2, 64)}
    run = compiled(shapes, lambda bb, q, k, v: op.nn.attention(q, k, v))
    q, k, v = normal(1, 197, 2, 64), normal(1, 197, 2, 64), normal(1, 197, 2, 64)
    close(run(q, k, v), attention(q, k, v))
