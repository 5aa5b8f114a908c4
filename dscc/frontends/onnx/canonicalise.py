"""Bringing a model into the form that the converters expect: functions inlined, classes numbered.

A step that fails leaves the model as it was: the converters know every version of their operators, so that
canonicalising saves work and is never what decides whether a model can be read. Why a step was skipped is logged as a
warning, which Python shows on standard error unless the program says otherwise.

onnx's version converter, shape inference and onnxscript's optimizer are not used on purpose: the first two copy the
whole model through a buffer and refuse models that run well (unknown domains, more than 2 GB), the last folds int8
weights to float.
"""

from __future__ import annotations

import itertools
import logging

import onnx
import onnx.inliner

from dscc.errors import first_line

_LOG = logging.getLogger(__name__)


_LABELS = {
    "LinearClassifier": ("classlabels_strings", "classlabels_ints"),
    "SVMClassifier": ("classlabels_strings", "classlabels_ints"),
    "TreeEnsembleClassifier": ("classlabels_strings", "classlabels_int64s"),
}


def canonicalise(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its own functions inlined, and with classifiers that number their classes."""
    return _numbered_classes(_inlined(model))


def _inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    if not model.functions:
        return model
    try:
        return onnx.inliner.inline_local_functions(model)
    except Exception as err:  # noqa: BLE001  the inliner is C++ and raises what it likes; convert.py then expands calls
        reason = first_line(err)
        _LOG.warning("the functions of the model are expanded call by call, since onnx's inliner failed: %s", reason)
        return model


def _numbered_classes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the names of a classifier's labels in a LabelEncoder after it: only that takes another engine."""
    if not any(map(_names, model.graph.node)):
        return model
    out = onnx.ModelProto()
    out.CopyFrom(model)
    for entry in out.opset_import:
        if entry.domain == "ai.onnx.ml" and entry.version == 1:
            if any(node.op_type == "LabelEncoder" for node in model.graph.node):
                return model
            entry.version = 2  # which differs in LabelEncoder alone
    del out.graph.node[:]
    taken = {name for node in model.graph.node for name in (*node.input, *node.output)}
    taken |= {value.name for value in (*model.graph.input, *model.graph.initializer)}
    for node in model.graph.node:
        out.graph.node.append(node)
        names = _names(node)
        if not names:
            continue
        new = out.graph.node[-1]
        text, number = _LABELS[node.op_type]
        kept = [attribute for attribute in node.attribute if attribute.name not in (text, number)]
        del new.attribute[:]
        new.attribute.extend([*kept, onnx.helper.make_attribute(number, range(len(names)))])
        label = node.output[0]
        if label:
            new.output[0] = next(f"{label}_{i}" for i in itertools.count() if f"{label}_{i}" not in taken)
            taken.add(new.output[0])
            encoder = out.graph.node.add(op_type="LabelEncoder", domain="ai.onnx.ml")
            encoder.input.append(new.output[0])
            encoder.output.append(label)
            fields = {"keys_int64s": range(len(names)), "values_strings": names}
            encoder.attribute.extend(onnx.helper.make_attribute(*field) for field in fields.items())
    return out


def _names(node: onnx.NodeProto) -> list[bytes]:
    """The labels of a classifier of several classes, where they are strings."""
    if node.domain != "ai.onnx.ml" or node.op_type not in _LABELS or not node.output:
        return []
    text, _ = _LABELS[node.op_type]
    found = [list(attribute.strings) for attribute in node.attribute if attribute.name == text]
    return found[0] if found and len(found[0]) > 1 else []
