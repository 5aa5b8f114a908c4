"""Mixtures of experts in the forms of exporters: all become the operator, and compute what onnxruntime does."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

import dscc
from dscc import frontends, pipeline, targets
from dscc.options import CompileOptions
from dscc.passes.base import PassContext
from dscc.plugins import registry

from .graphs import FORMS, Style, model

CLEAN = "fold-constants,simplify-shapes,simplify-arithmetic,eliminate-common-subexpressions"
STYLES = {
    "SwiGLU": Style(),
    "clipped, biased, softmax of the best": Style(router="topk-softmax", activation="clipped", bias=True),
    "plain, not renormalised": Style(router="plain", activation="relu", gated=False, bias=True),
    "sigmoid in groups": Style(router="sigmoid", activation="gelu"),
    "one expert": Style(top=1, router="plain"),
}


def remarks(made: onnx.ModelProto, target: str | None = None) -> list[str]:
    ctx = PassContext(targets.resolve(target))
    mod = frontends.find(made).load(made, CompileOptions())
    pipeline.parse(f"{CLEAN},fuse-experts", registry().passes).run(mod, ctx)
    return [text for text in ctx.remarks if text.startswith("fuse-experts")]


def tokens(count: int, hidden: int) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, hidden)).astype(np.float32)


def compare(made: onnx.ModelProto, *rows: np.ndarray) -> None:
    run = dscc.compile(made, jobs=1).load().run
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    for x in rows:
        want = session.run(None, {"x": x})[0]
        most = float(np.abs(want).max(initial=0))
        np.testing.assert_allclose(run(None, {"x": x})[0], want, atol=1e-5 * most, rtol=0)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("form", FORMS)
def test_the_form_is_recognised(form: str, style: str) -> None:
    assert [text.split(" ")[1] for text in remarks(model(FORMS[form], STYLES[style]))] == ["applied"]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("form", FORMS)
def test_it_computes_the_same(form: str, style: str) -> None:
    compare(model(FORMS[form], STYLES[style]), *(tokens(count, STYLES[style].hidden) for count in (0, 1, 2, 9, 40)))


@pytest.mark.parametrize("form", FORMS)
def test_all_tokens_choose_the_same_experts_and_some_get_none(form: str) -> None:
    style = STYLES["SwiGLU"]
    compare(model(FORMS[form], style), np.repeat(tokens(1, style.hidden), 30, axis=0))


def test_a_device_without_a_rule_for_it_keeps_what_is_written() -> None:
    """It would run on the host, and take the model's largest weights there."""
    (said,) = remarks(model(FORMS["batched"], STYLES["SwiGLU"]), "cuda:sm_90")
    assert said.endswith("target 'cuda' has no rule for it, and would run it on the host")
