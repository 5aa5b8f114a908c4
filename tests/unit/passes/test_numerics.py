"""Every lit case of a pass computes the same before and after its pass: random inputs, on the CPU, compiled by stock
TVM.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm import relax, tirx

from dscc import targets
from dscc.passes.base import PassContext
from dscc.passes.lower import legalize
from dscc.passes.values import dims, dtype
from dscc.pipeline import parse
from dscc.plugins import registry

CASES = sorted((Path(__file__).parents[2] / "lit" / "passes").rglob("*.py"))
ODD = (3, 5, 7)  # what symbolic dimensions are bound to, in turn


def read(path: Path) -> tuple[str, tvm.IRModule]:
    """The pipeline text of the first RUN line, and the module in the file."""
    text = path.read_text()
    found = re.search(r"RUN:.*? -p (\S+)", text)
    assert found is not None, f"{path} has no RUN line with -p"
    return found[1].strip("'\""), tvm.script.from_source(text)


def inputs(func: relax.Function, rng: np.random.Generator) -> list[np.ndarray]:
    """Random arguments for `func`, symbolic dimensions bound to small odd numbers."""
    sizes: dict[tirx.Var, int] = {}
    made = []
    for param in func.params:
        shape = [d if isinstance(d, int) else sizes.setdefault(d, ODD[len(sizes) % len(ODD)]) for d in dims(param)]
        kind = np.dtype(dtype(param))
        if kind.kind == "f":
            made.append(rng.standard_normal(shape).astype(kind))
        elif kind.kind == "b":
            made.append(rng.random(shape) < 0.5)
        else:
            made.append(rng.integers(0, 3, shape).astype(kind))
    return made


def execute(mod: tvm.IRModule, feeds: dict[str, list[np.ndarray]]) -> dict[str, list[np.ndarray]]:
    """What every function of `mod` returns; compiled without optimisation, which is quick and leaves the arithmetic
    as written.
    """
    for gvar, func in mod.functions_items():
        mod[gvar] = func.with_attr("global_symbol", gvar.name_hint)
    mod = relax.transform.LegalizeOps(legalize.table())(mod)  # TVM itself has no transposed convolution in NHWC
    target = tvm.target.Target({"kind": "llvm", "opt-level": 0})
    machine = relax.VirtualMachine(tvm.compile(mod, target), tvm.cpu())
    results = {}
    for name, arrays in feeds.items():
        value = machine[name](*[tvm.runtime.tensor(a) for a in arrays])
        results[name] = [v.numpy() for v in _leaves(value)]
    return results


def _leaves(value: object) -> list[tvm.runtime.Tensor]:
    return [value] if isinstance(value, tvm.runtime.Tensor) else [leaf for each in value for leaf in _leaves(each)]


def check_same(mod: tvm.IRModule, text: str) -> tvm.IRModule:
    """Run the pipeline `text` on `mod`, compare numbers before and after, and return what came out."""
    pipeline = parse(text, registry().passes)
    after = pipeline.run(mod, PassContext(targets.resolve(None)))
    assert relax.analysis.check_well_formed(after)
    rng = np.random.default_rng(0)
    feeds = {gvar.name_hint: inputs(func, rng) for gvar, func in mod.functions_items()}
    tolerance = max((getattr(each, "tolerance", 1e-5) for each in pipeline.passes), default=0.0)
    expected, actual = execute(mod.clone(), feeds), execute(after.clone(), feeds)
    for name, values in expected.items():
        assert len(values) == len(actual[name])
        for want, got in zip(values, actual[name], strict=True):
            assert want.shape == got.shape and want.dtype == got.dtype, name
            scale = float(np.abs(want).max(initial=1e-6)) if want.dtype.kind == "f" else 1.0
            np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * scale, err_msg=name)
    return after


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_same_numbers(path: Path) -> None:
    text, mod = read(path)
    check_same(mod, text)
