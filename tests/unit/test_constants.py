"""Arrays as constants and back."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from dscc import constants, scratch


def address(array: np.ndarray) -> int:
    found: int = array.__array_interface__["data"][0]
    return found


@pytest.mark.parametrize("dtype", "float32 float64 int64 bool bfloat16 float16 uint8 float8_e4m3fn".split())
@pytest.mark.parametrize("size", [0, 7, 2**21])
def test_what_goes_in_comes_out(dtype: str, size: int) -> None:
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    data = (np.arange(size) % 3).astype(kind)
    constant = constants.constant(data)
    assert str(constant.value.dtype) == dtype
    got = constants.contents(constant.value)
    assert got.dtype == kind and np.array_equal(got, data)
    assert (address(got) == address(data)) == (data.nbytes >= scratch.LEAST_BYTES)


def test_scalars_keep_their_rank() -> None:
    assert constants.contents(constants.constant(np.array(3, np.int64)).value).shape == ()


@pytest.mark.parametrize("offset", [1, 4, 20])
def test_content_that_is_not_aligned(offset: int) -> None:
    data = np.zeros(2**22 + offset, np.uint8)[offset:].view(np.float32)
    assert address(constants.contents(constants.constant(data).value)) == address(data)


def test_what_is_not_contiguous_or_read_only_is_copied() -> None:
    data = np.arange(2**20, dtype=np.float32).reshape(1024, 1024)
    data.flags.writeable = False
    for array in (data, data.T):
        assert np.array_equal(constants.contents(constants.constant(array).value), array)
