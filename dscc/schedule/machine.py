"""The few facts about a processor from which rules compute their default tile sizes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """A CPU as the rules see it.

    Attributes:
        vector_bits: width of one vector register in bits.
        vector_registers: number of architectural vector registers.
        l1_bytes, l2_bytes: data cache sizes of one core.
        embedded_broadcast: a multiply-add may take one broadcast scalar from memory (AVX-512).
        features: LLVM feature names that rules ask for, such as `avx512vnni`.
    """

    vector_bits: int = 128
    vector_registers: int = 16
    l1_bytes: int = 32 * 1024
    l2_bytes: int = 512 * 1024
    embedded_broadcast: bool = False
    features: frozenset[str] = frozenset()

    def lanes(self, dtype_bits: int = 32) -> int:
        """Elements of `dtype_bits` bits in one vector register."""
        return self.vector_bits // dtype_bits
