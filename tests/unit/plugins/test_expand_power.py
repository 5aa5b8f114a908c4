"""The example pass, installed: it is found, and what it writes computes what was written."""

import numpy as np
import pytest
import tvm
from tvm import relax

from dscc import targets
from dscc.errors import PipelineError
from dscc.passes.base import PassContext
from dscc.pipeline import parse
from dscc.plugins import registry


def test_it_is_installed_and_attributed() -> None:
    owner = registry().owner("pass", "expand-power") if "expand-power" in registry().passes else None
    assert owner is not None, "the example plug-ins are not installed; run `make venv`"
    assert (owner.origin, owner.distribution, owner.version) == ("entry point", "dscc-expand-power", "1.0.0")
    assert registry().versions([("pass", "expand-power")]) == {"expand-power": "1.0.0"}


def test_installing_it_changes_no_preset() -> None:
    from dscc.pipeline import PRESETS

    assert not any("expand-power" in text for preset in PRESETS for text in preset)


@pytest.mark.parametrize("power", [1, 2, 3, 7, 8, -1, -3])
def test_numbers(power: int) -> None:
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((5, 3), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            result = builder.emit_output(relax.op.power(x, relax.const(float(power), "float32")))
        builder.emit_func_output(result)
    ctx = PassContext(targets.resolve(None))
    mod = parse("expand-power", registry().passes).run(builder.finalize(), ctx)
    assert "R.power" not in mod.script()
    machine = relax.VirtualMachine(tvm.compile(mod, tvm.target.Target({"kind": "llvm"})), tvm.cpu())
    values = np.random.default_rng(0).uniform(0.5, 2, (5, 3)).astype("float32")
    np.testing.assert_allclose(machine["main"](tvm.runtime.tensor(values)).numpy(), values**power, rtol=1e-6)


def test_its_options_are_checked() -> None:
    with pytest.raises(PipelineError, match="pass 'expand-power': limit must be at least 1, got 0"):
        parse("expand-power{limit=0}", registry().passes)
