"""Constructs of real exports, compiled as users compile them, and compared with onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import helper, parser
from onnx.reference import ReferenceEvaluator

import dscc
from dscc.runtime import Module

SEED = 7


def compiled(text: str, **weights: Any) -> tuple[Module, onnxruntime.InferenceSession]:
    """A model in ONNX's text format, by dscc and by onnxruntime."""
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["" : 18]>\n{text}')
    for name, array in weights.items():
        model.graph.initializer.append(
            helper.make_tensor(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape, array)
        )
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return dscc.compile(model).load(), session


def agree(pair: tuple[Module, onnxruntime.InferenceSession], **shapes: tuple[int, ...]) -> None:
    """Both give the same on noise of these shapes; integers are drawn from 0 to 4."""
    ours, theirs = pair
    generator = np.random.default_rng(SEED)
    feeds = {}
    for info in theirs.get_inputs():
        noise = generator.standard_normal(shapes[info.name]).astype(np.float32)
        feeds[info.name] = noise if "float" in info.type else generator.integers(0, 5, shapes[info.name])
    for got, want in zip(ours.run(None, feeds), theirs.run(None, feeds), strict=True):
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_past_and_positions_of_a_decoder() -> None:
    pair = compiled(
        """
        decoder (int64[batch, sequence] ids, float[batch, 2, past, 8] past_key)
            => (float[batch, 2, total, 8] key, float[batch, sequence, 8] y)
        {
            past_shape = Shape <start = 2, end = 3> (past_key)
            length = Shape <start = 1, end = 2> (ids)
            zero = Constant <value_int = 0> ()
            one = Constant <value_int = 1> ()
            count = Squeeze (length)
            before = Squeeze (past_shape)
            here = Range (zero, count, one)
            places = Add (here, before)
            words = Gather (table, ids)
            where = Gather (table, places)
            y = Add (words, where)
            each = Concat <axis = 2> (y, y)
            split = Reshape (each, heads_shape)
            new = Transpose <perm = [0, 2, 1, 3]> (split)
            key = Concat <axis = -2> (past_key, new)
        }
        """,
        table=np.random.default_rng(0).standard_normal((64, 8)).astype(np.float32),
        heads_shape=np.array([0, 0, 2, 8]),
    )
    for batch, sequence, past in ((1, 5, 0), (2, 1, 7), (3, 4, 2)):
        agree(pair, ids=(batch, sequence), past_key=(batch, 2, past, 8))


def test_only_what_is_joined_may_be_empty() -> None:
    ours, _ = compiled(
        """
        cut (float[batch, past, 4] x, float[batch, 3, 4] new) => (float[batch, n, 4] y)
        { y = Concat <axis = 1> (x, new) }
        """
    )
    assert ours.manifest.summary["may_be_empty"] == ["past"]
    assert ours(np.ones((2, 0, 4), np.float32), np.ones((2, 3, 4), np.float32))[0].shape == (2, 3, 4)
    assert ours(np.ones((0, 2, 4), np.float32), np.ones((0, 3, 4), np.float32))[0].shape == (0, 5, 4)


def test_an_open_dimension_of_a_division_by_symbols() -> None:
    pair = compiled(
        """
        regroup (float[a, b] x, float[n] like) => (float[n, m] y, float[m] z)
        {
            size = Shape (like)
            open = Constant <value_ints = [-1]> ()
            shape = Concat <axis = 0> (open, size)
            rows = Reshape (x, shape)
            y = Transpose <perm = [1, 0]> (rows)
            z = ReduceSum <keepdims = 0> (rows, last)
        }
        """,
        last=np.array([1]),
    )
    agree(pair, x=(6, 8), like=(4,))
    agree(pair, x=(40, 20), like=(25,))
    agree(pair, x=(1, 1), like=(1,))
    with pytest.raises(dscc.DsccError):
        pair[0](np.ones((3, 5), np.float32), np.ones(4, np.float32))


def test_heads_times_batch() -> None:
    pair = compiled(
        """
        heads (float[batch, 4, past, 8] x, float[batch, 4, new, 8] y) => (float[m, 8, total] z)
        {
            all = Concat <axis = 2> (x, y)
            shape = Shape (all)
            two = Constant <value_ints = [2, 3]> ()
            tail = Gather (shape, two)
            open = Constant <value_ints = [-1]> ()
            wanted = Concat <axis = 0> (open, tail)
            rows = Reshape (all, wanted)
            z = Transpose <perm = [0, 2, 1]> (rows)
        }
        """
    )
    for batch, past, new in ((1, 0, 3), (2, 17, 1), (3, 5, 20)):
        agree(pair, x=(batch, 4, past, 8), y=(batch, 4, new, 8))


def test_buckets_of_relative_positions() -> None:
    pair = compiled(
        """
        buckets (float[n] x) => (int64[n, n] y)
        {
            zero = Constant <value_int = 0> ()
            one = Constant <value_int = 1> ()
            shape = Shape (x)
            n = Squeeze (shape)
            places = Range (zero, n, one)
            column = Unsqueeze (places, last)
            near = Sub (column, places)
            eight = Constant <value_int = 8> ()
            minus = Constant <value_int = -8> ()
            small = Less (near, eight)
            large = Greater (near, minus)
            inside = And (small, large)
            size = Abs (near)
            bounded = Where (inside, eight, size)
            real = Cast <to = 1> (bounded)
            scale = Constant <value_float = 0.125> ()
            scaled = Mul (real, scale)
            log = Log (scaled)
            up = Ceil (log)
            sign = Cast <to = 1> (near)
            signed = Mul (up, sign)
            limited = LessOrEqual (bounded, eight)
            z = Where (limited, sign, signed)
            y = Cast <to = 7> (z)
        }
        """,
        last=np.array([1]),
    )
    for n in (3, 16, 21):
        agree(pair, x=(n,))


@pytest.mark.parametrize(
    ("groups", "mask", "attributes"), [(2, "", ""), (8, ", float[b, 1, s, t] m", ""), (8, "", "<is_causal = 1>")]
)
def test_attention_of_the_standard(groups: int, mask: str, attributes: str) -> None:
    """Its function body keeps rows that are masked as a whole at 0; lengths are open."""
    inputs = f"float[b, 8, s, 16] q, float[b, {groups}, t, 16] k, float[b, {groups}, t, 16] v{mask}"
    model = parser.parse_model(
        f"""<ir_version: 10, opset_import: ["": 23]> f ({inputs}) => (float[b, 8, s, 16] y) {{
            y = Attention{attributes}(q, k, v{", m" if mask else ""}) }}"""
    )
    artifact = dscc.compile(model, jobs=1)
    assert artifact.manifest.summary["fused"]["fuse-attention"] == 1
    module, generator = artifact.load(1), np.random.default_rng(SEED)
    for queries, keys in ((1, 1), (1, 70), (5, 5), (33, 40)):
        shapes = {"q": (2, 8, queries, 16), "k": (2, groups, keys, 16), "v": (2, groups, keys, 16)}
        feeds = {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
        if mask:
            masked = generator.random((2, 1, queries, keys)) < 0.4
            masked[0, :, -1] = True
            feeds["m"] = np.where(masked, -np.inf, 0).astype(np.float32)
        with np.errstate(all="ignore"):
            (want,) = ReferenceEvaluator(model).run(None, feeds)
        np.testing.assert_allclose(module.run(None, feeds)[0], want, rtol=1e-5, atol=1e-5)
