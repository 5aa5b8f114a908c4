"""What is known of ARM's processors besides what LLVM says of them."""

from __future__ import annotations

from dataclasses import dataclass

from dscc.targets.cpu.processor import Family

FAMILY = Family(
    machine="aarch64",
    baseline="generic",
    needs=frozenset({"neon"}),
    instruction_sets={
        "fp-armv8": "fp", "neon": "asimd", "crc": "crc32", "lse": "atomics", "rdm": "asimdrdm", "fullfp16": "asimdhp",
        "fp16fml": "asimdfhm", "dotprod": "asimddp", "i8mm": "i8mm", "bf16": "bf16", "complxnum": "fcma",
        "sve": "sve", "sve2": "sve2", "cssc": "cssc", "mops": "mops", "sha3": "sha3",
        "faminmax": "faminmax", "lut": "lut",
    },
    # LLVM's list of processors leaves out those that are another one under the name of a product.
    aliases={"apple-m1": "apple-a14", "apple-m2": "apple-a15", "apple-m3": "apple-a16"},
)  # fmt: skip


@dataclass(frozen=True)
class Core:
    """Data caches, from the vendors' manuals: an L2 cache that cores share counts in parts.

    Where a manual leaves the size to who builds the chip, it is that of common ones.
    """

    l1_kbytes: int = 32
    l2_kbytes: int = 512


CORES = {
    "cortex-a53": Core(32, 128),  # 512 KB for four cores
    "cortex-a55": Core(32, 128),
    "cortex-a57": Core(32, 512),  # 2 MB for four cores
    "cortex-a72": Core(32, 256),  # 1 MB for four cores (BCM2711)
    "cortex-a76": Core(64, 512),
    "cortex-a77": Core(64, 512),
    "cortex-a78": Core(64, 512),
    "cortex-a710": Core(64, 512),
    "cortex-x1": Core(64, 1024),
    "cortex-x2": Core(64, 1024),
    "cortex-x3": Core(64, 1024),
    "neoverse-n1": Core(64, 1024),
    "neoverse-n2": Core(64, 1024),
    "neoverse-v1": Core(64, 1024),
    "neoverse-v2": Core(64, 2048),
    "grace": Core(64, 1024),
    "ampere1": Core(64, 2048),
    "apple-a14": Core(128, 3072),  # 12 MB for four fast cores
    "apple-a15": Core(128, 4096),
    "apple-a16": Core(128, 4096),
    "a64fx": Core(64, 512),  # 8 MB for twelve cores, and the operating system's
}
