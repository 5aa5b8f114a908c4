"""A loaded model: call it with arrays, from any thread."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dscc.artifact.host import cores
from dscc.elements import numpy_dtype, onnx_name
from dscc.errors import InputError, unknown
from dscc.runtime import ffi
from dscc.runtime.inputs import Array, InputSpecs
from dscc.runtime.nothing import empty_shapes
from dscc.runtime.program import Program
from dscc.runtime.session import Session

if TYPE_CHECKING:
    from dscc.artifact import Artifact
    from dscc.artifact.manifest import Manifest, TensorSpec

_NO_MEMORY = "there is not enough memory"
_REMEMBERED = 64  # combinations of shapes that are known to fit
_EARLY = 8  # runs, before a module counts as one that is used again and again


class NodeArg(NamedTuple):
    """An input or output as onnxruntime describes it: `type` as in `tensor(float)`, `shape` of ints and names."""

    name: str
    type: str
    shape: list[int | str]


class Module:
    """A compiled model in this process.

    It may be called from any number of threads. Calls run on the threads that make them, as many at once as there are
    processor cores, each in a virtual machine of its own; parallel loops get help from threads that belong to the
    module, are started by the first call that needs them, and end with the module.

    Attributes:
        manifest: what the artifact says about itself.
        threads: how many processor cores one call may use.
        device: the name of the device that runs the kernels, as its driver says it; None where that is the processor.
    """

    def __init__(self, artifact: Artifact, threads: int | None = None, device: str | None = None):
        available = cores()
        if threads is not None and threads < 1:
            raise InputError(f"threads must be at least 1, got {threads}")
        self.manifest: Manifest = artifact.manifest
        self.threads = available if threads is None else threads
        self._program = Program(artifact, self.threads, device)
        self.device = self._program.device.name if self._program.device else None
        self._inputs = InputSpecs(self.manifest.inputs, self.manifest.summary.get("may_be_empty", ()))
        self._may_be_none = frozenset(self.manifest.summary.get("may_be_none", ()))
        self._outputs = {spec.name: i for i, spec in enumerate(self.manifest.outputs)}
        self._all = tuple(range(len(self.manifest.outputs)))
        self._known: set[tuple[tuple[int, ...], ...]] = set()
        self._idle: list[Session] = [Session(self._program)]
        self._made, self._limit = 1, available
        self._waiting = 0
        self._early = _EARLY
        self._returned = threading.Condition()

    def __call__(self, /, *arrays: Any, **named: Any) -> tuple[Array, ...]:
        """Run the model.

        Args:
            arrays, named: the inputs, by position or by name: NumPy arrays, anything that speaks DLPack, or numbers.

        Returns:
            All outputs in the model's order. They own their memory.

        Raises:
            InputError: the inputs do not fit the model.
        """
        return tuple(self._run(self._inputs.bind(arrays, named), self._all))

    def run(self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any]) -> list[Array]:
        """Run the model, as `onnxruntime.InferenceSession.run` does.

        Args:
            output_names: the outputs that are wanted, in this order; None means all.
            input_feed: the inputs by name.

        Raises:
            InputError: the inputs do not fit the model, or there is no output of that name.
        """
        wanted = self._all
        if output_names:
            try:
                wanted = tuple(self._outputs[name] for name in output_names)
            except KeyError as err:
                raise InputError(unknown("output", err.args[0], self._outputs)) from None
        return self._run(self._inputs.bind((), input_feed), wanted)

    def get_inputs(self) -> list[NodeArg]:
        """The inputs, in the model's order."""
        return [_node_arg(spec) for spec in self.manifest.inputs]

    def get_outputs(self) -> list[NodeArg]:
        """The outputs, in the model's order."""
        return [_node_arg(spec) for spec in self.manifest.outputs]

    def _run(self, arrays: list[Array], wanted: Sequence[int]) -> list[Array]:
        # A sequence or an optional has no shape; its tensors are looked at in every run.
        shapes = tuple([array.shape if self._inputs.plain else getattr(array, "shape", ()) for array in arrays])
        if shapes not in self._known:
            if any(0 in shape for shape in shapes) and (nothing := self._nothing(shapes, wanted)) is not None:
                return nothing
            self._inputs.check(shapes)
            if len(self._known) == _REMEMBERED:
                self._known.clear()
            self._known.add(shapes)
        try:
            session = self._idle.pop()
        except IndexError:
            session = self._another()
        if self._early:
            self._early -= 1
            if not self._early:
                self._program.settle()
        try:
            return session.run(arrays, wanted)
        except MemoryError as err:
            raise InputError(_unfit(self._inputs.names, shapes, _NO_MEMORY)) from err
        except ffi.RuntimeFailure as err:
            if "bad_alloc" in err.message or "out of memory" in err.message:
                raise InputError(_unfit(self._inputs.names, shapes, _NO_MEMORY)) from err
            if err.kind == "InternalError":
                raise  # a check of TVM's own failed: a bug, and its traceback is wanted
            raise InputError(_unfit(self._inputs.names, shapes, err.message)) from err
        finally:
            self._idle.append(session)
            if self._waiting:
                with self._returned:
                    self._returned.notify()

    def _nothing(self, shapes: Sequence[tuple[int, ...]], wanted: Sequence[int]) -> list[Array] | None:
        """The outputs of a run that makes nothing, or None where it makes something or has to be refused."""
        sizes = self._inputs.check(shapes, self._may_be_none)
        specs = [self.manifest.outputs[index] for index in wanted]
        found = empty_shapes(specs, sizes)
        if found is None:
            return None
        return [np.empty(shape, numpy_dtype(spec.dtype)) for shape, spec in zip(found, specs, strict=True)]

    def _another(self) -> Session:
        """A session when none is idle: a new one, up to as many as there are cores, else the next that comes back."""
        with self._returned:
            if self._made == self._limit:
                self._waiting += 1
                try:
                    while True:
                        try:
                            return self._idle.pop()
                        except IndexError:  # callers that need not wait take sessions without the lock
                            self._returned.wait()
                finally:
                    self._waiting -= 1
            # One is made at a time: TVM does not say that functions of a library may be looked up side by side.
            session = Session(self._program)
            self._made += 1
            return session


def load(path: Path | str, threads: int | None = None, device: str | None = None) -> Module:
    """Load an artifact.

    Args:
        path: a file that `dscc compile` or `Artifact.save` wrote.
        threads: how many processor cores one call may use; None means all that this process may use.
        device: part of the name of the device that kernels run on; see `Artifact.load`.

    Raises:
        ArtifactError: the file cannot be read, is damaged, or is for another machine.
    """
    from dscc.artifact import Artifact

    return Artifact.open(path).load(threads, device)


def _node_arg(spec: TensorSpec) -> NodeArg:
    kind = f"tensor({onnx_name(spec.dtype)})"
    for around in reversed(spec.around):
        kind = f"{'seq' if around == 'sequence' else around}({kind})"
    return NodeArg(spec.name, kind, list(spec.shape))


def _unfit(names: Sequence[str], shapes: Sequence[tuple[int, ...]], reason: str) -> str:
    given = ", ".join(f"'{name}' {shape}" for name, shape in zip(names, shapes, strict=True))
    return f"the model cannot run on inputs {given}: {' '.join(reason.split())}"
