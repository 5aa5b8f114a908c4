"""What is known of processors by name, and of this machine."""

from __future__ import annotations

import pytest

from dscc.errors import TargetError
from dscc.targets.x86 import cpu
from dscc.targets.x86.target import X86


@pytest.mark.parametrize(
    ("arch", "bits", "registers"),
    [("x86-64-v2", 128, 16), ("x86-64-v3", 256, 16), ("znver3", 256, 16), ("x86-64-v4", 512, 32), ("znver4", 512, 32)],
)
def test_vectors_by_architecture(arch: str, bits: int, registers: int) -> None:
    machine = cpu.named(arch).machine
    assert (machine.vector_bits, machine.vector_registers) == (bits, registers)
    assert machine.lanes(32) == bits // 32


def test_unknown_architecture_names_the_nearest() -> None:
    with pytest.raises(TargetError, match="unknown architecture 'x86:znver33'; did you mean 'x86:znver3'"):
        X86.resolve("znver33")


def test_a_32_bit_processor_is_unknown() -> None:
    with pytest.raises(TargetError, match="unknown architecture 'x86:pentium3'"):
        X86.resolve("pentium3")


def test_features_are_named_as_the_kernel_names_them() -> None:
    features = X86.resolve("znver4").features
    assert {"avx2", "fma", "avx512f", "avx512_vnni", "sse4_2"} <= set(features)
    assert list(features) == sorted(features)


def test_hidden_instruction_sets_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = frozenset(kernel for llvm, kernel in cpu.INSTRUCTION_SETS.items() if not llvm.startswith("avx512"))
    monkeypatch.setattr(cpu, "_kernel_flags", lambda: shown)
    monkeypatch.setattr(cpu, "_system_name", lambda: "znver4")
    cpu.host.cache_clear()
    try:
        here = cpu.host()
        assert here.machine.vector_bits == 256
        assert "avx512f" in here.masked
        assert "-avx512f" in list(X86(here).tvm_target.attrs["mattr"])
    finally:
        cpu.host.cache_clear()


def test_a_machine_that_shows_nothing_gets_the_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_kernel_flags", frozenset)
    cpu.host.cache_clear()
    try:
        assert cpu.host().name == cpu.BASELINE
    finally:
        cpu.host.cache_clear()
