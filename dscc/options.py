"""What a compilation was asked for; the command line's flags are made from these fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

Dim = int | str


@dataclass(frozen=True)
class CompileOptions:
    """Options of `dscc.compile`, resolved once at the door.

    Attributes:
        target: `NAME[:ARCH]`, as in `x86:znver3`; None means this machine.
        opt_level: preset pipeline, 0 to 3.
        passes: pipeline text that replaces the preset's graph passes, as in `fold-batch-norm,fuse-gelu`.
        input_shapes: input name to dimensions; an int fixes a dimension, a str names a symbolic one.
        dump: folder that receives the module after every pass, or None.
        small: no weight takes more bytes than in the model: leaves out Winograd's convolutions.
        fallback: whether nodes that dscc does not compile may run on another engine; else they are an error.
        db: tuning database whose choices are used, as `dscc tune` writes it; None means the rules' defaults.
        precision: `fp32`; or `fp16`, `bf16` or `tf32`, in which targets with tensor cores then compute products.
        jobs: processor cores that may be used to compile; 0 means all.
    """

    target: str | None = field(default=None, metadata={"help": "NAME[:ARCH]; this machine when left out"})
    opt_level: int = field(default=2, metadata={"help": "0 (none) to 3 (everything)"})
    passes: str | None = field(default=None, metadata={"help": "pipeline text instead of the preset's graph passes"})
    input_shapes: Mapping[str, tuple[Dim, ...]] = field(default_factory=lambda: MappingProxyType({}))
    dump: Path | None = field(default=None, metadata={"help": "folder for the module after every pass"})
    small: bool = field(default=False, metadata={"help": "store no weight in a larger form, as Winograd's is"})
    fallback: bool = field(
        default=True, metadata={"help": "run what dscc does not compile on another engine, or refuse it"}
    )
    db: Path | None = field(default=None, metadata={"help": "database of 'dscc tune'"})
    precision: str = field(
        default="fp32",
        metadata={
            "help": "products in halves or tf32, on targets with tensor cores; softmax and norms stay in float32",
            "choices": ("fp32", "fp16", "bf16", "tf32"),
        },
    )
    jobs: int = field(default=0, metadata={"help": "cores used to compile; 0 means all"})
