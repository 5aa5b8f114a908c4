"""Weights that a seed makes, so that artifacts of large models are carried without them.

`plant` replaces the large weights of a model by random ones of the same spread, each from a seed that is its name.
`shrink` finds them again in the compiled artifact, converted and transposed as they may be, and leaves them out;
`restore` puts them back: the artifact's own hashes say whether it is the same, byte for byte.
"""

from __future__ import annotations

import gzip
import itertools
import json
import struct
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

SMALLEST = 4096  # elements of a weight that is planted
_WEIGHTS = "weights.safetensors"
_TYPES = {"F16": np.float16, "F32": np.float32}
Seeds = dict[str, tuple[tuple[int, ...], float]]


def values(name: str, shape: tuple[int, ...], spread: float) -> np.ndarray[Any, Any]:
    """The weight of this name: float32, with `spread` for its standard deviation."""
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    return np.asarray(rng.standard_normal(shape, dtype=np.float32) * np.float32(spread), np.float32)


def plant(source: Path, target: Path) -> Seeds:
    """Write the model with its large weights replaced; gives shape and spread of each, by name."""
    import onnx

    model = onnx.load(source)
    seeds: Seeds = {}
    for weight in model.graph.initializer:
        if weight.data_type == onnx.TensorProto.FLOAT and np.prod(weight.dims) >= SMALLEST:
            spread = float(np.float32(onnx.numpy_helper.to_array(weight).std()))
            seeds[weight.name] = (tuple(weight.dims), spread)
            weight.CopyFrom(onnx.numpy_helper.from_array(values(weight.name, *seeds[weight.name]), weight.name))
    onnx.save(model, target)
    return seeds


def shrink(artifact: Path, seeds: Seeds, target: Path) -> int:
    """Write the artifact without the weights of `seeds` to `target`; gives the bytes of weights that remain."""
    whole = bytearray(artifact.read_bytes())
    with zipfile.ZipFile(artifact) as archive:
        member = archive.getinfo(_WEIGHTS)
    names, extra = struct.unpack_from("<HH", whole, member.header_offset + 26)
    start = member.header_offset + 30 + names + extra
    (size,) = struct.unpack_from("<Q", whole, start)
    header = json.loads(bytes(whole[start + 8 : start + 8 + size]))
    recipe, left = [], 0
    for tensor in (entry for name, entry in header.items() if name != "__metadata__"):
        first, last = (start + 8 + size + offset for offset in tensor["data_offsets"])
        found = _find(bytes(whole[first:last]), tensor, seeds)
        if found is None:
            left += last - first
        else:
            recipe.append([*found, tensor["dtype"], first, last])
            whole[first:last] = bytes(last - first)
    with gzip.open(target, "wb", compresslevel=5) as out:
        out.write(json.dumps({"recipe": recipe, "seeds": seeds}).encode() + b"\n" + whole)
    return left


def _find(content: bytes, tensor: dict[str, Any], seeds: Seeds) -> tuple[str, tuple[int, ...]] | None:
    """The weight that `content` is, and the order of its axes."""
    shape = tuple(tensor["shape"])
    for name, (planted, spread) in seeds.items():
        if tensor["dtype"] not in _TYPES or np.prod(planted) != np.prod(shape):
            continue
        converted = values(name, planted, spread).astype(_TYPES[tensor["dtype"]])
        for axes in itertools.permutations(range(len(planted))):
            turned = converted.transpose(axes)
            if (len(shape) != len(planted) or turned.shape == shape) and turned.tobytes() == content:
                return name, axes
    return None


def restore(shrunk: Path, artifact: Path) -> None:
    """Write the artifact as it was."""
    first, _, rest = gzip.open(shrunk).read().partition(b"\n")
    plan, whole = json.loads(first), bytearray(rest)
    with ThreadPoolExecutor() as pool:
        names = [entry[0] for entry in plan["recipe"]]
        made = pool.map(lambda name: values(name, *plan["seeds"][name]), names)
    for (_, axes, kind, start, end), weight in zip(plan["recipe"], made, strict=True):
        whole[start:end] = weight.astype(_TYPES[kind]).transpose(axes).tobytes()
    artifact.write_bytes(whole)
