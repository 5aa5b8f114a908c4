"""Attention on processors: the cases of attention.py, and lengths that are known."""

from __future__ import annotations

from functools import partial

import onnx.parser
import pytest
from tvm.relax import op

import dscc
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


STORED = """<ir_version: 10, opset_import: ["": 20]>
f (float[b, s, 4, 16] q, float[b, 4, t, 16] k, float[b, 4, t, 32] v) => (float[b, s, 4, 32] y) <float c = {0.25}> {
    queries = Transpose<perm = [0, 2, 1, 3]>(q) keys = Transpose<perm = [0, 1, 3, 2]>(k)
    scores = MatMul(queries, keys) scaled = Mul(scores, c) weights = Softmax(scaled)
    mixed = MatMul(weights, v) y = Transpose<perm = [0, 2, 1, 3]>(mixed) }"""


def test_keys_and_values_are_read_as_they_are_stored():
    """One kernel, and no copy of the cache."""
    artifact = dscc.compile(onnx.parser.parse_model(STORED), jobs=1)
    assert list(artifact.manifest.kernels["functions"]) == ["attention"]
    module = artifact.load(1)
    for queries, keys in ((1, 1), (1, 100), (3, 17), (20, 20), (70, 130)):
        q, k, v = normal(2, queries, 4, 16), normal(2, 4, keys, 16), normal(2, 4, keys, 32)
        close(module(q, k, v)[0], attention(q, k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)))
