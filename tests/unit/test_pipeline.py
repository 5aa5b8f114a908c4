"""The pipeline text: what it means, what it refuses and where it points, and what running tells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import pytest
import tvm
from tvm import relax

from dscc import pipeline
from dscc.errors import PipelineError
from dscc.passes.base import Pass, PassContext
from dscc.plugins import registry


@dataclass(frozen=True)
class Quantize(Pass):
    name = "quantize"
    bits: int = 8
    fraction: float = 0.5
    exact: bool = False
    mode: Literal["row", "column"] = "row"
    layer: str | None = None

    def __post_init__(self) -> None:
        if self.bits not in (4, 8):
            raise ValueError(f"bits must be 4 or 8, got {self.bits}")

    def run(self, mod: tvm.IRModule, ctx: PassContext) -> tvm.IRModule:
        ctx.remark("quantize ran")
        return mod


@dataclass(frozen=True)
class Late(Pass):
    name = "late"
    stage: ClassVar[str] = "layout"

    def run(self, mod: tvm.IRModule, ctx: PassContext) -> tvm.IRModule:
        return relax.transform.Normalize()(mod.clone())


@dataclass(frozen=True)
class Broken(Pass):
    name = "broken"

    def run(self, mod: tvm.IRModule, ctx: PassContext) -> tvm.IRModule:
        raise RuntimeError("no")


KNOWN: dict[str, type[Pass]] = {"quantize": Quantize, "late": Late, "broken": Broken}


def test_options_are_parsed_by_the_type_of_the_field() -> None:
    text = 'quantize{bits=4, fraction=1e-3 ,exact=true,mode=column,layer="a b"} , late'
    first, second = pipeline.parse(text, KNOWN).passes
    assert first == Quantize(bits=4, fraction=1e-3, exact=True, mode="column", layer="a b")
    assert second == Late()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "late",
        "quantize{bits=4},late",
        "quantize{layer=none}",
        'quantize{mode=column,layer="a b"}',
        "quantize{exact=true}",
    ],
)
def test_what_is_printed_parses_to_the_same(text: str) -> None:
    first = pipeline.parse(text, KNOWN)
    assert pipeline.parse(str(first), KNOWN) == first


def test_passes_run_by_stage() -> None:
    assert str(pipeline.parse("late,quantize", KNOWN)) == "quantize,late"


@pytest.mark.parametrize(
    ("text", "message", "column"),
    [
        ("late,quantise", "unknown pass 'quantise'; did you mean 'quantize'?", 5),
        ("quantize{bit=4}", "pass 'quantize': unknown option 'bit'; did you mean 'bits'?", 9),
        ("quantize{bits=four}", "pass 'quantize': bits must be an integer, got 'four'", 14),
        ("quantize{exact=1}", "pass 'quantize': exact must be true or false, got '1'", 15),
        ("quantize{mode=diagonal}", "pass 'quantize': mode must be row or column, got 'diagonal'", 14),
        ("quantize{bits=3}", "pass 'quantize': bits must be 4 or 8, got 3", 0),
        ("quantize{bits=4,bits=8}", "pass 'quantize': option 'bits' is given twice", 16),
        ("quantize{bits}", "expected '=' after option 'bits'", 13),
        ("quantize{bits=4 exact=true}", "expected ',' or '}'", 16),
        ("quantize{bits=4", "expected ',' or '}'", 15),
        ("late late", "expected ',' or '{' or the end, found 'l'", 5),
        ("late,", "expected a pass name, found the end", 5),
        (",late", "expected a pass name, found ','", 0),
        ("late{}}", "expected ',' or '{' or the end, found '}'", 6),
    ],
)
def test_mistakes_are_pointed_at(text: str, message: str, column: int) -> None:
    with pytest.raises(PipelineError) as caught:
        pipeline.parse(text, KNOWN)
    first, line, caret = str(caught.value).split("\n")
    assert first == message
    assert line == f"  {text}"
    assert caret.index("^") == column + 2


def test_a_level_out_of_range() -> None:
    with pytest.raises(PipelineError, match="optimization level must be 0 to 3, got 4"):
        pipeline.preset(4, KNOWN)


@pytest.mark.parametrize("level", range(4))
def test_presets_exist(level: int) -> None:
    found = pipeline.preset(level, registry().passes)
    assert bool(found.passes) == (level > 0)


def test_running_reports_and_dumps(tmp_path: Path) -> None:
    mod = tvm.IRModule({"main": _function()})
    ctx = PassContext(target=None)  # type: ignore[arg-type]
    stages: list[str] = []
    pipeline.parse("quantize,quantize,late", KNOWN).run(mod, ctx, dump=tmp_path / "dump", progress=stages.append)
    assert stages == ["graph", "layout"]
    assert ctx.remarks == ["quantize ran"] * 2
    dumped = sorted(path.name for path in (tmp_path / "dump").iterdir())
    assert dumped == ["00-input.py", "01-quantize.py", "02-quantize.py", "03-late.py"]
    assert "def main" in (tmp_path / "dump" / "01-quantize.py").read_text()


def test_an_exception_names_the_pass() -> None:
    with pytest.raises(RuntimeError) as caught:
        pipeline.parse("broken", KNOWN).run(tvm.IRModule({"main": _function()}), PassContext(target=None))  # type: ignore[arg-type]
    assert caught.value.__notes__ == ["while running pass 'broken'"]


def _function() -> relax.Function:
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((2, 3), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            result = builder.emit_output(relax.op.exp(x))
        builder.emit_func_output(result)
    return builder.get()["main"]
