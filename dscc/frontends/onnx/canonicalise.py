"""Bringing a model into the form that the converters expect, with ONNX's own libraries.

A step that fails leaves the model as it was: the converters know every version of their operators, so that
canonicalising saves work and is never what decides whether a model can be read. Why a step was skipped is noted, for
`dscc compile` to show.

onnx's version converter, shape inference and onnxscript's optimizer are not used on purpose: the first two copy the
whole model through a buffer and refuse models that run well (unknown domains, more than 2 GB), the last folds int8
weights to float.
"""

from __future__ import annotations

import onnx
import onnx.inliner


def canonicalise(model: onnx.ModelProto, notes: list[str]) -> onnx.ModelProto:
    """The model with its own functions inlined; what could not be done is added to `notes`."""
    if not model.functions:
        return model
    try:
        return onnx.inliner.inline_local_functions(model)
    except Exception as err:  # noqa: BLE001  the inliner is C++ and raises what it likes; convert.py then expands calls
        notes.append(f"model functions were not inlined at once: {str(err).splitlines()[0]}")
        return model
