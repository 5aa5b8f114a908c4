"""Calls of the compiled program to the engines that run the rest of the model.

The program calls `dscc.fallback` (dscc/library/fallback.c) with the number of a region and its inputs; that function
calls back here. Inputs reach the engine as arrays over TVM's memory; outputs are copied once, to memory of TVM's own.

The manifest says what each input and output is: `float32`, `seq:float32` for a sequence of tensors, `opt:float32` for
an optional one. Sequences and optionals are arrays of TVM, an optional one of no or one item.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dscc.artifact.artifact import FALLBACK
from dscc.elements import STRING, carrier, numpy_dtype
from dscc.errors import ArtifactError
from dscc.runtime import ffi, strings
from dscc.runtime.engines import ENGINES, Engine, EngineError

if TYPE_CHECKING:
    from dscc.artifact import Artifact

Array = np.ndarray[Any, Any]


class InternalError(Exception):
    """A fault of ours; TVM calls them so."""


class Fallback:
    """The regions of an artifact, ready to run; `function` is what the program calls."""

    def __init__(self, artifact: Artifact, library: ffi.Library, threads: int):
        """Raises:
        ArtifactError: an engine is not installed, or does not take its region.
        """
        self._library = library
        self._array = library.function("ffi.Array")
        self._regions = [
            (spec["inputs"], spec["outputs"], _engine(artifact, index, threads))
            for index, spec in enumerate(artifact.manifest.fallback)
        ]
        self.function = library.callback(self._serve)

    def _serve(self, address: int, count: int, result_address: int) -> None:
        """A call: region number and inputs to outputs."""
        arguments = (ffi.Value * count).from_address(address)
        kinds, wanted, engine = self._regions[ffi.numbers_of(arguments[0].bits)[0]]
        try:
            taken = [self._taken(arguments[i + 1].bits, kind) for i, kind in enumerate(kinds)]
            outputs = engine.run(taken)
            if len(outputs) != len(wanted):
                raise EngineError(f"it gave {len(outputs)} outputs, expected {len(wanted)}")
            given = [self._given(item, kind) for item, kind in zip(outputs, wanted, strict=True)]
        except EngineError as err:
            raise EngineError(f"{engine.name}: {err}") from err
        except Exception as err:
            raise InternalError(f"{type(err).__name__}: {err}") from err
        made = given[0] if len(given) == 1 else self._list(given)
        self._library.incref(made.handle)  # the caller's reference; ours ends with `made`
        result = ffi.Value.from_address(result_address)
        result.kind, result.zero, result.bits = ffi.type_of(made.handle), 0, made.handle

    def _taken(self, handle: int, kind: str) -> Any:
        """What the engine gets for an object: an array, a list (a sequence), or None (an empty optional)."""
        form, _, element = kind.partition(":")
        if not element:
            return (
                strings.decode(_view(handle, np.dtype(np.uint8)).tobytes())
                if form == STRING
                else _view(handle, numpy_dtype(form))
            )
        items = [self._taken(item, element) for item in ffi.items_of(handle)]
        return items if form == "seq" else items[0] if items else None

    def _given(self, item: Any, kind: str) -> ffi.Ref:
        form, _, element = kind.partition(":")
        if not element:
            return self._tensor(item, form)
        items = item if form == "seq" else [] if item is None else [item]
        return self._list([self._given(each, element) for each in items])

    def _tensor(self, item: Any, element: str) -> ffi.Ref:
        """A tensor of TVM with a copy of an array, or of a number."""
        array = np.asarray(item)
        if element == STRING:
            array = strings.encode(array)
        dtype = numpy_dtype(carrier(element) if element == STRING else element)
        if array.dtype != dtype:
            if array.dtype.kind != dtype.kind and array.size:
                raise EngineError(f"it gave {array.dtype} where the model says {element}")
            array = array.astype(dtype)
        ref, address = self._library.own_tensor(self._library.dtype(carrier(element)), array.shape, array.nbytes)
        if array.nbytes:
            np.copyto(_memory(address, array.nbytes).view(dtype).reshape(array.shape), array)
        return ref

    def _list(self, refs: Sequence[ffi.Ref]) -> ffi.Ref:
        made = self._library.invoke(self._array, *refs)
        if not isinstance(made, ffi.Ref):
            raise EngineError("TVM made no array")
        return made


def _view(handle: int, dtype: np.dtype[Any]) -> Array:
    """An array over the memory of a tensor of TVM, which is contiguous."""
    tensor = ffi.tensor_of(handle)
    shape = (ctypes.c_int64 * tensor.ndim).from_address(tensor.shape)[:] if tensor.ndim else []
    nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if not nbytes:
        return np.empty(shape, dtype)
    return _memory(tensor.data + tensor.byte_offset, nbytes).view(dtype).reshape(shape)


def _memory(address: int, nbytes: int) -> Array:
    return np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(address))


def _engine(artifact: Artifact, index: int, threads: int) -> Engine:
    spec = artifact.manifest.fallback[index]
    kind = ENGINES.get(spec["engine"])
    if kind is None:
        raise ArtifactError(f"this artifact needs the engine '{spec['engine']}'; known: {', '.join(ENGINES)}")
    why = f"this artifact runs {spec['what']} on {kind.name}"
    version = kind.version()
    if version is None:
        raise ArtifactError(f"{why}, and the package '{kind.package}' is not installed; pip install {kind.package}")
    try:
        return kind(bytes(artifact.member(FALLBACK.format(index))), threads)
    except EngineError as err:
        raise ArtifactError(
            f"{why}, which refuses them in version {version}, but did not in {spec['version']}: {err}; "
            f"pip install {kind.package}=={spec['version']}"
        ) from err
