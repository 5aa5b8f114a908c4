"""Inputs for a model: read from files, or made from a seed.

Works on anything whose `get_inputs()` describes its inputs as onnxruntime's sessions do: `name`, `type`
(`tensor(float)`) and `shape` (a list of ints and, for symbolic dimensions, names).
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dscc.artifact import store
from dscc.elements import CARRIERS, numpy_dtype, onnx_name
from dscc.errors import InputError, unknown

Feeds = dict[str, np.ndarray[Any, Any]]

_PLAIN = "float32 float64 float16 bfloat16 bool int8 int16 int32 int64 uint8 uint16 uint32 uint64".split()
DTYPES = {f"tensor({onnx_name(name)})": name for name in (*_PLAIN, *CARRIERS)}

# What a symbolic dimension is when nobody says: one image or sentence, at a size that most networks take.
BATCH, IMAGE_SIDE, LENGTH = 1, 224, 64


class InputInfo(Protocol):
    """One input as `get_inputs()` lists it."""

    @property
    def name(self) -> str: ...

    @property
    def type(self) -> str: ...

    @property
    def shape(self) -> Sequence[int | str | None]: ...


def random_feeds(inputs: Iterable[InputInfo], dims: Mapping[str, int], seed: int = 0) -> Feeds:
    """Random inputs: floats from a standard normal distribution, bytes over their range, other integers 0 or 1.

    Integers are mostly indices into tables, masks or token types; 0 and 1 are valid for all of them. The mask of a
    decoder with a cache is 1: all that the cache holds is of the text. The float type that has powers of two only gets
    those from 1/8 to 8.

    Args:
        inputs: what the model takes.
        dims: sizes of symbolic dimensions; those left out are 1 for the first of an input, 224 for the last two of
            four unless their name says that they are a length, else 64. One name is one size everywhere; what is named
            as a sum (`past_sequence_length + 1`, or `total_sequence_length`) is that sum.
        seed: same seed, same inputs.

    Raises:
        InputError: `dims` names a dimension that no input has, or an input has a type that cannot be made.
    """
    inputs = list(inputs)
    symbols = {dim for info in inputs for dim in info.shape if isinstance(dim, str)}
    for name in dims:
        if name not in symbols:
            raise InputError(unknown("dimension", name, symbols))
    sizes = _sizes(inputs, dims)
    cached = any(info.name.startswith("past") for info in inputs)
    rng = np.random.default_rng(seed)
    feeds: Feeds = {}
    for info in inputs:
        rank = len(info.shape)
        shape = [
            dim if isinstance(dim, int) else sizes[dim] if dim else default_size(axis, rank)
            for axis, dim in enumerate(info.shape)
        ]
        made = _random(rng, info, tuple(shape))
        feeds[info.name] = np.ones_like(made) if cached and info.name == "attention_mask" else made
    return feeds


_SUMS = {"total_sequence_length": "past_sequence_length + sequence_length"}  # as onnxruntime-genai names it


def _sizes(inputs: Sequence[InputInfo], dims: Mapping[str, int]) -> dict[str, int]:
    """The size of every symbolic dimension."""
    sizes = dict(dims)
    sums: list[str] = []
    for info in inputs:
        for axis, dim in enumerate(info.shape):
            if not isinstance(dim, str) or dim in sizes:
                continue
            if "+" in _SUMS.get(dim, dim):
                sums.append(dim)
            sizes[dim] = LENGTH if "length" in dim and axis else default_size(axis, len(info.shape))
    for name in sums:
        parts = [part.strip() for part in _SUMS.get(name, name).split("+")]
        if all(part.isdecimal() or part in sizes for part in parts):
            sizes[name] = sum(int(part) if part.isdecimal() else sizes[part] for part in parts)
    return sizes


def default_size(axis: int, rank: int) -> int:
    if axis == 0:
        return BATCH
    return IMAGE_SIDE if rank == 4 and axis >= 2 else LENGTH


def _random(rng: np.random.Generator, info: InputInfo, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    if info.type not in DTYPES:
        raise InputError(f"input '{info.name}': cannot make random values of type '{info.type}'; give it with --input")
    name = DTYPES[info.type]
    dtype = numpy_dtype(name)
    if name == "float8_e8m0fnu":
        return np.exp2(rng.integers(-3, 4, shape)).astype(dtype)
    if name == "complex64":
        return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype)
    if "float" in name:
        return rng.standard_normal(shape).astype(dtype)
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(dtype)
    return rng.integers(0, 256 if dtype == np.uint8 else 2, shape).astype(dtype)


def read_feeds(texts: Iterable[str]) -> Feeds:
    """Inputs from files: `x=@x.npy` for one, `@inputs.npz` for several by their names.

    Raises:
        InputError: the text, the file or its contents cannot be used.
    """
    feeds: Feeds = {}
    for text in texts:
        name, at, file = text.partition("@")
        if not at or (name and not name.endswith("=")):
            raise InputError(f"input '{text}': expected NAME=@FILE.npy or @FILE.npz")
        found = _read(Path(file))
        if isinstance(found, dict) and name:
            raise InputError(f"input '{text}': '{file}' holds several arrays; write @{file} to take them by name")
        if not isinstance(found, dict) and not name:
            raise InputError(f"input '{text}': '{file}' holds one array without a name; write NAME=@{file}")
        feeds |= found if isinstance(found, dict) else {name.removesuffix("="): found}
    return feeds


def _read(path: Path) -> np.ndarray[Any, Any] | Feeds:
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.lib.npyio.NpzFile):
            with found:
                return {name: found[name] for name in found.files}
    except FileNotFoundError as err:
        raise InputError(f"input file '{path}' does not exist") from err
    except (OSError, ValueError, EOFError) as err:
        # NumPy's own text would advise to load pickles, which run what is in them.
        raise InputError(f"input file '{path}' is no .npy or .npz file of numbers; write one with numpy.save") from err
    return np.asarray(found)


def save(path: Path, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Write arrays by name into a .npz file, complete or not at all.

    Raises:
        ArtifactError: the file cannot be written.
    """
    # Strings as NumPy's own: objects would be pickled.
    arrays = {name: array.astype(str) if array.dtype == object else array for name, array in arrays.items()}
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]
    store.write(path, [content.getbuffer()])
