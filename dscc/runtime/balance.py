"""How many tokens every expert of every layer gets, read from the arguments of the kernels while a model runs."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dscc.errors import InputError
from dscc.runtime import ffi
from dscc.runtime.inputs import InputSpecs
from dscc.runtime.profile import HEADER, VALUE, is_before, sizes_of
from dscc.runtime.program import Program
from dscc.runtime.session import Session

if TYPE_CHECKING:
    from dscc.artifact import Artifact


@dataclass(frozen=True)
class Load:
    """One call of a mixture of experts.

    Attributes:
        layer: the node of the model, or the kernel's name where that is not known.
        tokens: rows that were routed.
        chosen: how often every expert was chosen, also beyond its capacity.
        dropped: how many of those choices counted for nothing, beyond the capacity.
    """

    layer: str
    tokens: int
    chosen: tuple[int, ...]
    dropped: int

    @property
    def imbalance(self) -> float:
        """The busiest expert over the mean; 1 is even, and 0 if nothing was routed."""
        total = sum(self.chosen)
        return max(self.chosen) * len(self.chosen) / total if total else 0.0


def measure(artifact: Artifact, feeds: Mapping[str, Any], threads: int) -> list[Load]:
    """Run an artifact once; the calls of its mixtures in order.

    Args:
        feeds: the inputs by name.
        threads: processor cores that its parallel loops may use.

    Raises:
        InputError: the inputs do not fit the model, it has no mixture, or it runs on a device.
    """
    functions = artifact.manifest.kernels.get("functions", {})
    mixtures = {name: found["mixture"] for name, found in functions.items() if "mixture" in found}
    if not mixtures:
        raise InputError("no statistics 'moe': no mixture of experts was recognised in this model; compile it with -O2")
    if artifact.manifest.device:
        raise InputError("statistics 'moe' are read on a processor only; compile the model for this machine's")
    program = Program(artifact, threads)
    inputs = InputSpecs(artifact.manifest.inputs, artifact.manifest.summary.get("may_be_empty", ()))
    arrays = inputs.bind((), feeds)
    inputs.check(tuple(array.shape for array in arrays))
    called: list[tuple[str, np.ndarray[Any, Any]]] = []

    def look(arguments: int, count: int, result: int) -> None:
        if (name := ffi.text_of(arguments + VALUE)) in mixtures and is_before(arguments):
            place = arguments + (HEADER + mixtures[name]["ids"]) * VALUE
            called.append((name, _ids(ffi.Value.from_address(place))))

    session = Session(program)
    callback = program.library.callback(look)
    session.instrument(callback)
    session.run(arrays, range(len(artifact.manifest.outputs)))
    recorded = [(name, nodes) for name, nodes in artifact.manifest.kernels.get("calls", ()) if name in mixtures]
    known = [name for name, _ in recorded] == [name for name, _ in called]
    layers = [", ".join(nodes) for _, nodes in recorded] if known else [""] * len(called)
    return [_load(layer or name, ids, mixtures[name]) for layer, (name, ids) in zip(layers, called, strict=True)]


def _load(layer: str, ids: np.ndarray[Any, Any], mixture: Mapping[str, Any]) -> Load:
    here = ids - mixture["begin"]
    chosen = np.bincount(here[(here >= 0) & (here < mixture["experts"])], minlength=mixture["experts"])
    dropped = 0
    if mixture["capacity"] is not None:  # as dscc/schedule/experts/mixture.py has it
        even = mixture["capacity"] / (mixture["begin"] + mixture["experts"] + mixture["after"])
        dropped = int(np.maximum(chosen - math.ceil(ids.size * even), 0).sum())
    return Load(layer, len(ids), tuple(chosen.tolist()), dropped)


def _ids(value: ffi.Value) -> np.ndarray[Any, Any]:
    """A copy of a tensor of int64 (tokens, top)."""
    tensor, shape = ffi.tensor_of(value.bits), sizes_of(value)
    content = ctypes.string_at(tensor.data + tensor.byte_offset, 8 * math.prod(shape)) if math.prod(shape) else b""
    return np.frombuffer(content, np.int64).reshape(shape)
