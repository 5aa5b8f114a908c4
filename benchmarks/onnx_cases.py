"""The worker of `benchmarks.onnx_suite`: runs cases of ONNX's backend test suite, one after the other.

It reads the names of cases from standard input, a line each, and writes what became of them as lines of JSON. That a
case takes the process with it, or never ends, is for the parent to see.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import Runner, _normalize_tensor

KINDS = ("node", "simple", "pytorch-operator", "pytorch-converted")


def load_cases(*kinds: str) -> dict[str, TestCase]:
    """The cases of these kinds by name, else all of them; those of kind `real`, which are downloaded, are left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the reference implementations overflow on purpose
        found = [case for kind in kinds or KINDS for case in load_model_tests(kind=kind)]
    return {case.name: case for case in found}


def model_of(case: TestCase) -> onnx.ModelProto:
    return case.model if case.model is not None else onnx.load(Path(str(case.model_dir)) / "model.onnx")


def operators(model: onnx.ModelProto) -> list[str]:
    """The operators of the graph, with the domain where it is not ONNX's own."""
    found = {f"{node.domain}.{node.op_type}" if node.domain else node.op_type for node in model.graph.node}
    return sorted(found)


def attempt(case: TestCase, model: onnx.ModelProto, fallback: bool) -> str:
    """Compile and run a case on all its data, and compare as ONNX's runner does.

    Returns:
        "" if it passes, else `STAGE: REASON` with the stage `refused` (an error that dscc explains), `compile` (one
        that it does not), `run` or `result`.
    """
    from dscc import onnx_backend
    from dscc.errors import DsccError
    from dscc.options import CompileOptions

    options: dict[str, Any] = {}
    if any(field.name == "fallback" for field in dataclasses.fields(CompileOptions)):
        options["fallback"] = fallback
    try:
        prepared = onnx_backend.prepare(model, **options)
    except DsccError as err:
        return f"refused: {_line(err)}"
    except Exception as err:  # noqa: BLE001  whatever it is, it is the result of this case
        return f"compile: {type(err).__name__}: {_line(err)}"
    regions = prepared.module.manifest.summary["fallback"]
    if regions and not fallback:
        return f"refused: runs on the fallback: {regions}"
    for inputs, expected in _data(case, model):
        try:
            outputs = prepared.run(inputs)
        except Exception as err:  # noqa: BLE001
            return f"run: {type(err).__name__}: {_line(err)}"
        try:
            Runner.assert_similar_outputs(expected, list(outputs), case.rtol, case.atol)
        except Exception as err:  # noqa: BLE001  a comparison of things that have nothing in common raises anything
            return f"result: {_line(err)}"
    return ""


def _data(case: TestCase, model: onnx.ModelProto) -> Iterator[tuple[list[Any], list[Any]]]:
    """Inputs and expected outputs of each data set."""
    if case.data_sets is not None:
        for inputs, outputs in case.data_sets:
            yield [_normalize_tensor(item) for item in inputs], [_normalize_tensor(item) for item in outputs]
        return
    for folder in sorted(Path(str(case.model_dir)).glob("test_data_set*")):
        yield _read(folder, "input", model.graph.input), _read(folder, "output", model.graph.output)


def _read(folder: Path, stem: str, infos: Sequence[onnx.ValueInfoProto]) -> list[Any]:
    values: list[Any] = []
    for index in range(len(list(folder.glob(f"{stem}_*.pb")))):
        content = (folder / f"{stem}_{index}.pb").read_bytes()
        kind = infos[index].type.WhichOneof("value")
        if kind == "sequence_type":
            values.append(onnx.numpy_helper.to_list(onnx.SequenceProto.FromString(content)))
        elif kind == "optional_type":
            values.append(onnx.numpy_helper.to_optional(onnx.OptionalProto.FromString(content)))
        else:
            values.append(onnx.numpy_helper.to_array(onnx.TensorProto.FromString(content)))
    return values


def _line(err: BaseException) -> str:
    """What an error says, on one line of at most 300 characters."""
    text = re.sub(r"\s+", " ", str(err)).strip() or type(err).__name__
    return text if len(text) <= 300 else text[:297] + "..."


def main() -> None:
    """Serve cases until standard input ends."""
    # Libraries print to standard output as they like: the answers get a descriptor of their own.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    cases = load_cases()

    def say(**fields: Any) -> None:
        print(json.dumps(fields), file=answers, flush=True)

    say(ready=len(cases))
    for line in sys.stdin:
        question: Mapping[str, Any] = json.loads(line)
        case = cases[question["case"]]
        model = model_of(case)
        say(operators=operators(model))
        native = attempt(case, model, fallback=False)
        say(native=native)
        if not question["fallback"]:
            say(fallback=None)
        # A result that is wrong without the fallback is as wrong with it.
        elif native.startswith(("refused: ", "compile: ")):
            say(fallback=attempt(case, model, fallback=True))
        else:
            say(fallback=native)


if __name__ == "__main__":
    main()
