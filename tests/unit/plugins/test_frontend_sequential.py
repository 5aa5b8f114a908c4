"""The example front end, installed: it reads what PyTorch writes, and refuses what is none."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dscc
from dscc.errors import FrontendError

safetensors = pytest.importorskip("safetensors.numpy", reason="the example plug-ins are not installed; run `make venv`")
rng = np.random.default_rng(0)


def f32(*shape: int) -> Any:
    return rng.standard_normal(shape).astype("float32")


TENSORS = {"0.weight": f32(6, 4), "0.bias": f32(6), "2.weight": f32(3, 6), "10.weight": f32(2, 3), "10.bias": f32(2)}


def test_it_reads_layers_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    safetensors.save_file(TENSORS, path, {"activation": "tanh", "output": "sigmoid"})
    module = dscc.compile(path).load()
    x = f32(5, 4)
    a = np.tanh(x @ TENSORS["0.weight"].T + TENSORS["0.bias"])
    b = np.tanh(a @ TENSORS["2.weight"].T)
    want = 1 / (1 + np.exp(-(b @ TENSORS["10.weight"].T + TENSORS["10.bias"])))
    np.testing.assert_allclose(module.run(["y"], {"x": x})[0], want, rtol=1e-5)
    assert [(info.name, info.shape) for info in module.get_inputs()] == [("x", ["batch", 4])]


@pytest.mark.parametrize(
    ("tensors", "metadata", "said"),
    [
        ({}, None, "holds no tensors"),
        ({"encoder.weight": f32(2, 2)}, {}, "tensor 'encoder.weight' is of no linear layer"),
        ({"0.weight": f32(2, 2).astype("float64")}, {}, "tensor '0.weight' is float64; only float32 is read"),
        ({"0.bias": f32(2)}, {}, "layer 0 needs a weight of two dimensions"),
        ({"0.weight": f32(2, 2), "0.bias": f32(3)}, {}, r"bias of layer 0 has shape \(3,\), expected \(2,\)"),
        ({"0.weight": f32(2, 2), "1.weight": f32(2, 3)}, {}, "layer 1 takes 3 values, the one before gives 2"),
        ({"0.weight": f32(2, 2)}, {"output": "sofmax"}, "unknown activation 'sofmax'; did you mean 'softmax'"),
    ],
)
def test_it_refuses(tensors: Any, metadata: dict[str, str] | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    safetensors.save_file(tensors, path, metadata)
    with pytest.raises(FrontendError, match=said):
        dscc.compile(path)


def test_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(FrontendError, match="does not exist"):
        dscc.compile(path)
    path.write_text("hello, world")
    with pytest.raises(FrontendError, match="is not a safetensors file"):
        dscc.compile(path)


def test_a_shape_that_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    safetensors.save_file(TENSORS, path)
    with pytest.raises(FrontendError, match=r"input 'x' was given the shape \(1, 5\); expected \(batch, 4\)"):
        dscc.compile(path, input_shapes={"x": (1, 5)})
