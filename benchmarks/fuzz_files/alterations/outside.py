"""Alterations of weights in files beside the model."""

from __future__ import annotations

from onnx import TensorProto

from benchmarks.fuzz_files import fields
from benchmarks.fuzz_files.fields import Random, pick
from benchmarks.fuzz_files.file import EXTENTS, File, some

PLACES = (
    "../m.onnx", "/etc/hostname", "a.bin", "sub/b.bin", "sub/../a.bin", "link.bin", "away.bin", "hard.bin", "loop.bin",
    "sub", ".", "", "missing.bin", "a\0b", "/dev/zero", "/proc/self/mem", "pipe", "C:\\x", "x" * 300, "file://a.bin",
)  # fmt: skip


def move_outside(rng: Random, file: File) -> None:
    tensor = some(rng, [t for t in file.weights() if t.raw_data])
    content = file.files.get("a.bin", b"").ljust(64, b"\0")
    file.files["a.bin"] = content + tensor.raw_data
    for key, value in (("location", "a.bin"), ("offset", len(content)), ("length", len(tensor.raw_data))):
        tensor.external_data.add(key=key, value=str(value))
    tensor.data_location = TensorProto.EXTERNAL
    if rng.random() < 0.8:
        tensor.ClearField("raw_data")


def place(rng: Random, file: File) -> None:
    """Another location, offset or length."""
    tensor = some(rng, [t for t in file.weights() if t.external_data])
    entry = pick(rng, tensor.external_data)
    if entry.key == "location":
        entry.value = pick(rng, PLACES)
    elif rng.random() < 0.5:
        entry.value = str(pick(rng, (*EXTENTS, 10**30)))
    else:
        entry.value = pick(rng, ("", "x", "1e3", "0x10", " 4", "+4", "4.0", "٣", "-0", "0" * 400))


def places_swapped(rng: Random, file: File) -> None:
    tensors = [t for t in file.weights() if t.external_data]
    one, other = some(rng, tensors), some(rng, tensors)
    fields.change(rng, some(rng, list(one.external_data)))
    del other.external_data[:]
    other.external_data.extend(one.external_data)


def outside_bytes(rng: Random, file: File) -> None:
    name = some(rng, sorted(file.files))
    file.files[name] = fields.altered(rng, file.files[name])
