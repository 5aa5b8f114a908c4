"""A kernel that is tuned, in a form that travels between processes and machines, and building a candidate of it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import tvm
import tvm_ffi
from tvm import tirx

from dscc import kernel_pipeline, targets
from dscc.schedule.base import Packing
from dscc.schedule.decisions import Choice, Decisions
from dscc.schedule.plan import plan

ENTRY = "kernel"
Sizes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Argument:
    """One parameter.

    Attributes:
        dtype: of its elements, or of the number.
        size: the shape, or (n,) for a number.
        role: `input`, `constant` (known when the model is compiled), `output` or `number`.
    """

    dtype: str
    size: tuple[int, ...]
    role: str


@dataclass(frozen=True)
class Kernel:
    """An unscheduled function with the sizes that it is called with.

    Attributes:
        name: as in the artifact.
        text: the function, as `tvm.ir.save_json` writes it.
        arguments: in the order of its parameters.
        target: `NAME:ARCH`.
    """

    name: str
    text: str
    arguments: tuple[Argument, ...]
    target: str

    @staticmethod
    def of(name: str, func: tirx.PrimFunc, constants: frozenset[int], sizes: Sizes, target: str) -> Kernel:
        """The kernel `func`, called with arguments of these sizes."""
        written = _written(func)
        arguments = []
        for i, (param, size) in enumerate(zip(func.params, sizes, strict=True)):
            if not tirx.is_buffer_var(param):
                arguments.append(Argument(str(param.ty.dtype), size, "number"))
            else:
                role = "constant" if i in constants else "output" if param in written else "input"
                # What the artifact has of a constant is packed; one of open sizes is not.
                known = all(isinstance(extent, tirx.IntImm) for extent in param.shape)
                shape = tuple(int(extent) for extent in param.shape) if role == "constant" and known else size
                arguments.append(Argument(str(param.dtype), shape, role))
        return Kernel(name, tvm.ir.save_json(func), tuple(arguments), target)

    @property
    def func(self) -> tirx.PrimFunc:
        return tvm.ir.load_json(self.text)

    @property
    def constants(self) -> frozenset[int]:
        return frozenset(i for i, argument in enumerate(self.arguments) if argument.role == "constant")

    @property
    def sizes(self) -> Sizes:
        return tuple(argument.size for argument in self.arguments)


def _written(func: tirx.PrimFunc) -> set[tirx.Var]:
    found: list[tirx.BufferStore] = []
    tvm_ffi.structural_walk(func.body, (tirx.BufferStore, found.append))
    return {store.buffer for store in found}


def space(kernel: Kernel) -> dict[str, dict[str, tuple[Choice, ...]]]:
    """For every rule that takes the kernel, what can be chosen: names to candidates, the default first.

    The rule that takes it by default is the first.
    """
    target = targets.resolve(kernel.target)
    found: dict[str, dict[str, tuple[Choice, ...]]] = {}
    for name in ("", *(rule.name for rule in target.rules)):
        decisions = Decisions({"rule": name})
        _, taken = plan(kernel.func, kernel.constants, target, decisions)
        if name in ("", taken):
            names = {key: values for key, values in decisions.asked.items() if len(values) > 1 and key != "rule"}
            found.setdefault(taken, names)
    return found


@dataclass(frozen=True)
class Built:
    """A candidate as a shared library with one function, `ENTRY`.

    Attributes:
        library: the content of the file.
        packings: how constants are laid out for it, by parameter.
    """

    library: bytes
    packings: Mapping[int, Packing]


def build(kernel: Kernel, choices: Mapping[str, Choice]) -> Built:
    """Build a candidate. Runs in any process that can import dscc.

    Raises:
        DsccError, or what TVM raises: it cannot be built with these choices.
    """
    target = targets.resolve(kernel.target)
    scheduled, _ = plan(kernel.func, kernel.constants, target, Decisions(choices))
    func = kernel_pipeline.with_plain_parameters(scheduled.func)
    func = func.with_attrs({"global_symbol": ENTRY, "tirx.noalias": True})
    passes = "default" if kernel_pipeline.has_blocks(func) else kernel_pipeline.NAME
    module = tvm.tirx.build(tvm.IRModule({ENTRY: func}), target.tvm_target, passes)
    with tempfile.TemporaryDirectory(prefix="dscc-") as folder:
        compiled, linked = Path(folder) / "kernel.o", Path(folder) / "kernel.so"
        target.write_object(module, compiled)
        target.link([compiled], linked)
        return Built(linked.read_bytes(), dict(scheduled.packings))
