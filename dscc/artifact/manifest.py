"""The manifest: what an artifact says about itself. `manifest.json` is this, and the digests of the other members."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any

Dim = int | str

FORMAT = 1
"""The format that this version writes, and the newest that it reads."""

READABLE_FROM = "0.1.0"
"""The first version of dscc that reads FORMAT; a version that cannot read a file names it."""


@dataclass(frozen=True)
class TensorSpec:
    """An input or an output.

    Attributes:
        name: as the model spells it.
        dtype: NumPy's name, as in `float32`; `bfloat16` and the like as ml_dtypes names them. Types in the table
        `dscc.elements.CARRIERS` are passed to `main` as their bit patterns, in the type that the table says.
        shape: an int is a fixed dimension, a str a symbolic one; the same str is the same extent everywhere.
    """

    name: str
    dtype: str
    shape: tuple[Dim, ...]

    def __str__(self) -> str:
        return f"{self.dtype}({', '.join(map(str, self.shape))})"


@dataclass(frozen=True)
class ContainerSpec(TensorSpec):
    """An input or output that is a sequence of tensors, or may be absent, or is a tensor of a rank that is not known.

    Attributes:
        shape: of each tensor; a str is a dimension that may differ from one to the next.
        around: what is around the tensor, from outside: `sequence`, `optional`; empty for a tensor.
        ranked: whether the rank of the tensors is known; if not, `shape` is empty and they may have any.
    """

    around: tuple[str, ...] = ()
    ranked: bool = True

    def __str__(self) -> str:
        tensor = super().__str__() if self.ranked else f"{self.dtype} of any shape"
        return " of ".join([*self.around, tensor])


def _empty() -> Mapping[str, Any]:
    return MappingProxyType({})


@dataclass(frozen=True)
class Manifest:
    """What was compiled, from what, for what.

    Attributes:
        inputs, outputs: in the order of the parameters and results of the library's `main`.
        target: `NAME:ARCH`, as the target prints itself.
        machine: the processor family that the library was compiled for, as `platform.machine()` names it.
        cpu_features: flags of Linux's /proc/cpuinfo that the library needs, as in `avx512_vnni`; checked at load.
        pipeline: the text of the pipeline that was run.
        versions: of dscc, tvm and the like, by package name.
        plugins: version by name, of the plug-ins whose passes, target or front end were used.
        weights: names of the weights, in the order in which `main` takes them, after the inputs.
        fallback: what runs on another engine, in the order of the members `fallback/N.onnx`; see dscc/fallback.py.
        summary: what the compile wants to report: kernels, fused, weight_bytes, fallback, and so on.
        kernels: what is known of every kernel, for `dscc profile`: see dscc/record.py.
        device: what runs the kernels, if that is not the processor; dscc/runtime/device.py reads it.
        alignment: bytes that the address of an input's data has to be a multiple of; others are copied.
        check: seed, shapes and digests of outputs, for `dscc verify`; empty when there are none.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    target: str
    machine: str
    cpu_features: tuple[str, ...] = ()
    pipeline: str = ""
    versions: Mapping[str, str] = field(default_factory=_empty)
    plugins: Mapping[str, str] = field(default_factory=_empty)
    weights: tuple[str, ...] = ()
    fallback: tuple[Mapping[str, Any], ...] = ()
    summary: Mapping[str, Any] = field(default_factory=_empty)
    kernels: Mapping[str, Any] = field(default_factory=_empty)
    device: Mapping[str, Any] = field(default_factory=_empty)
    alignment: int = 64
    check: Mapping[str, Any] = field(default_factory=_empty)

    def to_dict(self) -> dict[str, Any]:
        """As it is written in `manifest.json`."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Manifest:
        """The manifest that `to_dict` wrote.

        Raises:
            KeyError, TypeError, ValueError: `data` is not such a manifest.
        """
        values = {f.name: data[f.name] for f in fields(cls) if f.name not in _LATER}
        values |= {name: data.get(name, default) for name, default in _LATER.items()}
        for name in ("inputs", "outputs"):
            values[name] = tuple(_spec(entry) for entry in values[name])
        for name in ("cpu_features", "weights", "fallback"):
            values[name] = tuple(values[name])
        return cls(**values)


_LATER: Mapping[str, Any] = {"fallback": (), "device": {}, "alignment": 64}
"""Fields that the first artifacts do not have, and what they mean."""


def encode(manifest: Manifest, members: Mapping[str, Mapping[str, Any]]) -> bytes:
    """The content of `manifest.json`: the format comes first, since a reader of any version looks for it."""
    record = {"format": FORMAT, "readable_from": READABLE_FROM, **manifest.to_dict(), "members": members}
    return (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode()


def _spec(entry: Mapping[str, Any]) -> TensorSpec:
    tensor = entry["name"], entry["dtype"], tuple(entry["shape"])
    return (
        ContainerSpec(*tensor, tuple(entry["around"]), bool(entry["ranked"]))
        if "around" in entry
        else TensorSpec(*tensor)
    )


def _plain(value: Any) -> Any:
    if isinstance(value, ContainerSpec):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, TensorSpec):
        return {"name": value.name, "dtype": value.dtype, "shape": list(value.shape)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value
