"""The engines that run what dscc does not compile, behind one small interface.

An engine runs a region of the model, as an ONNX model of its own. onnxruntime is the first choice; onnx's reference
evaluator has every operator of the standard and is slow. Neither is imported before an artifact needs it.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from dscc.elements import BITS, CARRIERS, numpy_dtype, onnx_name

Item = Any  # an array, a list of arrays (a sequence), or None (an empty optional)


class EngineError(Exception):
    """An engine cannot take the model, or failed to run it."""


class Engine(ABC):
    """Runs one ONNX model, from any thread."""

    name: ClassVar[str]
    package: ClassVar[str]
    native: ClassVar[bool]  # whether a model that it cannot cope with may end the process

    @abstractmethod
    def __init__(self, model: bytes, threads: int):
        """Raises:
        EngineError: it does not take the model.
        """

    @abstractmethod
    def run(self, inputs: Sequence[Item]) -> list[Item]:
        """The outputs, in the model's order, for inputs in the model's order.

        Raises:
            EngineError: it failed.
        """

    def output_shapes(self) -> list[tuple[int | str | None, ...] | None]:
        """What the engine knows of the shapes of its outputs; None for a rank that it does not know."""
        return []

    @classmethod
    def version(cls) -> str | None:
        """Of the installed package; None if it is not installed."""
        if importlib.util.find_spec(cls.package) is None:
            return None
        try:
            return importlib.metadata.version(cls.package)
        except importlib.metadata.PackageNotFoundError:  # onnxruntime-gpu and the like bring the same module
            return "unknown"


class OnnxRuntime(Engine):
    """onnxruntime, on the CPU."""

    name: ClassVar[str] = "onnxruntime"
    package: ClassVar[str] = "onnxruntime"
    native: ClassVar[bool] = True

    def __init__(self, model: bytes, threads: int):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as err:  # its exceptions have no common base
            raise EngineError(_line(err)) from err
        self._names = [info.name for info in self._session.get_inputs()]
        types = [info.type for info in (*self._session.get_inputs(), *self._session.get_outputs())]
        if packed := sorted(set(types).intersection(_PACKED)):
            raise EngineError(f"its interface of Python does not take {packed[0]}")
        # Its interface of NumPy does not take the types that NumPy lacks.
        self._narrow = any(kind.removeprefix("tensor(").removesuffix(")") in _NARROW for kind in types)

    def run(self, inputs: Sequence[Item]) -> list[Item]:
        feeds = dict(zip(self._names, inputs, strict=True))
        try:
            if not self._narrow:
                return list(self._session.run(None, feeds))
            values = {name: _to_value(array) for name, array in feeds.items()}
            return [_from_value(value) for value in self._session.run_with_ort_values(None, values)]
        except Exception as err:
            raise EngineError(_line(err)) from err

    def output_shapes(self) -> list[tuple[int | str | None, ...] | None]:
        # A shape of no dimensions is what it says of a scalar and of a rank that it does not know.
        return [tuple(info.shape) or None for info in self._session.get_outputs()]


class Reference(Engine):
    """onnx's reference evaluator, which computes with NumPy."""

    name: ClassVar[str] = "reference"
    package: ClassVar[str] = "onnx"
    native: ClassVar[bool] = False

    def __init__(self, model: bytes, threads: int):
        import onnx

        from dscc.evaluator import trusted

        try:
            proto = onnx.load_model_from_string(model)
            self._evaluator = trusted(proto)
        except Exception as err:  # what it raises for what it lacks has no common base
            raise EngineError(_line(err)) from err
        self._names = [info.name for info in proto.graph.input]
        self._lock = threading.Lock()  # its operators are not written for several threads

    def run(self, inputs: Sequence[Item]) -> list[Item]:
        # Its operators may write to what they get.
        feeds = {name: _copied(item) for name, item in zip(self._names, inputs, strict=True)}
        try:
            with self._lock, np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return list(self._evaluator.run(None, feeds))
        except Exception as err:
            raise EngineError(_line(err)) from err


ENGINES: dict[str, type[Engine]] = {engine.name: engine for engine in (OnnxRuntime, Reference)}
"""By name, the preferred one first."""

# Types that NumPy lacks and onnxruntime has, by its names of them.
_NARROW = {onnx_name(name): name for name in ("bfloat16", *CARRIERS) if name.startswith(("bfloat16", "float8"))}
_PACKED = tuple(f"tensor({onnx_name(name)})" for name in BITS)


def _to_value(array: Any) -> Any:
    """onnxruntime's value over an array of any type, without a copy where NumPy has the type."""
    import onnx
    from onnxruntime import OrtValue

    if array.dtype.name not in _NARROW.values():
        return OrtValue.ortvalue_from_numpy(array)
    code = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    return OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(f"u{array.itemsize}"), code)


def _from_value(value: Any) -> Any:
    """An array of the content of onnxruntime's value."""
    kind = value.data_type().removeprefix("tensor(").removesuffix(")")
    if kind not in _NARROW:
        return value.numpy()
    content = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(content, numpy_dtype(_NARROW[kind])).reshape(value.shape())


def _copied(item: Item) -> Item:
    if isinstance(item, list):
        return [_copied(each) for each in item]
    return None if item is None else item.copy()


def _line(err: BaseException) -> str:
    return " ".join(str(err).split()) or type(err).__name__
