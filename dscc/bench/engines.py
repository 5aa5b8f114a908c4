"""The engines that can take part in a race, each run in a child process of its own.

Thread counts are set explicitly everywhere, since each engine has a default of its own, and so is single precision:
unless told not to, OpenVINO computes in bfloat16 on some processors, and rounds activations to 8 bits where weights
have 8. Those that compile a model ahead of time do so in
`prepare`, once, in a process apart: see dscc/bench/ahead.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

Array = np.ndarray[Any, Any]


class Engine(ABC):
    """One engine with one model. The constructor imports the engine; `load` and `run` are timed apart from that.

    Attributes:
        package: the module that has to be installed, `requirement` what pip installs it by.
        ahead: whether `prepare` has anything to do.
        takes: suffix of the model files that it reads.
        settings: of its compiler; what was made with others is made again.
    """

    name: ClassVar[str]
    package: ClassVar[str]
    requirement: ClassVar[str] = ""
    ahead: ClassVar[bool] = False
    takes: ClassVar[str] = ".onnx"
    settings: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def prepare(cls, model: Path, feeds: Mapping[str, Array], into: Path) -> None:
        """Write to `into` what `load` takes, compiled for inputs of the shapes of `feeds`."""
        raise NotImplementedError

    @abstractmethod
    def load(self, model: Path, threads: int) -> None:
        """Make the model ready to run."""

    @abstractmethod
    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        """All outputs, in the model's order."""


class Dscc(Engine):
    """An artifact in the runtime of dscc."""

    name, package, takes = "dscc", "dscc", ".dscc"

    def __init__(self) -> None:
        import dscc.runtime

        self._runtime = dscc.runtime

    def load(self, model: Path, threads: int) -> None:
        self._module = self._runtime.load(model, threads=threads)

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        outputs: list[Array] = self._module.run(None, feeds)
        return outputs


class OnnxRuntime(Engine):
    """An ONNX file in onnxruntime's CPU provider, all its optimizations on."""

    name, package = "onnxruntime", "onnxruntime"

    def __init__(self) -> None:
        import onnxruntime

        self._onnxruntime = onnxruntime

    def load(self, model: Path, threads: int) -> None:
        options = self._onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = self._onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        outputs: list[Array] = self._session.run(None, dict(feeds))
        return outputs


class OpenVino(Engine):
    """An ONNX file in OpenVINO's CPU plug-in, tuned for the latency of one request, in single precision."""

    name, package = "openvino", "openvino"

    def __init__(self) -> None:
        import openvino

        self._openvino = openvino

    def load(self, model: Path, threads: int) -> None:
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
        }
        core = self._openvino.Core()
        self._compiled = core.compile_model(core.read_model(str(model)), "CPU", settings)
        self._request = self._compiled.create_infer_request()

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        found = self._request.infer(dict(feeds), share_inputs=True, share_outputs=False)
        return [np.asarray(found[port]) for port in self._compiled.outputs]
