"""AMD's kernels executed here, by the stand-in for HIP of benchmarks/hip_here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks import hip_here
from dscc.errors import TargetError


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> hip_here.HostClang:
    """What compiles for the stand-in, which it lies beside as libamdhip64.so."""
    try:
        return hip_here.build(tmp_path_factory.mktemp("hip"))
    except TargetError as missing:
        pytest.skip(str(missing))


@pytest.fixture
def amd_here(stand_in: hip_here.HostClang) -> Iterator[None]:
    """In this test kernels for AMD's devices are compiled for the processor here, and run on it."""
    with hip_here.standing_in(stand_in):
        yield
