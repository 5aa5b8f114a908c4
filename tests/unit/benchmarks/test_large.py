"""The memory that compiling takes, by a model of a hundred megabytes; `make large` does the same with gigabytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.large import RATIO, Chain

SPARE_BYTES = 64 << 20  # what differs between two runs of the same: the allocator, threads


@pytest.mark.slow
def test_memory_grows_by_less_than_the_weights_and_a_half(tmp_path: Path) -> None:
    """What is not weights is taken out of the comparison by a small model of the same form."""
    small = Chain(tmp_path / "small", count=4, size=256)
    large = Chain(tmp_path / "large", count=4, size=3072)
    inline = Chain(tmp_path / "inline", count=4, size=3072, inline=True)
    peaks = {}
    for chain in (small, large, inline):
        chain.write()
        peaks[chain] = chain.compile()
    for chain in (large, inline):
        resident = peaks[chain].resident_bytes - peaks[small].resident_bytes
        anonymous = peaks[chain].anonymous_bytes - peaks[small].anonymous_bytes
        assert resident <= RATIO * chain.weight_bytes + SPARE_BYTES, f"{chain}: {peaks}"
        # Only one weight at a time is there as memory that the system cannot take back: as it is packed.
        assert anonymous <= 3 * chain.weight_bytes // chain.count + SPARE_BYTES, f"{chain}: {peaks}"
    x = np.random.default_rng(0).standard_normal((5, 3072)).astype(np.float32)
    assert np.abs(inline.run(x)[1] - inline.expected(x)).max() < 1e-4
