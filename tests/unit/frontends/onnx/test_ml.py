"""Operators of ai.onnx.ml: features, linear models, trees, support vectors; against onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import dscc
from dscc.errors import FrontendError, InputError
from dscc.runtime.module import Module

RNG = np.random.default_rng(0)
X = RNG.standard_normal((19, 5)).astype(np.float32)
TYPES = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE, "int64": TensorProto.INT64}


def model(
    op: str, x: np.ndarray, outputs: Sequence[str] = ("y",), version: int = 3, **attributes: Any
) -> onnx.ModelProto:
    """One node with x, or a list of inputs, of any number of rows."""
    given = x if isinstance(x, list) else [x]
    inputs = [
        helper.make_tensor_value_info(f"x{i}", TYPES[str(each.dtype)], ["n", *each.shape[1:]])
        for i, each in enumerate(given)
    ]
    node = helper.make_node(op, [each.name for each in inputs], list(outputs), domain="ai.onnx.ml", **attributes)
    made = [helper.make_value_info(name, onnx.TypeProto()) for name in outputs]
    graph = helper.make_graph([node], "g", inputs, made)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", version)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def compiled(proto: onnx.ModelProto) -> Module:
    return dscc.compile(proto, fallback=False, jobs=1).load()


def agree(proto: onnx.ModelProto, x: Any, reference: Any = None, rows: Sequence[int] = (1, 3, 8, 19)) -> None:
    given = x if isinstance(x, list) else [x]
    module = compiled(proto)
    session = reference or onnxruntime.InferenceSession(proto.SerializeToString())
    for count in rows:
        feeds = {f"x{i}": each[:count] for i, each in enumerate(given)}
        for got, want in zip(module.run(None, feeds), session.run(None, feeds), strict=True):
            assert (got.dtype, got.shape) == (want.dtype, want.shape)
            np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_scaler(dtype: str) -> None:
    x = (X * 10).astype(dtype)
    agree(model("Scaler", x, offset=[0.5, 1.0, -2.0, 0.0, 3.0], scale=[1.0, 2.0, 0.5, 1.0, -1.0]), x)
    agree(model("Scaler", x, offset=[0.5], scale=[2.0]), x)


@pytest.mark.parametrize("norm", ["MAX", "L1", "L2"])
def test_normalizer(norm: str) -> None:
    x = X.copy()
    x[2] = 0
    agree(model("Normalizer", x, norm=norm), x)


def test_binarizer() -> None:
    agree(model("Binarizer", X, threshold=0.25), X)


def test_imputer() -> None:
    x = X.copy()
    x[::3, 1] = np.nan
    agree(model("Imputer", x, imputed_value_floats=[1.0, 2.0, 3.0, 4.0, 5.0], replaced_value_float=float("nan")), x)
    x[::3, 1] = -7
    agree(model("Imputer", x, imputed_value_floats=[0.5], replaced_value_float=-7.0), x)
    whole = RNG.integers(0, 3, (19, 5))
    agree(model("Imputer", whole, imputed_value_int64s=[9], replaced_value_int64=1), whole)


def test_feature_vectorizer() -> None:
    inputs = [X, X[:, :2].copy()]
    agree(model("FeatureVectorizer", inputs, inputdimensions=[5, 2]), inputs)


def test_array_feature_extractor() -> None:
    proto = model("ArrayFeatureExtractor", X)
    proto.graph.initializer.append(numpy_helper.from_array(np.array([3, 0, 3]), "at"))
    proto.graph.node[0].input.append("at")
    agree(proto, X)


def test_one_hot_encoder() -> None:
    x = RNG.integers(0, 6, (19, 2))
    agree(model("OneHotEncoder", x, cats_int64s=[4, 1, 2]), x)


@pytest.mark.parametrize(
    ("x", "attributes"),
    [
        (np.arange(19), {"keys_int64s": [3, 1, 7], "values_floats": [0.5, 1.5, 2.5], "default_float": -3.0}),
        (np.arange(19), {"keys_int64s": [3, 1, 7], "values_int64s": [10, 20, 30]}),
        (
            np.array([1.5, np.nan, 3.0] * 6 + [9.0], np.float32),
            {"keys_floats": [1.5, float("nan")], "values_int64s": [4, 5], "default_int64": 6},
        ),
    ],
)
def test_label_encoder(x: np.ndarray, attributes: dict[str, Any]) -> None:
    agree(model("LabelEncoder", x, version=4, **attributes), x)
    if not np.isnan(x).any():  # which is no key before version 4
        agree(model("LabelEncoder", x, version=2, **attributes), x)


@pytest.mark.parametrize("transform", ["NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO"])
def test_linear_models(transform: str) -> None:
    weights, added = RNG.standard_normal(15).tolist(), RNG.standard_normal(3).tolist()
    classes = {"classlabels_ints": [7, 1, 4], "multi_class": 1}
    both = {"coefficients": weights, "intercepts": added, "post_transform": transform}
    agree(model("LinearClassifier", X, ("label", "y"), **both, **classes), X)
    if transform != "SOFTMAX_ZERO":
        agree(model("LinearRegressor", X, targets=3, **both), X)


def tree(number: int, depth: int, modes: Sequence[str], width: int) -> list[tuple[Any, ...]]:
    """Nodes of a random tree: (tree, node, feature, mode, value, yes, no, missing)."""
    nodes: list[tuple[Any, ...]] = []

    def grow(level: int) -> int:
        at = len(nodes)
        nodes.append(())
        if level == depth or (level > 1 and RNG.random() < 0.3):
            nodes[at] = (number, at, 0, "LEAF", 0.0, 0, 0, 0)
        else:
            value = float(np.round(RNG.standard_normal(), 1))
            entry = (number, at, int(RNG.integers(width)), str(RNG.choice(modes)), value)
            nodes[at] = (*entry, grow(level + 1), grow(level + 1), int(RNG.integers(2)))
        return at

    grow(0)
    return nodes


MODES = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"]


def ensemble(prefix: str, trees: int, targets: int, modes: Sequence[str] = ("BRANCH_LEQ",)) -> dict[str, Any]:
    nodes = [node for number in range(trees) for node in tree(number, 1 + number % 5, modes, 5)]
    names = ("treeids", "nodeids", "featureids", "modes", "values", "truenodeids", "falsenodeids")
    found: dict[str, Any] = {
        f"nodes_{name}": list(column) for name, column in zip(names, list(zip(*nodes, strict=True))[:7], strict=True)
    }
    found["nodes_missing_value_tracks_true"] = [node[7] for node in nodes]
    leaves = [(node[0], node[1], t) for node in nodes if node[3] == "LEAF" for t in range(targets)]
    found |= {
        f"{prefix}_{name}": list(c)
        for name, c in zip(("treeids", "nodeids", "ids"), zip(*leaves, strict=True), strict=False)
    }
    return found | {f"{prefix}_weights": RNG.standard_normal(len(leaves)).tolist()}


@pytest.mark.parametrize("how", ["SUM", "AVERAGE", "MIN", "MAX"])
@pytest.mark.parametrize("modes", [MODES[:1], MODES[:2], MODES])
def test_tree_regressor(how: str, modes: list[str]) -> None:
    x = np.round(RNG.standard_normal((19, 5)), 1).astype(np.float32)
    x[::4, ::2] = np.nan
    attributes = ensemble("target", 11, 2, modes)
    agree(
        model("TreeEnsembleRegressor", x, n_targets=2, aggregate_function=how, base_values=[0.5, -1.0], **attributes), x
    )


def test_trees_of_doubles() -> None:
    x = RNG.standard_normal((19, 5))
    attributes = ensemble("target", 9, 1)
    values = np.array(attributes.pop("nodes_values")) + 1e-12
    weights = np.array(attributes.pop("target_weights"))
    tensors = {
        "nodes_values_as_tensor": numpy_helper.from_array(values),
        "target_weights_as_tensor": numpy_helper.from_array(weights),
    }
    agree(model("TreeEnsembleRegressor", x, n_targets=1, **attributes, **tensors), x)


@pytest.mark.parametrize("transform", ["NONE", "LOGISTIC", "SOFTMAX"])
@pytest.mark.parametrize("positive", [True, False])
@pytest.mark.parametrize("classes", [[3, 5], [0, 1, 2]])
def test_tree_classifier(transform: str, positive: bool, classes: list[int]) -> None:
    attributes = ensemble("class", 10, 1 if len(classes) == 2 else 3)
    weights = np.array(attributes["class_weights"]) / 10
    attributes["class_weights"] = (np.abs(weights) if positive else weights).tolist()
    extra = {"classlabels_int64s": classes, "post_transform": transform}
    agree(model("TreeEnsembleClassifier", X, ("label", "y"), **attributes, **extra), X)


def test_tree_ensemble_with_sets() -> None:
    attributes = {
        "nodes_featureids": [0, 1, 0],
        "nodes_modes": numpy_helper.from_array(np.array([0, 6, 6], np.uint8)),
        "nodes_splits": numpy_helper.from_array(np.array([0.5, 0, 0], np.float32)),
        "nodes_truenodeids": [1, 0, 1],
        "nodes_falsenodeids": [2, 2, 3],
        "nodes_trueleafs": [0, 1, 1],
        "nodes_falseleafs": [0, 1, 1],
        "leaf_targetids": [0, 1, 0, 1],
        "leaf_weights": numpy_helper.from_array(np.array([1, 10, 100, 1000], np.float32)),
        "membership_values": numpy_helper.from_array(np.array([2, 4, 1, np.nan, 3, 1, np.nan], np.float32)),
        "tree_roots": [0],
        "n_targets": 2,
    }
    x = RNG.integers(0, 5, (19, 2)).astype(np.float32)
    proto = model("TreeEnsemble", x, version=5, **attributes)
    agree(proto, x, ReferenceEvaluator(proto))


@pytest.mark.parametrize("aggregate", [0, 1, 2, 3])
def test_tree_ensemble_without_sets(aggregate: int) -> None:
    attributes = {
        "nodes_featureids": [0, 1, 2],
        "nodes_modes": numpy_helper.from_array(np.array([0, 1, 3], np.uint8)),
        "nodes_splits": numpy_helper.from_array(np.array([0.5, 0, -0.5], np.float64)),
        "nodes_truenodeids": [1, 0, 1],
        "nodes_falsenodeids": [0, 2, 2],
        "nodes_trueleafs": [0, 1, 1],
        "nodes_falseleafs": [1, 1, 1],
        "leaf_targetids": [0, 1, 0],
        "leaf_weights": numpy_helper.from_array(np.array([1, 10, 100], np.float64)),
        "tree_roots": [0, 2],
        "n_targets": 2,
        "aggregate_function": aggregate,
    }
    x = RNG.standard_normal((19, 3))
    agree(model("TreeEnsemble", x, version=5, **attributes), x)


@pytest.mark.parametrize("kernel", ["LINEAR", "POLY", "RBF", "SIGMOID"])
def test_svm_regressor(kernel: str) -> None:
    attributes = {
        "kernel_type": kernel, "kernel_params": [0.2, 0.5, 3.0], "n_supports": 7, "rho": [0.25],
        "coefficients": RNG.standard_normal(7).tolist(), "support_vectors": RNG.standard_normal(35).tolist(),
    }  # fmt: skip
    agree(model("SVMRegressor", X, **attributes), X)
    agree(model("SVMRegressor", X, one_class=1, **attributes), X)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("coupled", [False, True])
def test_svm_classifier(classes: int, coupled: bool) -> None:
    sizes = list(range(2, 2 + classes))
    pairs = classes * (classes - 1) // 2
    attributes: dict[str, Any] = {
        "kernel_type": "RBF", "kernel_params": [0.2, 0.0, 3.0], "vectors_per_class": sizes,
        "coefficients": RNG.standard_normal(sum(sizes) * (classes - 1)).tolist(),
        "support_vectors": RNG.standard_normal(sum(sizes) * 5).tolist(),
        "rho": RNG.standard_normal(pairs).tolist(), "classlabels_ints": list(range(5, 5 + classes)),
    }  # fmt: skip
    if coupled:
        attributes |= {"prob_a": (-RNG.random(pairs) - 0.5).tolist(), "prob_b": RNG.standard_normal(pairs).tolist()}
    agree(model("SVMClassifier", X, ("label", "y"), **attributes), X)


LINEAR = {"coefficients": RNG.standard_normal(15).tolist(), "intercepts": [0.0, 1.0, 2.0], "multi_class": 1}
SVM = {
    "kernel_type": "LINEAR", "kernel_params": [0.2, 0.0, 3.0], "vectors_per_class": [1, 2, 1], "rho": [0.1, 0.2, 0.3],
    "coefficients": RNG.standard_normal(8).tolist(), "support_vectors": RNG.standard_normal(20).tolist(),
}  # fmt: skip


@pytest.mark.parametrize("version", [1, 3])
@pytest.mark.parametrize(
    ("op", "attributes"),
    [("LinearClassifier", LINEAR), ("SVMClassifier", SVM), ("TreeEnsembleClassifier", ensemble("class", 5, 3))],
)
def test_only_the_names_of_classes_are_left_to_another_engine(
    op: str, attributes: dict[str, Any], version: int
) -> None:
    proto = model(op, X, ("label", "y"), version, classlabels_strings=["no", "perhaps", "yes"], **attributes)
    before = proto.SerializeToString()
    with pytest.warns(UserWarning, match="it maps strings") as caught:
        module = dscc.compile(proto, jobs=1).load()
    assert op not in str(caught[0].message)
    assert proto.SerializeToString() == before
    label, scores = module.run(None, {"x0": X})
    wanted, as_much = onnxruntime.InferenceSession(before).run(None, {"x0": X})
    assert label.tolist() == wanted.tolist()
    np.testing.assert_allclose(scores, as_much, rtol=2e-5, atol=2e-6)


def test_trees_that_are_none_are_refused() -> None:
    attributes = ensemble("target", 2, 1)
    for name, wrong, message in (
        ("nodes_truenodeids", [99] * len(attributes["nodes_modes"]), "has no node of this number"),
        ("nodes_nodeids", [0] * len(attributes["nodes_modes"]), "same tree and number"),
        ("target_ids", [5] * len(attributes["target_ids"]), "not one of 1"),
        ("nodes_modes", ["BRANCH_ODD"] * len(attributes["nodes_modes"]), "BRANCH_ODD"),
    ):
        with pytest.raises(FrontendError, match=message) as caught:
            compiled(model("TreeEnsembleRegressor", X, n_targets=1, **{**attributes, name: wrong}))
        assert "\n" not in str(caught.value)


def test_a_tree_without_a_root_is_refused() -> None:
    attributes = {
        "nodes_treeids": [0, 0], "nodes_nodeids": [0, 1], "nodes_featureids": [0, 0], "nodes_values": [0.0, 0.0],
        "nodes_modes": ["BRANCH_LEQ"] * 2, "nodes_truenodeids": [1, 0], "nodes_falsenodeids": [1, 0],
        "target_treeids": [0], "target_nodeids": [0], "target_ids": [0], "target_weights": [1.0],
    }  # fmt: skip
    with pytest.raises(FrontendError, match="is the child of another"):
        compiled(model("TreeEnsembleRegressor", X, n_targets=1, **attributes))


def test_a_row_has_all_features() -> None:
    attributes = {**ensemble("target", 3, 1)}
    attributes["nodes_featureids"] = [4] * len(attributes["nodes_featureids"])
    proto = model("TreeEnsembleRegressor", X, n_targets=1, **attributes)
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "m"
    module = compiled(proto)
    assert module.run(None, {"x0": X})[0].shape == (19, 1)
    with pytest.raises(InputError):
        module.run(None, {"x0": X[:, :4].copy()})
