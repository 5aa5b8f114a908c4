"""AMD's kernels executed here, by the stand-in for HIP of benchmarks/hip_here."""

from __future__ import annotations

import pytest

from benchmarks import hip_here
from dscc.errors import TargetError
from dscc.runtime import ffi, hip
from dscc.targets.rocm import clang


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> hip_here.HostClang:
    """What compiles for the stand-in, which it lies beside as libamdhip64.so."""
    try:
        return hip_here.build(tmp_path_factory.mktemp("hip"))
    except TargetError as missing:
        pytest.skip(str(missing))


@pytest.fixture
def amd_here(stand_in: hip_here.HostClang, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this test kernels for AMD's devices are compiled for the processor here, and run on it."""

    def opened(library: ffi.Library, needs: object, wanted: str) -> str:
        hip._runtime()
        return str(library.text(library.function("dscc.hip.open"), str(stand_in.hip), wanted))

    monkeypatch.setattr(clang, "find", lambda: stand_in)
    monkeypatch.setattr(hip, "open_device", opened)  # whatever architecture: the process has one device
    monkeypatch.setenv("FAKE_HIP_ARCH", "gfx942")
