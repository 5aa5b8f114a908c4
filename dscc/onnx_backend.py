"""dscc behind ONNX's own interface, `onnx.backend.base.Backend`: the one that ONNX's test suite drives.

from dscc import onnx_backend
outputs = onnx_backend.prepare(model).run(inputs)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx.backend.base import Backend, BackendRep, Device, DeviceType, namedtupledict

import dscc
from dscc.compiler import lowering, optimize
from dscc.errors import DsccError
from dscc.runtime import Module


class DsccRep(BackendRep):
    """A compiled and loaded model."""

    def __init__(self, module: Module):
        self.module = module
        self._outputs = [info.name for info in module.get_outputs()]

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """All outputs, as a tuple that also takes their names.

        Args:
            inputs: arrays in the model's order, arrays by name, or one array where there is one input.
            kwargs: nothing that dscc heeds.

        Raises:
            InputError: the inputs do not fit the model.
        """
        if isinstance(inputs, Mapping):
            found = self.module.run(None, inputs)
        elif isinstance(inputs, Sequence):
            found = list(self.module(*inputs))
        else:
            found = list(self.module(inputs))
        return namedtupledict("Outputs", self._outputs)(*found)


class DsccBackend(Backend):
    """Compiles for this machine's CPU."""

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether dscc reads and lowers the model; no code is generated to find out."""
        try:
            options = dscc.CompileOptions(**kwargs)
            optimize(model, options, lowering(options), lambda stage: None)
        except DsccError:
            return False
        return cls.supports_device(device)

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> DsccRep:
        """Compile and load a model.

        Args:
            model: checked with `onnx.checker` first.
            device: `CPU`.
            kwargs: fields of `CompileOptions`.

        Raises:
            onnx.checker.ValidationError: the model is not valid ONNX.
            DsccError: it cannot be compiled.
        """
        if not cls.supports_device(device):
            raise dscc.DsccError(f"unknown device '{device}'; known: CPU")
        onnx.checker.check_model(model)
        return DsccRep(dscc.compile(model, **kwargs).load())

    @classmethod
    def run_node(
        cls,
        node: onnx.NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Sequence[tuple[np.dtype[Any], tuple[int, ...]]] | None = None,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """Run one node, as a model of its own.

        Args:
            node: its empty input names are skipped; each of the others takes one of `inputs`.
            inputs: arrays in the order of the node's inputs, or by name.
            device: `CPU`.
            outputs_info: type and shape of every output; inferred by onnx when left out.
            kwargs: `opset_version`, the default domain's, else onnx's newest; and fields of `CompileOptions`.
        """
        version = kwargs.pop("opset_version", onnx.defs.onnx_opset_version())
        names = [name for name in node.input if name]
        arrays = [np.asarray(a) for a in (inputs.values() if isinstance(inputs, Mapping) else inputs)]
        unknown: list[tuple[np.dtype[Any], Any]] = [(np.dtype(np.float32), None)] * len(node.output)
        kinds = outputs_info or unknown
        graph = onnx.helper.make_graph(
            [node],
            node.op_type,
            [_value(name, array.dtype, array.shape) for name, array in zip(names, arrays, strict=True)],
            [_value(name, *kind) for name, kind in zip(node.output, kinds, strict=True) if name],
        )
        opsets = [onnx.helper.make_opsetid("", version)]
        if node.domain:
            opsets.append(onnx.helper.make_opsetid(node.domain, 1))
        model = onnx.helper.make_model(graph, opset_imports=opsets)
        if outputs_info is None:
            _infer_outputs(model)
        return cls.run_model(model, arrays, device, **kwargs)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Whether `device`, such as `CPU` or `CPU:0`, is this machine's processor."""
        try:
            return bool(Device(device).type == DeviceType.CPU)
        except (AttributeError, ValueError):
            return False


def _value(name: str, dtype: np.dtype[Any], shape: Sequence[int] | None) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)


def _infer_outputs(model: onnx.ModelProto) -> None:
    """Replace the types of the graph's outputs by those that onnx infers."""
    for output in model.graph.output:
        output.ClearField("type")
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    for output, found in zip(model.graph.output, inferred.graph.output, strict=True):
        output.CopyFrom(found)


is_compatible = DsccBackend.is_compatible
prepare = DsccBackend.prepare
run_model = DsccBackend.run_model
run_node = DsccBackend.run_node
supports_device = DsccBackend.supports_device
