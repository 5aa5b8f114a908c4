"""What is known of processors by name, and of this machine."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator

import pytest

from dscc import targets
from dscc.artifact import host
from dscc.errors import TargetError
from dscc.targets.arm.target import Arm
from dscc.targets.cpu import processor
from dscc.targets.cpu.target import CpuTarget
from dscc.targets.x86.target import FAMILY, X86


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., CpuTarget]]:
    """The target for a machine on which LLVM sees a processor of that name, and Linux shows these flags."""

    def make(cls: type[CpuTarget], name: str, *flags: str) -> CpuTarget:
        monkeypatch.setattr(processor, "_kernel_flags", lambda: frozenset(flags))
        monkeypatch.setattr(processor, "_system_name", lambda: name)
        processor.host.cache_clear()
        return cls(processor.host(cls.family))

    yield make
    processor.host.cache_clear()


@pytest.mark.parametrize(
    ("arch", "bits", "registers"),
    [("x86-64-v2", 128, 16), ("x86-64-v3", 256, 16), ("znver3", 256, 16), ("x86-64-v4", 512, 32), ("znver4", 512, 32)],
)
def test_vectors_by_architecture(arch: str, bits: int, registers: int) -> None:
    machine = X86.resolve(arch).machine
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


def test_hidden_instruction_sets_are_not_used(here: Callable[..., X86]) -> None:
    shown = [kernel for llvm, kernel in FAMILY.instruction_sets.items() if not llvm.startswith("avx512")]
    target = here(X86, "znver4", *shown)
    assert target.machine.vector_bits == 256
    assert "avx512f" in target.processor.masked
    assert "-avx512f" in list(target.tvm_target.attrs["mattr"])


def test_a_machine_that_shows_nothing_gets_the_baseline(here: Callable[..., X86]) -> None:
    assert here(X86, "znver4").arch == "x86-64-v2"


def test_a_processor_that_llvm_does_not_know_uses_what_it_shows(here: Callable[..., Arm]) -> None:
    target = here(Arm, "generic", "fp", "asimd", "asimddp", "i8mm", "pauth")
    assert target.arch == "generic"
    assert target.features == ("asimd", "asimddp", "fp", "i8mm")
    assert list(target.tvm_target.attrs["mattr"]) == ["+dotprod", "+i8mm"]


def test_on_an_arm_machine_no_target_means_arm(monkeypatch: pytest.MonkeyPatch, here: Callable[..., Arm]) -> None:
    here(Arm, "neoverse-n1", *Arm.resolve("neoverse-n1").features)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    target = targets.resolve(None)
    assert str(target) == "arm:neoverse-n1"
    assert target.features == Arm.resolve("neoverse-n1").features
    assert "mattr" not in target.tvm_target.attrs


@pytest.mark.parametrize(
    ("arch", "has", "lacks"),
    [
        ("cortex-a53", "asimd", "asimddp"),
        ("cortex-a72", "crc32", "asimddp"),
        ("cortex-a76", "asimddp", "i8mm"),
        ("neoverse-n1", "asimdhp", "i8mm"),
        ("neoverse-v1", "i8mm", "sve2"),
        ("neoverse-v2", "sve2", "sm4"),
        ("apple-m1", "asimddp", "i8mm"),
        ("a64fx", "sve", "asimddp"),
    ],
)
def test_what_arm_processors_have(arch: str, has: str, lacks: str) -> None:
    target = Arm.resolve(arch)
    assert str(target) == f"arm:{arch}"
    assert has in target.features and lacks not in target.features
    assert (target.machine.lanes(32), target.machine.vector_registers) == (4, 32)


def test_an_unknown_arm_processor_names_the_nearest() -> None:
    with pytest.raises(TargetError, match="unknown architecture 'arm:cortex-a27'; did you mean 'arm:cortex-a7"):
        Arm.resolve("cortex-a27")


def test_processors_are_named_as_linux_names_them() -> None:
    arm = "processor\t: 0\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n\nCPU part\t: 0xd05\n"
    assert host._named(arm) == "ARM implementer 0x41, part 0xd0c"
    assert host._named("vendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC 9654\n") == "AMD EPYC 9654"
    assert host._named("") == ""
