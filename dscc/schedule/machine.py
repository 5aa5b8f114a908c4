"""The few facts about a processor from which rules compute their default tile sizes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Dot:
    """An instruction that multiplies bytes and adds sums of `depth` products to each lane of a vector of int32.

    Its lanes are a block of the result, row by row: `rows` of the left factor and `lanes / rows` columns of the right.
    The right operand holds `depth` bytes for every column; the left one `depth` bytes for every row, repeated if it has
    only one row.

    Attributes:
        intrinsic: LLVM's name; it takes the sums so far, the left and the right operand.
        left, right: the types of the bytes.
        lanes: of the result.
    """

    intrinsic: str
    left: str
    right: str
    lanes: int
    rows: int = 1
    depth: int = 4


@dataclass(frozen=True)
class Machine:
    """A CPU as the rules see it.

    Attributes:
        vector_bits: width of one vector register in bits.
        vector_registers: number of architectural vector registers.
        l1_bytes, l2_bytes: data cache sizes of one core.
        embedded_broadcast: a multiply-add may take one broadcast scalar from memory (AVX-512).
        features: LLVM feature names that rules ask for, such as `avx512vnni`.
        dot: how products of bytes are summed; None where there is no instruction for it.
    """

    vector_bits: int = 128
    vector_registers: int = 16
    l1_bytes: int = 32 * 1024
    l2_bytes: int = 512 * 1024
    embedded_broadcast: bool = False
    features: frozenset[str] = frozenset()
    dot: Dot | None = None

    @property
    def multiplies_bytes(self) -> bool:
        """Whether products of bytes, both of them with or without a sign, are worth taking out a zero point."""
        return self.dot is not None

    @property
    def makes_blocks(self) -> bool:
        """Whether the instruction for bytes makes blocks of a product, twice as fast as one that makes rows."""
        return self.dot is not None and self.dot.rows > 1

    def lanes(self, dtype_bits: int = 32) -> int:
        """Elements of `dtype_bits` bits in one vector register."""
        return self.vector_bits // dtype_bits
