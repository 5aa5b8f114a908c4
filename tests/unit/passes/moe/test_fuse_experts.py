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
from dscc.schedule.experts.facts import mixture_of
from dscc.schedule.experts.mixture import Mixture

from .graphs import FORMS, Form, Graph, Style, dense_loop, halved, model, scaled, scaled_loop, unrolled

CLEAN = "fold-constants,simplify-shapes,simplify-arithmetic,eliminate-common-subexpressions"
STYLES = {
    "SwiGLU": Style(),
    "clipped, biased, softmax of the best": Style(router="topk-softmax", activation="clipped", bias=True),
    "plain, not renormalised": Style(router="plain", activation="relu", gated=False, bias=True),
    "sigmoid in groups": Style(router="sigmoid", activation="gelu"),
    "one expert": Style(top=1, router="plain"),
}


def fused(made: onnx.ModelProto, target: str | None = None) -> tuple[list[str], list[Mixture]]:
    """What the pass says, and the mixtures that it makes."""
    ctx = PassContext(targets.resolve(target))
    mod = frontends.find(made).load(made, CompileOptions())
    mod = pipeline.parse(f"{CLEAN},fuse-experts,eliminate-dead-code", registry().passes).run(mod, ctx)
    mixtures = [found for func in mod.functions.values() if (found := mixture_of(func)) is not None]
    return [text for text in ctx.remarks if text.startswith("fuse-experts")], mixtures


def remarks(made: onnx.ModelProto, target: str | None = None) -> list[str]:
    return fused(made, target)[0]


def tokens(count: int, hidden: int) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, hidden)).astype(np.float32)


def compare(made: onnx.ModelProto, *rows: np.ndarray, tolerance: float = 1e-5) -> None:
    run = dscc.compile(made, jobs=1).load().run
    options = onnxruntime.SessionOptions()
    # With them it rounds what is multiplied with weights of few bits to 8 bits.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for x in rows:
        want = session.run(None, {"x": x})[0]
        most = float(np.abs(want).max(initial=0))
        np.testing.assert_allclose(run(None, {"x": x})[0], want, atol=tolerance * most, rtol=0)


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


@pytest.mark.parametrize(
    "style",
    [Style(shared=True, added=True), Style(shared=True, bias=True, experts=2, top=1, added=True), Style(added=True)],
)
@pytest.mark.parametrize("form", ["unrolled", "dense loop", "grouped"])
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


@pytest.mark.parametrize("form", ["grouped", "batched", "unrolled"])
def test_choices_are_put_together(form: str) -> None:
    made = model(FORMS[form], Style(router="best twice"))
    assert [text.split(" ")[1] for text in remarks(made)] == ["applied"]
    compare(made, *(tokens(count, 12) for count in (1, 7, 40)))


def test_shares_of_all_experts_are_not_those_of_choices_that_may_be_the_same() -> None:
    """Of two shares of one expert the second one is left there, and would count twice."""
    (said,) = remarks(model(FORMS["dense loop"], Style(router="best twice")))
    assert said.split(" ")[1] == "refused"


@pytest.mark.parametrize("form", FORMS)
def test_the_number_of_tokens_is_known(form: str) -> None:
    made = model(FORMS[form], STYLES["SwiGLU"], (5,))
    assert [text.split(" ")[1] for text in remarks(made)] == ["applied"]
    compare(made, tokens(5, 12))


@pytest.mark.parametrize("form", ["batched", "unrolled", "dense loop", "dense batched"])
def test_a_model_in_float16(form: str) -> None:
    made = halved(model(FORMS[form], kept("float32")))
    said, (mixture,) = fused(made)
    assert [text.split(" ")[1] for text in said] == ["applied"]
    assert (mixture.first.bits, mixture.second.bits) == (16, 16)
    if form == "unrolled":
        return  # onnxruntime doesn't add rows in float16
    compare(made, *(tokens(count, 128).astype(np.float16) for count in (1, 9)), tolerance=5e-3)


@pytest.mark.parametrize("tokens_", [("batch", "length"), (2, "length"), ("a", 1, "b"), ("a", 2, "b")])
@pytest.mark.parametrize(
    ("form", "style"),
    [
        ("batched", Style()),
        ("batched", Style(top=1, router="plain")),
        ("batched", Style(router="best twice")),
        ("dense loop", Style(shared=True)),
        ("dense loop", Style(hot=True, bias=True)),
        ("dense loop", Style(top=1, router="plain")),
    ],
)
def test_tokens_in_several_dimensions(form: str, style: Style, tokens_: tuple[int | str, ...]) -> None:
    made = model(FORMS[form], style, tokens_)
    assert [text.split(" ")[1] for text in remarks(made)] == ["applied"]
    if tokens_ == ("batch", "length"):
        x = np.random.default_rng(3).standard_normal((3, 7, style.hidden)).astype(np.float32)
        compare(made, x, x[:1], x[:, :1])


def test_the_same_rows_for_every_sequence_are_not_rows_of_tokens() -> None:
    """Shares (batch, length) of what is computed once for all of a batch."""

    def positions(g: Graph, x: str, style: Style) -> str:
        row = g.Unsqueeze(g.ReduceMean(x, g.const([0]), keepdims=0), g.const([0]))
        made = dense_loop(g, x, style)
        for node in g.nodes:
            if node.op_type == "MatMul" and node.input[0] == x and node is not g.nodes[2]:
                node.input[0] = row
        return made

    made = model(positions, Style(), ("batch", "length"))
    assert all(text.split(" ")[1] == "refused" for text in remarks(made))
    x = np.random.default_rng(3).standard_normal((3, 7, 12)).astype(np.float32)
    compare(made, x)


@pytest.mark.parametrize("form", [scaled, scaled_loop])
@pytest.mark.parametrize(
    "style", [Style(top=1), Style(router="softmax"), Style(gated=False, activation="relu"), Style(activation="gelu")]
)
def test_experts_whose_input_is_scaled(form: Form, style: Style) -> None:
    made = model(form, style)
    assert [text.split(" ")[1] for text in remarks(made)] == ["applied"]
    compare(made, *(tokens(count, 12) for count in (1, 7, 40)))


def test_experts_that_make_something_of_nothing_are_computed_for_all_tokens() -> None:
    """With biases, also an expert that was not chosen adds something; so does one whose share is half for that."""
    for form, style in ((scaled, Style(bias=True)), (scaled_loop, Style(bias=True)), (half, Style())):
        (said,) = remarks(model(form, style))
        assert "refused" in said
        assert "an expert that was not chosen adds something" in said or "that were not chosen are not zero" in said


def half(g: Graph, x: str, style: Style) -> str:
    """Sigmoids of what is zero for those that were not chosen."""

    def open_(*inputs: str, **attributes: int) -> str:
        return g.Sigmoid(g.several("ScatterElements", 1, *inputs, **attributes)[0])

    g.ScatterElements = open_  # type: ignore[method-assign]
    return dense_loop(g, x, style)


# The bits and the block of the operator's weights for every way in which those of a model are kept.
KEPT = {
    "float16": (16, 0),
    "bfloat16": (16, 0),
    "int8 tensor": (8, 0),
    "int8 columns": (8, 0),
    "uint8 columns": (8, 0),
    "int8 blocks": (8, 32),
    "int4 columns": (4, 0),
    "int4 blocks": (4, 32),
    "uint4 blocks": (4, 32),
    "int8 columns of float16": (8, 0),
}


def kept(kind: str) -> Style:
    """Weights that are too large for their reals to be folded."""
    return Style(hidden=128, inner=288, block=32, weights=kind, bias=True)


@pytest.mark.parametrize("kind", KEPT)
@pytest.mark.parametrize("form", FORMS)
def test_weights_stay_as_they_are_kept(form: str, kind: str) -> None:
    said, (mixture,) = fused(model(FORMS[form], kept(kind)))
    assert [text.split(" ")[1] for text in said] == ["applied"]
    for storage in (mixture.first, mixture.second):
        assert (storage.bits, storage.block) == KEPT[kind]


@pytest.mark.parametrize(
    ("form", "kind"),
    [
        *((form, "uint4 blocks") for form in FORMS),
        *((("batched", "grouped")[i % 2], kind) for i, kind in enumerate(KEPT)),
    ],
)
def test_weights_are_expanded(form: str, kind: str) -> None:
    tolerance = 2e-3 if kind.endswith("of float16") else 1e-5
    compare(model(FORMS[form], kept(kind)), *(tokens(count, 128) for count in (1, 9, 30)), tolerance=tolerance)


@pytest.mark.parametrize("form", ["grouped", "unrolled", "dense loop"])
def test_products_of_packed_weights(form: str) -> None:
    made = model(FORMS[form], kept("MatMulNBits"))
    said, (mixture,) = fused(made)
    assert [text.split(" ")[1] for text in said] == ["applied"]
    assert {(storage.bits, storage.block) for storage in (mixture.first, mixture.second)} == {(4, 32)}
    compare(made, *(tokens(count, 128) for count in (1, 9, 30)))


def test_a_device_without_a_rule_for_it_keeps_what_is_written() -> None:
    """It would run on the host, and take the model's largest weights there."""
    (said,) = remarks(model(FORMS["batched"], STYLES["SwiGLU"]), "cuda:sm_90")
    assert said.endswith("target 'cuda' has no rule for it, and would run it on the host")
