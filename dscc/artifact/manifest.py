"""The manifest: what an artifact says about itself. `manifest.json` is this, and the digests of the other members."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from dscc.elements import STRING

Dim = int | str

FORMAT = 1
"""The format that this version writes, and the newest that it reads."""

READABLE_FROM = "0.1.0"
"""The first version of dscc that reads FORMAT; a version that cannot read a file names it."""


class TensorSpec(NamedTuple):
    """An input or an output: a tensor, or a sequence of tensors, or one that may be absent or has a rank not known.

    Attributes:
        name: as the model spells it.
        dtype: NumPy's name, as in `float32`; `bfloat16` and the like as ml_dtypes names them. Types in the table
        `dscc.elements.CARRIERS` are passed to `main` as their bit patterns, in the type that the table says.
        shape: an int is a fixed dimension, a str a symbolic one; the same str is the same extent everywhere, except in
        a sequence, where a str is a dimension that may differ from one tensor to the next.
        around: what is around the tensor, from outside: `sequence`, `optional`; empty for a tensor.
        ranked: whether the rank of the tensors is known; if not, `shape` is empty and they may have any.
    """

    name: str
    dtype: str
    shape: tuple[Dim, ...]
    around: tuple[str, ...] = ()
    ranked: bool = True

    @property
    def plain(self) -> bool:
        """Whether it is a tensor of numbers whose rank is known."""
        return self.ranked and not self.around and self.dtype != STRING

    def __str__(self) -> str:
        tensor = f"{self.dtype}({', '.join(map(str, self.shape))})" if self.ranked else f"{self.dtype} of any shape"
        return " of ".join([*self.around, tensor])


_EMPTY: Mapping[str, Any] = MappingProxyType({})


class Manifest(NamedTuple):
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
    versions: Mapping[str, str] = _EMPTY
    plugins: Mapping[str, str] = _EMPTY
    weights: tuple[str, ...] = ()
    fallback: tuple[Mapping[str, Any], ...] = ()
    summary: Mapping[str, Any] = _EMPTY
    kernels: Mapping[str, Any] = _EMPTY
    device: Mapping[str, Any] = _EMPTY
    alignment: int = 64
    check: Mapping[str, Any] = _EMPTY

    def to_dict(self) -> dict[str, Any]:
        """As it is written in `manifest.json`."""
        return {name: _plain(value) for name, value in self._asdict().items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Manifest:
        """The manifest that `to_dict` wrote.

        Raises:
            KeyError, TypeError, ValueError: `data` is not such a manifest.
        """
        values = {name: data[name] for name in cls._fields if name not in _LATER}
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
    around, ranked = tuple(entry.get("around", ())), bool(entry.get("ranked", True))
    return TensorSpec(entry["name"], entry["dtype"], tuple(entry["shape"]), around, ranked)


def _plain(value: Any) -> Any:
    if isinstance(value, TensorSpec):
        fields = value._asdict()
        written = fields if not value.plain else {name: fields[name] for name in ("name", "dtype", "shape")}
        return {name: _plain(item) for name, item in written.items()}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value
