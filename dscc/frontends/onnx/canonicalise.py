"""Bringing a model into the form that the converters expect, with ONNX's own libraries.

A step that fails leaves the model as it was: the converters know every version of their operators, so that
canonicalising saves work and is never what decides whether a model can be read. Why a step was skipped is logged as a
warning, which Python shows on standard error unless the program says otherwise.

onnx's version converter, shape inference and onnxscript's optimizer are not used on purpose: the first two copy the
whole model through a buffer and refuse models that run well (unknown domains, more than 2 GB), the last folds int8
weights to float.
"""

from __future__ import annotations

import logging

import onnx
import onnx.inliner

from dscc.errors import first_line

_LOG = logging.getLogger(__name__)


def canonicalise(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its own functions inlined."""
    if not model.functions:
        return model
    try:
        return onnx.inliner.inline_local_functions(model)
    except Exception as err:  # noqa: BLE001  the inliner is C++ and raises what it likes; convert.py then expands calls
        reason = first_line(err)
        _LOG.warning("the functions of the model are expanded call by call, since onnx's inliner failed: %s", reason)
        return model
