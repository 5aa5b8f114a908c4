"""A model with gigabytes of weights: what memory it takes to compile, and whether it loads and runs.

    python -m benchmarks.large --gigabytes 3 --folder /tmp/large

A chain of products and hyperbolic tangents, written to a folder outside of the repository; half of the weights have to
be transposed, all are packed. Each step runs in a process of its own. Two figures are reported of each: the most that
was resident, which is what `/usr/bin/time -v` reports and includes pages of files that the system may drop at any time,
and the most that was in anonymous memory, which it may not.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

Array = np.ndarray[Any, np.dtype[Any]]

# What is resident before anything large is: the interpreter, TVM and LLVM, and onnx.
FIXED_BYTES = 1 << 30
RATIO = 1.5

_WATCHED = """
import json, sys, threading, time

most = 0

def status(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))

def watch():
    global most
    while True:
        most = max(most, status("RssAnon"))
        time.sleep(0.01)

threading.Thread(target=watch, daemon=True).start()
started = time.perf_counter()
{work}
print(json.dumps({{
    "seconds": time.perf_counter() - started,
    "resident": status("VmHWM"),  # not ru_maxrss, which begins with what the parent had when it forked
    "anonymous": most,
}}))
"""
_COMPILE = """
from pathlib import Path
import dscc
dscc.compile(Path(sys.argv[1]), jobs=1).save(sys.argv[2])
"""
_RUN = """
import numpy as np
import dscc
x = np.load(sys.argv[3])
np.save(sys.argv[4], dscc.load(sys.argv[2]).run(None, {"x": x})[0])
"""


@dataclass(frozen=True)
class Peak:
    """What a process took: `resident` with pages of files, `anonymous` without."""

    seconds: float
    resident_bytes: int
    anonymous_bytes: int

    def __str__(self) -> str:
        return (
            f"{self.seconds:.1f} s, {self.resident_bytes / 1e6:.0f} MB resident at most, "
            f"{self.anonymous_bytes / 1e6:.0f} MB of it anonymous at most"
        )


@dataclass(frozen=True)
class Chain:
    """y = tanh(.. tanh(tanh(x W0) W1') ..), with `count` weights of `size` x `size`.

    Attributes:
        inline: the weights are in the model file, which has to stay below 2 GB; else in a file beside it.
    """

    folder: Path
    count: int
    size: int
    inline: bool = False

    @property
    def weight_bytes(self) -> int:
        return 4 * self.count * self.size**2

    @property
    def model(self) -> Path:
        return self.folder / "model.onnx"

    def weights(self) -> Iterator[Array]:
        """One after the other; no two are the same."""
        block = np.random.default_rng(0).standard_normal((self.size, self.size)).astype(np.float32)
        block /= np.sqrt(np.float32(self.size))
        for index in range(self.count):
            yield np.roll(block, index, axis=index % 2)

    def write(self) -> None:
        """Write the model and its weights."""
        self.folder.mkdir(parents=True, exist_ok=True)
        nodes, tensors = [], []
        value = "x"
        with open(self.folder / "weights.bin", "wb") as file:
            for index, weight in enumerate(self.weights()):
                tensor = TensorProto(name=f"w{index}", data_type=TensorProto.FLOAT, dims=weight.shape)
                if self.inline:
                    tensor.raw_data = weight.tobytes()
                else:
                    tensor.data_location = TensorProto.EXTERNAL
                    places = (("location", "weights.bin"), ("offset", file.tell()), ("length", weight.nbytes))
                    for key, text in places:
                        tensor.external_data.add(key=key, value=str(text))
                    file.write(weight.data)
                tensors.append(tensor)
                names = [value, tensor.name], [f"p{index}"]
                plain = index % 2 == 0
                nodes.append(
                    helper.make_node("MatMul", *names) if plain else helper.make_node("Gemm", *names, transB=1)
                )
                nodes.append(helper.make_node("Tanh", [f"p{index}"], [f"h{index}"]))
                value = f"h{index}"
        info = helper.make_tensor_value_info
        shape: list[int | str] = ["rows", self.size]
        graph = helper.make_graph(nodes, "chain", [info("x", 1, shape)], [info(value, 1, shape)])
        graph.initializer.extend(tensors)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        self.model.write_bytes(model.SerializeToString())

    def expected(self, x: Array) -> Array:
        """The output, by NumPy."""
        for index, weight in enumerate(self.weights()):
            x = np.tanh(x @ (weight if index % 2 == 0 else weight.T))
        return x

    def compile(self) -> Peak:
        return self._watched(_COMPILE)

    def run(self, x: Array) -> tuple[Peak, Array]:
        """Load and run the artifact: what it took, and the output."""
        np.save(self.folder / "x.npy", x)
        peak = self._watched(_RUN)
        return peak, np.load(self.folder / "y.npy")

    def _watched(self, work: str) -> Peak:
        files = [self.model, *(self.folder / name for name in ("model.dscc", "x.npy", "y.npy"))]
        script = _WATCHED.format(work=textwrap.dedent(work))
        done = subprocess.run(
            [sys.executable, "-c", script, *map(str, files)], check=True, stdout=subprocess.PIPE, text=True
        )
        found = json.loads(done.stdout.splitlines()[-1])
        return Peak(found["seconds"], found["resident"], found["anonymous"])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large", description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=3.0, help="of weights")
    parser.add_argument("--size", type=int, default=4096, help="rows and columns of a weight")
    parser.add_argument("--inline", action="store_true", help="weights in the model file; below 2 GB")
    parser.add_argument("--folder", type=Path, required=True, help="a new one, outside of the repository")
    args = parser.parse_args()
    if args.folder.exists():
        parser.error(f"'{args.folder}' exists; name a new folder")
    chain = Chain(args.folder, max(1, round(args.gigabytes * 1e9 / 4 / args.size**2)), args.size, args.inline)
    try:
        chain.write()
        print(f"{chain.count} weights, {chain.weight_bytes / 1e6:.0f} MB in all; onnx {onnx.__version__}", flush=True)
        peak = chain.compile()
        allowed = RATIO * chain.weight_bytes + FIXED_BYTES
        print(f"compile: {peak}; allowed: {allowed / 1e6:.0f} MB", flush=True)
        x = np.random.default_rng(1).standard_normal((3, args.size)).astype(np.float32)
        ran, got = chain.run(x)
        error = float(np.abs(got - chain.expected(x)).max())
        print(f"load and run: {ran}; error {error:.2g}")
        return int(peak.resident_bytes > allowed or error > 1e-4)
    finally:
        shutil.rmtree(args.folder)


if __name__ == "__main__":
    sys.exit(main())
