"""Everything that a run on the device needs, in one folder: artifacts, inputs, and what onnxruntime makes of them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import dscc
from benchmarks import models
from benchmarks.device import seeds

PRODUCTS = (1024, 2048, 4096, 8192)  # rows, columns and depth


@dataclass(frozen=True)
class Network:
    """A network of benchmarks/models.json.

    Attributes:
        name: its name there.
        inputs: dimensions that are fixed, as `--input` takes them.
        check: dimensions of the inputs that are compared with onnxruntime.
    """

    name: str
    inputs: Mapping[str, tuple[int | str, ...]]
    check: Mapping[str, int]


NETWORKS = (
    Network("resnet50", {"input": ("batch", 3, 224, 224)}, {"batch": 2}),
    Network("bert_base", {}, {"batch": 2, "sequence": 37}),
    Network("llama_8x1024", {}, {"batch": 2, "sequence": 9, "past": 21, "total": 30}),
)


def build(folder: Path, target: str) -> None:
    """Compile products and networks for `target`, products in halves and networks with `--precision fp16`."""
    folder.mkdir(parents=True, exist_ok=True)
    for size in PRODUCTS:
        dscc.compile(product(size), target=target).save(folder / f"product_{size}.dscc")
    for network in NETWORKS:
        with tempfile.TemporaryDirectory() as scratch:
            planted, compiled = Path(scratch) / "model.onnx", Path(scratch) / "model.dscc"
            spread = seeds.plant(models.fetch(network.name), planted)
            dscc.compile(planted, target=target, precision="fp16", input_shapes=network.inputs).save(compiled)
            seeds.shrink(compiled, spread, folder / f"{network.name}.light")
            np.savez_compressed(folder / f"{network.name}.npz", **expected(network, planted))  # type: ignore[arg-type]


def product(size: int) -> object:
    """The product of two matrices of halves, as an ONNX model."""
    from onnx import TensorProto, helper

    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, (size, size)) for name in "aby"]
    node = helper.make_node("MatMul", ["a", "b"], ["y"])
    graph = helper.make_graph([node], "product", infos[:2], infos[2:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def expected(network: Network, path: Path) -> dict[str, np.ndarray]:
    """Inputs as `in_NAME`, and outputs of onnxruntime in float32 as `out_NAME`: of each the first 2,000 columns."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(3)
    feeds: dict[str, np.ndarray] = {}
    for given in session.get_inputs():
        shape = dims(network, given.name, len(given.shape))
        if "int64" not in given.type:
            feeds[given.name] = rng.standard_normal(shape).astype(np.float32)
        elif "ids" in given.name and "type" not in given.name:
            feeds[given.name] = rng.integers(0, 30000, shape)
        else:
            feeds[given.name] = np.full(shape, int("mask" in given.name), np.int64)
    outputs = zip((o.name for o in session.get_outputs()), session.run(None, feeds), strict=True)
    kept = {f"out_{name}": value[..., :2000] for name, value in outputs if not name.startswith("present")}
    return {**{f"in_{name}": value for name, value in feeds.items()}, **kept}


def dims(network: Network, name: str, rank: int) -> tuple[int, ...]:
    """The shape of an input for `check`: an image, tokens, or the past of a cache."""
    sizes = network.check
    if rank == 2:
        return sizes["batch"], sizes["total"] if name == "attention_mask" and "total" in sizes else sizes["sequence"]
    return (sizes["batch"], 4, sizes["past"], 64) if name.startswith("past") else (sizes["batch"], 3, 224, 224)
