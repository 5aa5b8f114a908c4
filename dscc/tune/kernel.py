"""A kernel that is tuned, in a form that travels between processes and machines, and building a candidate of it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tvm
import tvm_ffi
from tvm import tirx

from dscc import codegen, device_code, placement, targets
from dscc.errors import TargetError
from dscc.schedule.base import Packing
from dscc.schedule.decisions import Choice, Decisions
from dscc.schedule.plan import plan
from dscc.targets.device import DeviceTarget

if TYPE_CHECKING:
    from dscc.targets.base import Target

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
        precision: in which products are computed, as in `CompileOptions`.
    """

    name: str
    text: str
    arguments: tuple[Argument, ...]
    target: str
    precision: str = "fp32"

    @staticmethod
    def of(
        name: str,
        func: tirx.PrimFunc,
        constants: frozenset[int],
        sizes: Sizes,
        target: str,
        precision: str = "fp32",
    ) -> Kernel:
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
        return Kernel(name, tvm.ir.save_json(func), tuple(arguments), target, precision)

    @property
    def func(self) -> tirx.PrimFunc:
        return tvm.ir.load_json(self.text)

    @property
    def compiled_for(self) -> Target:
        return targets.resolve(self.target).in_precision(self.precision)

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
    target = kernel.compiled_for
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
        device: where it runs, as `DeviceTarget.device` says it; empty for a processor.
    """

    library: bytes
    packings: Mapping[int, Packing]
    device: Mapping[str, Any] = field(default_factory=dict)


class Refused(Exception):
    """A candidate that its device has too few registers or too little memory for; the text says which."""


def build(kernel: Kernel, choices: Mapping[str, Choice]) -> Built:
    """Build a candidate. Runs in any process that can import dscc.

    Raises:
        Refused: registers of the device were not enough, or its compiler did not take it.
        DsccError, or what TVM raises: it cannot be built with these choices.
    """
    target = kernel.compiled_for
    scheduled, _ = plan(kernel.func, kernel.constants, target, Decisions(choices))
    func = scheduled.func.with_attr("global_symbol", ENTRY)
    (module,) = codegen.compile_kernels(tvm.IRModule({ENTRY: func}), target, jobs=1)
    with tempfile.TemporaryDirectory(prefix="dscc-") as folder:
        objects, linked = [Path(folder) / "kernel.o"], Path(folder) / "kernel.so"
        target.write_object(module, objects[0])
        on_device = isinstance(target, DeviceTarget) and placement.on_device(func)
        if isinstance(target, DeviceTarget) and on_device:
            objects.append(Path(folder) / "device.o")
            spills = _packed(module, target, objects[-1])
            if spills and choices:
                raise Refused(f"registers are not enough: {spills} spilled")
        target.link(objects, linked)
        needs = dict(target.device) if isinstance(target, DeviceTarget) and on_device else {}
        return Built(linked.read_bytes(), dict(scheduled.packings), needs)


def _packed(module: tvm.runtime.Module, target: DeviceTarget, path: Path) -> int:
    """Write the finished device code; what it spills."""
    try:
        return sum(binary.spills for binary in device_code.pack(module, target, path, 1))
    except TargetError as err:
        raise Refused(str(err)) from err
