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

from .graphs import FORMS, Graph, Style, dense_loop, model, unrolled

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


@pytest.mark.parametrize("style", [Style(shared=True), Style(shared=True, bias=True, experts=2, top=1)])
@pytest.mark.parametrize("form", ["unrolled", "dense loop"])
def test_experts_are_added_to_what_is_there(form: str, style: Style) -> None:
    """The output of a shared expert, to which the others' are added one by one."""
    made = model(FORMS[form], style)
    assert [text.split(" ")[1] for text in remarks(made)] == ["applied"]
    compare(made, *(tokens(count, style.hidden) for count in (1, 7, 40)))


def test_what_is_added_in_the_middle_stays_in_the_sum() -> None:
    """A residual before the last expert of one layer, and another layer after it."""

    def twice(g: Graph, x: str, style: Style) -> str:
        first = dense_loop(g, x, style)
        *_, last = (node for node in g.nodes if node.op_type == "Add")
        last.input[0] = g.Add(last.input[0], x)
        g.nodes.append(g.nodes.pop(g.nodes.index(last)))
        return unrolled(g, first, style)

    made = model(twice, Style(top=1, router="plain"))
    assert [text.split(" ")[1] for text in remarks(made)] == ["applied"] * 2
    compare(made, *(tokens(count, 12) for count in (1, 7, 40)))


def test_a_device_without_a_rule_for_it_keeps_what_is_written() -> None:
    """It would run on the host, and take the model's largest weights there."""
    (said,) = remarks(model(FORMS["batched"], STYLES["SwiGLU"]), "cuda:sm_90")
    assert said.endswith("target 'cuda' has no rule for it, and would run it on the host")
