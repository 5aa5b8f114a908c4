"""From what a caller hands over to arrays that fit the model, or one line that says why not."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from dscc.artifact.manifest import TensorSpec
from dscc.elements import STRING, numpy_dtype
from dscc.errors import InputError, first_line, unknown
from dscc.runtime import containers

Array = np.ndarray[Any, Any]


class InputSpecs:
    """The inputs of a model, and the checks that arrays for them must pass.

    Args:
        specs: the inputs.
        may_be_empty: names of the dimensions that may be 0.
    """

    def __init__(self, specs: Sequence[TensorSpec], may_be_empty: Iterable[str] = ()):
        self._specs = tuple(specs)
        self._may_be_empty = frozenset(may_be_empty)
        self._dtypes = tuple(numpy_dtype(spec.dtype) for spec in specs)
        self._plain = tuple(spec.plain for spec in specs)
        self.plain = all(self._plain)
        self.names = tuple(spec.name for spec in specs)

    def bind(self, positional: Sequence[Any], named: Mapping[str, Any]) -> list[Array]:
        """Arrays in the order of the inputs, with the right element types; their shapes are not looked at.

        Raises:
            InputError: an input is missing, unknown, given twice, or of another type.
        """
        names = self.names
        if len(positional) > len(names):
            raise InputError(f"expected {len(names)} inputs ({', '.join(names)}), got {len(positional)}")
        values = list(positional)
        try:
            values += [named[name] for name in names[len(values) :]]
        except KeyError as err:
            spec = self._specs[names.index(err.args[0])]
            raise InputError(f"input '{spec.name}' is missing; expected {spec}") from None
        if len(positional) + len(named) != len(names):
            extra = next(name for name in named if name not in names[len(positional) :])
            if extra in names:
                raise InputError(f"input '{extra}' is given twice, by position and by name")
            raise InputError(unknown("input", extra, names))
        return [
            value if type(value) is np.ndarray and value.dtype == dtype and plain else _convert(spec, dtype, value)
            for spec, dtype, value, plain in zip(self._specs, self._dtypes, values, self._plain, strict=True)
        ]

    def check(self, shapes: Sequence[tuple[int, ...]], may_be_none: Collection[str] = ()) -> dict[str, int]:
        """Compare shapes with what the model takes.

        Args:
            may_be_none: names of more dimensions that may be 0.

        Returns:
            The sizes of dimensions by name.

        Raises:
            InputError: a rank or a dimension does not fit, or two dimensions of one name differ.
        """
        sizes: dict[str, tuple[int, str]] = {}
        for spec, shape in zip(self._specs, shapes, strict=True):
            if not spec.plain:
                continue  # `bind` has looked at its tensors
            wanted = f"input '{spec.name}': expected shape ({', '.join(map(str, spec.shape))}), got {_text(shape)}"
            if len(shape) != len(spec.shape):
                raise InputError(wanted)
            for axis, (want, got) in enumerate(zip(spec.shape, shape, strict=True)):
                if isinstance(want, int):
                    if got != want:
                        raise InputError(f"{wanted}: dimension {axis} must be {want}")
                elif got == 0 and want not in self._may_be_empty and want not in may_be_none:
                    raise InputError(f"{wanted}: dimension {axis} ('{want}') must be at least 1")
                elif sizes.setdefault(want, (got, spec.name))[0] != got:
                    size, first = sizes[want]
                    raise InputError(f"{wanted}: dimension {axis} must be {size}, as '{want}' is in input '{first}'")
        return {name: size for name, (size, _) in sizes.items()}


def _text(shape: Sequence[int]) -> str:
    return f"({', '.join(map(str, shape))})"


def _convert(spec: TensorSpec, dtype: np.dtype[Any], value: Any) -> Array:
    if not spec.plain:
        return containers.convert(spec, value, lambda item: _array(spec, dtype, item))
    return _array(spec, dtype, value)


def _array(spec: TensorSpec, dtype: np.dtype[Any], value: Any) -> Array:
    """An array of the input's type from anything else that holds numbers; of arrays only the byte order may differ."""
    array: Array
    if spec.dtype == STRING:
        array = np.asarray(value)
        if not all(isinstance(item, str | bytes) for item in array.reshape(-1).tolist()):
            raise InputError(f"input '{spec.name}': expected {spec}, got {array.dtype.name}")
        return array.astype(object)
    try:
        if isinstance(value, np.ndarray | np.generic):
            array = np.asarray(value)
        elif hasattr(value, "__dlpack__"):
            array = np.from_dlpack(value)
        else:
            array = np.asarray(value)
            if array.size == 0 or _holds(array, dtype):
                array = array.astype(dtype)
    except (BufferError, RuntimeError, TypeError, ValueError) as err:
        reason = first_line(err)
        raise InputError(f"input '{spec.name}': expected {spec}, got {type(value).__name__}: {reason}") from err
    if array.dtype == np.dtype(f"V{dtype.itemsize}") and dtype.kind == "V":
        array = array.view(dtype)  # what numpy.save makes of a type of ml_dtypes
    if array.dtype != dtype and array.dtype.newbyteorder("=") != dtype:
        kind = array.dtype.name.rstrip("0123456789") if array.dtype.kind in "US" else array.dtype.name
        raise InputError(f"input '{spec.name}': expected type {spec.dtype}, got {kind}")
    return array


def _holds(numbers: Array, dtype: np.dtype[Any]) -> bool:
    """Whether Python's numbers can become `dtype`: whole numbers go everywhere they fit, fractions only into floats."""
    if numbers.dtype.kind in "iu" and dtype.kind in "iu":
        info = np.iinfo(dtype)
        return bool(numbers.min() >= info.min and numbers.max() <= info.max)
    return numbers.dtype.kind == "b" or (numbers.dtype.kind in "iuf" and dtype.kind not in "iub")
