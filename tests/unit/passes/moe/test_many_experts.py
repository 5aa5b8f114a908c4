"""Experts by the dozen: the rows of all of them, side by side, have a length of many terms."""

from __future__ import annotations

import pytest

from benchmarks.mixtures import MODELS, small
from dscc import compiler
from dscc.options import CompileOptions


@pytest.mark.parametrize("name", MODELS)
def test_the_grouped_form_is_recognised(name: str) -> None:
    options = CompileOptions()
    done = compiler.optimize(small(name, "grouped"), options, "", lambda stage: None)
    assert any(remark.startswith("fuse-experts: applied") for remark in done.ctx.remarks)
