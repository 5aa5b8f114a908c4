"""Weights that are kept as integers: what is done to them, and how the operator keeps them."""

from __future__ import annotations

import numpy as np
import pytest

from dscc.passes.moe.stored import Kept, Spread, Stored, kept, stacked


def weight(low: int, high: int, spans: tuple[int, ...], zeros: bool, shape: tuple[int, ...] = (3, 10, 24)) -> Stored:
    rng = np.random.default_rng(high)
    counts = [-(-extent // span) for extent, span in zip(shape, spans, strict=True)]
    codes = rng.integers(low, high + 1, shape)
    codes.reshape(-1)[:2] = low, high
    scale = Spread(rng.uniform(0.5, 1.5, counts).astype(np.float32), spans)
    return Stored(codes, scale, Spread(rng.integers(low, high + 1, counts), spans) if zeros else None)


def real(found: Kept) -> np.ndarray:
    """The weight out of the operands, as dscc/schedule/experts/mixture.py says."""
    storage, w = found.storage, found.operands["w"]
    if not storage.coded:
        return w
    shifts = np.arange(storage.per) * storage.bits
    codes = ((w[..., None] >> shifts) & (2**storage.bits - 1)).reshape(*w.shape[:-1], -1)[..., : found.depth]
    at = np.arange(found.depth) // (storage.block or found.depth)
    zeros = found.operands["z"][..., at] if "z" in found.operands else storage.zero
    return ((codes - zeros) * found.operands["s"][..., at]).astype(np.float32)


def same(got: np.ndarray, want: np.ndarray) -> None:
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=0, strict=True)


SPREADS = [(3, 10, 24), (1, 1, 24), (1, 1, 8), (3, 1, 5), (1, 4, 24)]


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("spans", SPREADS)
def test_moved_and_cut(spans: tuple[int, ...], zeros: bool) -> None:
    one = weight(-7, 7, spans, zeros)
    whole = one.real()
    same(one.permuted((2, 0, 1)).real(), whole.transpose(2, 0, 1))
    wide = one.reshaped((3, 1, 10, 24, 1))
    assert wide is not None
    same(wide.real(), whole[:, None, :, :, None])
    for axis, begin, step, count in ((1, 4, 1, 4), (1, 1, 2, 4), (2, 8, 1, 9), (2, 3, 1, 8), (0, 1, 1, 2)):
        at = np.arange(begin, begin + step * count, step)
        cut = one.taken(axis, begin, step, count)
        same(cut.real(), whole.take(at, axis))
        same(cut.permuted((1, 2, 0)).taken(1, 0, 1, 2).real(), whole.take(at, axis).transpose(1, 2, 0)[:, :2])


def test_a_shape_that_joins_axes_is_not_known_with_scales() -> None:
    assert weight(-7, 7, (1, 1, 24), False).reshaped((30, 24)) is None
    assert weight(-7, 7, (1, 1, 24), False).reshaped((3, 10, 25)) is None


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize(
    ("limits", "bits"),
    [((-2, 1), 2), ((0, 3), 2), ((-8, 7), 4), ((0, 15), 4), ((-8, 8), 8), ((-128, 127), 8), ((0, 255), 8)],
)
def test_as_few_bits_as_the_codes_need(limits: tuple[int, int], bits: int, zeros: bool) -> None:
    for spans, block in (((1, 1, 24), 0), ((1, 4, 8), 8), ((3, 10, 24), 0)):
        one = weight(*limits, spans, zeros)
        found = kept([one])
        assert (found.storage.bits, found.storage.block) == (bits, block)
        same(real(found), one.real())


def test_what_would_be_no_smaller_is_kept_as_reals() -> None:
    """A scale for every element along the depth, or integers of 16 bits."""
    for one in (weight(-127, 127, (1, 1, 1), False), weight(-127, 300, (1, 1, 24), False)):
        found = kept([one])
        assert (found.storage.bits, found.storage.coded) == (32, False)
        same(real(found), one.real())


def test_parts_of_a_layer_share_their_storage() -> None:
    """Blocks of 8 and of 12 have scales for 4; codes of 2 and of 4 bits take 4."""
    parts = [weight(-2, 1, (1, 1, 8), False), weight(-7, 7, (1, 1, 12), False)]
    found = kept(parts)
    assert (found.storage.bits, found.storage.block) == (4, 4)
    same(real(found), np.concatenate([part.real() for part in parts], axis=1))
    mixed = kept([parts[0], Stored(np.ones((3, 2, 24), np.float16))])
    assert mixed.storage.bits == 32
    same(real(mixed), np.concatenate([parts[0].real(), np.ones((3, 2, 24), np.float32)], axis=1))


def test_experts_that_are_kept_in_different_ways() -> None:
    shape = (10, 24)
    each = [
        weight(-7, 7, spans, zeros, shape) for spans, zeros in (((1, 24), False), ((10, 24), True), ((1, 8), False))
    ]
    one = stacked(each)
    assert one is not None and one.scale is not None
    same(one.real(), np.stack([each_one.real() for each_one in each]))
    reals = stacked([each[0], Stored(each[1].real())])
    assert reals is not None and reals.scale is None
    assert stacked([each[0], weight(-7, 7, (1, 8), False, (10, 16))]) is None
