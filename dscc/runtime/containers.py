"""Sequences and optionals at the border of a compiled model: Python's lists and None, and TVM's arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dscc.elements import STRING, carrier
from dscc.errors import InputError
from dscc.runtime import ffi, strings

if TYPE_CHECKING:
    from dscc.artifact.manifest import TensorSpec

Array = np.ndarray[Any, Any]
Held = Any  # an array, None for an optional that is empty, or a list of these


def convert(spec: TensorSpec, value: Any, tensor: Callable[[Any], Array]) -> Held:
    """What a caller hands over for a sequence or an optional, as arrays that fit it.

    Raises:
        InputError: it is no list where a sequence is wanted, or a tensor in it does not fit.
    """
    return _convert(spec, spec.around, value, tensor)


def _convert(spec: TensorSpec, around: Sequence[str], value: Any, tensor: Callable[[Any], Array]) -> Held:
    if not around:
        array = tensor(value)
        fits = len(array.shape) == len(spec.shape) and all(
            isinstance(want, str) or want == got for want, got in zip(spec.shape, array.shape, strict=True)
        )
        if spec.ranked and not fits:
            raise InputError(f"input '{spec.name}': expected {spec}, got a tensor of shape {array.shape}")
        return array
    if around[0] == "optional":
        return None if value is None else _convert(spec, around[1:], value, tensor)
    if not isinstance(value, list | tuple):
        raise InputError(f"input '{spec.name}': expected {spec}, as a list of arrays, got {type(value).__name__}")
    return [_convert(spec, around[1:], item, tensor) for item in value]


class ContainerPort:
    """An input: an argument of `main` that is an array of TVM, made anew for every run."""

    def __init__(self, library: ffi.Library, spec: TensorSpec, argument: ffi.Value, align: int):
        self._library = library
        self._argument = argument
        self._around = spec.around
        self._code = library.dtype(carrier(spec.dtype))
        self._strings = spec.dtype == STRING
        self._align = align
        self._make = library.function("ffi.Array")
        self._staged: list[tuple[int, int, Array]] = []  # address, bytes, and what owns them

    def bind(self, value: Held) -> None:
        """Make the argument an array of aligned copies of the tensors, or one of them."""
        self._staged.clear()
        self._ref = self._build(self._around, value)
        self._argument.kind, self._argument.bits = ffi.type_of(self._ref.handle), self._ref.handle

    def covers(self, address: int) -> bool:
        """Whether the address lies in one of the tensors."""
        return any(start <= address < start + size for start, size, _ in self._staged)

    def _build(self, around: Sequence[str], value: Held) -> ffi.Ref:
        if not around:
            return self._tensor(value)
        items = value if around[0] == "sequence" else [] if value is None else [value]
        made = self._library.invoke(self._make, *(self._build(around[1:], item) for item in items))
        assert isinstance(made, ffi.Ref)  # an array
        return made

    def _tensor(self, array: Array) -> ffi.Ref:
        if self._strings:
            array = strings.encode(array)
        buffer = np.empty(array.nbytes + self._align, np.uint8)
        first = buffer.__array_interface__["data"][0]
        start = -first % self._align
        np.copyto(buffer[start : start + array.nbytes].view(array.dtype).reshape(array.shape), array)
        self._staged.append((first + start, max(array.nbytes, 1), buffer))
        return self._library.tensor(first + start, self._code, array.shape)


def take(around: Sequence[str], handle: int, tensor: Callable[[int], Array]) -> Held:
    """The content of an array of TVM that is an output."""
    if not around:
        return tensor(handle)
    items = [take(around[1:], item, tensor) for item in ffi.items_of(handle)]
    if around[0] == "sequence":
        return items
    return items[0] if items else None


def flatten(name: str, held: Held) -> dict[str, Array]:
    """The tensors of an input or output by name: `y` for a tensor, `y[0]`, `y[1]` for those of a sequence, none for an
    optional that is empty.
    """
    if held is None:
        return {}
    if not isinstance(held, list):
        return {name: held}
    return {key: array for i, item in enumerate(held) for key, array in flatten(f"{name}[{i}]", item).items()}
