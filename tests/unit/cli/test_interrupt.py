"""Ctrl-C and `kill -9` in the middle of a compile leave no partial artifact."""

import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

LAYERS = 12


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Different products in a row: enough kernels that compiling them takes seconds."""
    rng = np.random.default_rng(0)
    sizes = [8 * (i + 1) for i in range(LAYERS + 1)]
    weights = [
        numpy_helper.from_array(rng.standard_normal((a, b)).astype("float32"), f"w{i}")
        for i, (a, b) in enumerate(pairwise(sizes))
    ]
    values = ["x", *(f"v{i}" for i in range(1, LAYERS)), "y"]
    nodes = [helper.make_node("MatMul", [values[i], f"w{i}"], [values[i + 1]]) for i in range(LAYERS)]
    infos = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", sizes[0]]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", sizes[-1]]),
    ]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], weights)
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    return path


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_nothing_is_left(model: Path, tmp_path: Path, number: signal.Signals, status: int) -> None:
    command = [sys.executable, "-m", "dscc.cli", "compile", str(model), "-o", str(tmp_path / "model.dscc")]
    compiling = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert compiling.stderr
    first = compiling.stderr.readline()  # the first stage is over, and the others are not
    compiling.send_signal(number)
    rest = compiling.stderr.read()
    assert compiling.wait() == status, first + rest
    assert list(tmp_path.iterdir()) == []
    assert "Traceback" not in rest
    assert number == signal.SIGKILL or rest.endswith("dscc: error: interrupted\n")
