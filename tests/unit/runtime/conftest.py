"""Small artifacts, built without dscc's compiler, so that the runtime is tested by itself."""

import platform
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from dscc.artifact import Artifact, Manifest, TensorSpec

SCALE = np.arange(64, dtype=np.float32)


@I.ir_module
class Scale:
    """`scaled = x * scale`, by a parallel loop that assumes aligned memory; the other outputs are memory of others."""

    @T.prim_func(s_tir=True)
    def scale(x: T.handle, s: T.handle, y: T.handle):
        n = T.int64()
        X = T.match_buffer(x, (n, 64), "float32")
        S = T.match_buffer(s, (64,), "float32")
        Y = T.match_buffer(y, (n, 64), "float32")
        for i in T.parallel(n):
            for j in T.vectorized(64):
                Y[i, j] = X[i, j] * S[j]

    @R.function
    def main(x: R.Tensor(("n", 64), "float32"), s: R.Tensor((64,), "float32")):
        n = T.int64()
        cls = Scale
        with R.dataflow():
            y = R.call_tir(cls.scale, (x, s), R.Tensor((n, 64), "float32"))
            R.output(y)
        return (y, x, s)


@I.ir_module
class Pair:
    """Two inputs that share a dimension, of other types; no weights; one result that is not in a tuple."""

    @R.function
    def main(ids: R.Tensor(("batch", "length"), "int64"), mask: R.Tensor(("batch", "length"), "bool")):
        with R.dataflow():
            y = R.where(mask, ids, R.negative(ids))
            R.output(y)
        return y


@I.ir_module
class Zero:
    """A tensor without dimensions, in double precision."""

    @R.function
    def main(x: R.Tensor((), "float64")):
        with R.dataflow():
            y = R.add(x, R.const(1.0, "float64"))
            R.output(y)
        return (y,)


@I.ir_module
class Match:
    """Fails where the rows of `x` are not `rows` in number: a shape that depends on data."""

    @R.function
    def main(x: R.Tensor(("n", 2), "float32"), rows: R.Tensor((1,), "int64")) -> R.Tensor(ndim=2, dtype="float32"):
        m = T.int64()
        shape = R.tensor_to_shape(rows)
        _ = R.match_cast(shape, R.Shape([m]))
        zeros = R.zeros(R.shape([m, 2]), "float32")
        same = R.match_cast(x, R.Tensor((m, 2), "float32"))
        y = R.add(same, zeros)
        return y


@I.ir_module
class Largest:
    """Calls a function that TVM keeps in a library apart."""

    @R.function
    def main(x: R.Tensor(("n", 10), "float32")):
        with R.dataflow():
            y = R.topk(x, k=3)
            R.output(y)
        return y


def spec(name: str, dtype: str, *shape: int | str) -> TensorSpec:
    return TensorSpec(name, dtype, shape)


PROGRAMS = {
    "scale": (
        Scale,
        (spec("x", "float32", "n", 64),),
        (spec("y", "float32", "n", 64), spec("same", "float32", "n", 64), spec("scale", "float32", 64)),
        {"s": SCALE},
    ),
    "pair": (
        Pair,
        (spec("ids", "int64", "batch", "length"), spec("mask.1", "bool", "batch", "length")),
        (spec("signed", "int64", "batch", "length"),),
        {},
    ),
    "zero": (Zero, (spec("x", "float64"),), (spec("y", "float64"),), {}),
    "largest": (
        Largest,
        (spec("x", "float32", "n", 10),),
        (spec("values", "float32", "n", 3), spec("indices", "int32", "n", 3)),
        {},
    ),
    "match": (
        Match,
        (spec("x", "float32", "n", 2), spec("rows", "int64", 1)),
        (spec("y", "float32", "n", 2),),
        {},
    ),
}


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Artifact]:
    """`artifact("scale")`: one of PROGRAMS, compiled by TVM alone."""
    compiler = shutil.which("cc") or pytest.skip("there is no C compiler")
    folder = tmp_path_factory.mktemp("programs")
    threads = folder / "parallel.o"
    source = Path(__file__).parents[3] / "dscc/runtime/parallel.c"
    subprocess.run(
        [compiler, "-O2", "-fPIC", "-Wall", "-Wextra", "-Werror", "-c", str(source), "-o", str(threads)], check=True
    )
    made: dict[str, Artifact] = {}

    def make(name: str) -> Artifact:
        if name not in made:
            program, inputs, outputs, weights = PROGRAMS[name]
            library = folder / f"{name}.so"
            built = relax.build(program, target=tvm.target.Target("llvm"))
            built.export_library(str(library), addons=[str(threads)])
            made[name] = Artifact.build(library, weights, Manifest(inputs, outputs, "x86:test", platform.machine()))
        return made[name]

    return make
