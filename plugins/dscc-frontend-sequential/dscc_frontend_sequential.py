"""Read the weights of a `torch.nn.Sequential` of linear layers from a safetensors file.

    {"0.weight": (64, 16), "0.bias": (64,), "2.weight": (3, 64), "2.bias": (3,)},
    metadata {"activation": "relu", "output": "softmax"}
        ->  y = softmax(relu(x @ W0.T + b0) @ W2.T + b2),  x: (batch, 16), y: (batch, 3)

This is how small classifiers and the heads of large networks are handed around: `safetensors.torch.save_file(
model.state_dict(), path, metadata)`. Layers come in the order of their numbers. A state dict does not say what is
between them, so the file's metadata does: `activation` between layers (relu where it says nothing), `output` after the
last one (nothing there).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import dscc
from dscc.errors import FrontendError, unknown

if TYPE_CHECKING:
    import numpy as np
    import tvm
    from tvm import relax

    Array = np.ndarray[Any, Any]


class SequentialFrontend(dscc.Frontend):
    """Reads multi-layer perceptrons from `.safetensors` files."""

    name: ClassVar[str] = "sequential"
    suffixes: ClassVar[tuple[str, ...]] = (".safetensors",)

    def load(self, model: Path | Any, options: dscc.CompileOptions) -> tvm.IRModule:
        tensors, metadata = _read(Path(model))
        layers = _layers(tensors, str(model))
        between = _activation(metadata.get("activation", "relu"), "activation", str(model))
        last = _activation(metadata.get("output", "none"), "output", str(model))
        return _build(layers, between, last, _batch(options, layers[0][0].shape[1]))


def _read(path: Path) -> tuple[dict[str, Array], Mapping[str, str]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FrontendError(f"model file '{path}' does not exist")
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    except SafetensorError as err:
        raise FrontendError(f"model file '{path}' is not a safetensors file: {err}") from err


def _layers(tensors: Mapping[str, Array], path: str) -> list[tuple[Array, Array | None]]:
    """Weight (outputs, inputs) and bias (outputs,) of every layer, in order, each fitting the one before."""
    for name, tensor in tensors.items():
        if not re.fullmatch(r"\d+\.(weight|bias)", name):
            raise FrontendError(f"'{path}': tensor '{name}' is of no linear layer; expected names like '0.weight'")
        if tensor.dtype != "float32":
            raise FrontendError(f"'{path}': tensor '{name}' is {tensor.dtype}; only float32 is read")
    numbers = sorted({int(name.partition(".")[0]) for name in tensors})
    if not numbers:
        raise FrontendError(f"'{path}' holds no tensors")
    layers: list[tuple[Array, Array | None]] = []
    for number in numbers:
        weight, bias = tensors.get(f"{number}.weight"), tensors.get(f"{number}.bias")
        if weight is None or weight.ndim != 2:
            raise FrontendError(f"'{path}': layer {number} needs a weight of two dimensions")
        if bias is not None and bias.shape != weight.shape[:1]:
            raise FrontendError(f"'{path}': bias of layer {number} has shape {bias.shape}, expected {weight.shape[:1]}")
        if layers and layers[-1][0].shape[0] != weight.shape[1]:
            before = layers[-1][0].shape[0]
            raise FrontendError(
                f"'{path}': layer {number} takes {weight.shape[1]} values, the one before gives {before}"
            )
        layers.append((weight, bias))
    return layers


def _activation(name: str, key: str, path: str) -> Callable[[relax.Expr], relax.Expr]:
    from tvm import relax

    known: dict[str, Callable[[relax.Expr], relax.Expr]] = {
        "none": lambda x: x,
        "relu": relax.op.nn.relu,
        "gelu": relax.op.nn.gelu,
        "silu": relax.op.nn.silu,
        "tanh": relax.op.tanh,
        "sigmoid": relax.op.sigmoid,
        "softmax": relax.op.nn.softmax,
    }
    if name not in known:
        raise FrontendError(f"'{path}': metadata '{key}': {unknown('activation', name, known)}")
    return known[name]


def _batch(options: dscc.CompileOptions, inputs: int) -> int | str:
    """The first dimension: symbolic, unless `--input x=8x16` fixes it."""
    for name in options.input_shapes:
        if name != "x":
            raise FrontendError(unknown("input", name, ["x"]))
    batch, *rest = options.input_shapes.get("x", ("batch", inputs))
    if rest != [inputs]:
        given = ", ".join(map(str, (batch, *rest)))
        raise FrontendError(f"input 'x' was given the shape ({given}); expected (batch, {inputs})")
    return batch


def _build(
    layers: list[tuple[Array, Array | None]],
    between: Callable[[relax.Expr], relax.Expr],
    last: Callable[[relax.Expr], relax.Expr],
    batch: int | str,
) -> tvm.IRModule:
    from tvm import relax, tirx

    rows = tirx.Var(batch, "int64") if isinstance(batch, str) else batch
    x = relax.Var("x", relax.TensorType((rows, layers[0][0].shape[1]), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            value = x
            for index, (weight, bias) in enumerate(layers):
                value = builder.emit(relax.op.matmul(value, relax.const(weight.T.copy())))
                if bias is not None:
                    value = builder.emit(relax.op.add(value, relax.const(bias)))
                value = builder.emit((last if index + 1 == len(layers) else between)(value))
            result = builder.emit_output(relax.Tuple([value]))
        builder.emit_func_output(result)
    module = builder.finalize()
    module["main"] = module["main"].with_attr("dscc.inputs", ["x"]).with_attr("dscc.outputs", ["y"])
    return module


@dscc.hookimpl
def dscc_frontends() -> list[type[dscc.Frontend]]:
    """The one front end of this package."""
    return [SequentialFrontend]
