"""Whether what dscc computes for a case is right.

An element is right if it is close to what any of the references gives: onnx's evaluator, onnxruntime with its
optimizations, onnxruntime without. Only where none is close, the slow part decides how far apart correct programs can
be: it runs the evaluator with every intermediate value moved by a few units in the last place, and takes the range of
the results. So a rounding that tips over (a Floor, a comparison, the order of a sort) is not called an error.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

import dscc
from benchmarks.fuzz import build, engines
from benchmarks.fuzz.build import Case
from benchmarks.fuzz.engines import Array
from dscc.errors import DsccError

# Of an element's own size, and of the largest in its tensor: what sums of a few hundred products differ by. In float64
# more than that: attributes, such as an epsilon, are float32, and programs differ in when they round them.
RELATIVE = {"float64": 1e-6, "float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
OF_LARGEST = {"float64": 1e-7, "float32": 1e-5, "float16": 4e-3, "bfloat16": 3e-2}
ULP = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
SMALLEST = {"float64": 2.0**-1022, "float32": 2.0**-126, "bfloat16": 2.0**-126}  # that is normal
PERTURBED_RUNS = 24
BIASED_RUNS = 8  # after these, in which all values are low, or high, as those of an approximation may be
NOISE = (1.0, 4.0, 1.0, 32.0)  # units in the last place; more than one also of the largest in the tensor


@dataclass(frozen=True)
class Verdict:
    """What came of a case.

    Attributes:
        kind: agrees, refused, wrong, error (an exception that is no DsccError), rejected (a valid input is refused when
            the model runs), died, hang; or invalid: no reference takes it.
        reason: one line; for an error its last frames too, in `detail`.
    """

    kind: str
    reason: str = ""
    detail: str = ""

    @property
    def finding(self) -> bool:
        return self.kind in ("wrong", "error", "rejected", "died", "hang")


Stage = Callable[[str], None]


def serve(request: tuple[int, int] | tuple[bytes, list[dict[str, Array]]], stage: Stage) -> Verdict:
    """In the worker: a graph by its seed and number, or a case that is being shrunk."""
    first, second = request
    if isinstance(first, int) and isinstance(second, int):
        stage("build")
        return judge(build.case(first, second), stage, threads=1 + second % 2)
    assert isinstance(first, bytes) and isinstance(second, list)
    return judge(Case(onnx.ModelProto.FromString(first), second), stage)


def judge(case: Case, stage: Stage = lambda name: None, threads: int = 1) -> Verdict:
    """Compile, run and compare; `stage` is told what is about to happen, for the case that it is the last."""
    model, names = case.model, [output.name for output in case.model.graph.output]
    stage("evaluate")
    references = _references(case, names)
    if not any(references):
        return Verdict("invalid", "no reference evaluates it")
    stage("compile")
    try:
        module = dscc.compile(model, jobs=1).load(threads)
    except DsccError as err:
        return Verdict("refused", str(err))
    except Exception as err:  # noqa: BLE001  what a fuzzer is for
        return Verdict("error", _first_line(err), traceback.format_exc(limit=-6))
    for run, feeds in enumerate(case.feeds):
        stage(f"run {run}")
        try:
            found = module.run(names, feeds)
        except DsccError as err:
            return Verdict("refused" if _has_empty(case, run) else "rejected", str(err))
        except Exception as err:  # noqa: BLE001  what a fuzzer is for
            return Verdict("error", _first_line(err), traceback.format_exc(limit=-6))
        stage(f"compare {run}")
        reason = _compare(case, run, names, found, [reference[run] for reference in references if reference])
        if reason:
            return Verdict("wrong", reason)
    return Verdict("agrees")


def _first_line(err: BaseException) -> str:
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    return f"{type(err).__name__}: {lines[0] if lines else ''}"


def _references(case: Case, names: Sequence[str]) -> list[list[list[Array]] | None]:
    """The outputs of every run by each engine that takes the model."""
    found = [_attempt(lambda: _evaluated(case, names))]
    return found + [_attempt(lambda: engines.run_model(case.model, case.feeds, names, o)) for o in (True, False)]


def _attempt(compute: Callable[[], list[list[Array]]]) -> list[list[Array]] | None:
    try:
        return compute()
    except engines.Refused:
        return None


def _evaluated(case: Case, names: Sequence[str]) -> list[list[Array]]:
    if case.expected is not None:
        return [[values[name] for name in names] for values in case.expected]
    return [[values[name] for name in names] for values in (interpret(case.model, feeds) for feeds in case.feeds)]


# Of one element it is x - x: what is left of a rounding before is large beside the result, which is 0.
CANCELLING = frozenset({"LogSoftmax"})


def interpret(
    model: onnx.ModelProto,
    feeds: Mapping[str, Array],
    touch: Callable[[Array], Array] | None = None,
    first: Callable[..., list[list[Any]]] = engines.by_evaluator,
    second: Callable[..., list[list[Any]]] = engines.by_runtime,
    weigh: Callable[[Array], Array] = lambda array: array,
) -> dict[str, Any]:
    """Every value of the graph by name, node by node: by the engine `first`, or `second` where that refuses; `touch` is
    applied to the results of each, `weigh` to the weights. A list stands for a sequence.

    Raises:
        Refused: both engines refused a node.
    """
    weights = {t.name: weigh(onnx.numpy_helper.to_array(t)) for t in model.graph.initializer}
    values: dict[str, Any] = weights | dict(feeds)
    for node in model.graph.node:
        used = [name for name in values if name in _read(node)]
        made = [name for name in node.output if name]
        given = [{name: values[name] for name in used}]
        try:
            [results] = first([node], model.opset_import, given, made)
        except engines.Refused:
            [results] = second([node], model.opset_import, given, made)
        types = _types(node, model, values)
        for name, result in zip(made, results, strict=True):
            if result is None or isinstance(result, list):
                values[name] = result
                continue
            array = np.asarray(result)
            array = array.astype(types[name]) if name in types else array
            if touch is not None and node.op_type != "Constant":
                lost = np.abs(values[node.input[0]]).max(initial=0) if node.op_type in CANCELLING else 0
                array = touch(array + lost) - lost if lost else touch(array)
            values[name] = array
    return values


def _read(node: onnx.NodeProto) -> set[str]:
    """The names that a node reads, or one in its graphs."""
    inner = (each for attribute in node.attribute for each in attribute.g.node)
    outputs = {value.name for attribute in node.attribute for value in attribute.g.output}
    return set(node.input).union(outputs, *(_read(each) for each in inner))


def _types(node: onnx.NodeProto, model: onnx.ModelProto, values: Mapping[str, Array]) -> dict[str, np.dtype[Any]]:
    """The types of a node's outputs where the schema says that they are those of an input."""
    opset = next((o.version for o in model.opset_import if o.domain == node.domain), 1)
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    except onnx.defs.SchemaError:
        return {}
    last = len(schema.inputs) - 1
    bound = {
        schema.inputs[min(i, last)].type_str: values[n].dtype
        for i, n in enumerate(node.input)
        if isinstance(values.get(n), np.ndarray)
    }
    return {
        name: bound[formal.type_str]
        for name, formal in zip(node.output, schema.outputs, strict=False)
        if formal.type_str in bound and name
    }


def _has_empty(case: Case, run: int) -> bool:
    """Whether a value on the way has no elements, as behind a window that does not fit: dscc refuses such sizes."""
    values = _attempt(lambda: [[*interpret(case.model, case.feeds[run]).values()]])
    return values is not None and any(isinstance(v, np.ndarray) and v.size == 0 for v in values[0])


def _compare(
    case: Case, run: int, names: Sequence[str], found: Sequence[Array], references: Sequence[Sequence[Array]]
) -> str:
    """What is wrong with the outputs of one run, or nothing."""
    for position, (name, got) in enumerate(zip(names, found, strict=True)):
        wanted = [np.asarray(reference[position]) for reference in references]
        if not any(got.dtype == want.dtype and got.shape == want.shape for want in wanted):
            second = _second_opinion(case, run, name)
            if second is not None and (second.dtype, second.shape) == (got.dtype, got.shape):
                continue
            expected = " or ".join(sorted({f"{want.dtype}{list(want.shape)}" for want in wanted}))
            if not _unstable(case, run, name):
                return f"output '{name}' of run {run} is {got.dtype}{list(got.shape)}, expected {expected}"
            continue
        fits = [want for want in wanted if got.dtype == want.dtype and got.shape == want.shape]
        right = np.logical_or.reduce([close(got, want) for want in fits])
        if right.all():
            continue
        right |= _within_reach(case, run, name, got, fits)
        if not right.all() and (second := _second_opinion(case, run, name)) is not None:
            right |= close(got, second) if second.shape == got.shape else True
        if not right.all():
            worst = tuple(int(i) for i in np.argwhere(~np.atleast_1d(right))[0][: got.ndim])
            values = ", ".join(str(want[worst]) for want in fits)
            wrong = int((~right).sum())
            place = f"output '{name}' of run {run}: {wrong} of {got.size} wrong"
            return f"{place}; {list(worst)} is {got[worst]}, not {values}"
    return ""


def close(got: Array, want: Array) -> Array:
    """Which elements agree within what the type allows."""
    if got.dtype.name not in RELATIVE:
        return np.asarray(got == want)
    a, b = got.astype(np.float64), want.astype(np.float64)
    with np.errstate(all="ignore"):
        finite = np.abs(b[np.isfinite(b)])
        allowed = RELATIVE[got.dtype.name] * np.abs(b) + OF_LARGEST[got.dtype.name] * finite.max(initial=0.0)
        allowed += SMALLEST.get(got.dtype.name, 0.0)
        return np.asarray((a == b) | (np.isnan(a) & np.isnan(b)) | (np.abs(a - b) <= allowed))


def _moved(case: Case, run: int, name: str) -> list[Array]:
    """The output `name` when every value on the way is off by a few units in the last place."""
    found = []
    for seed in range(PERTURBED_RUNS + BIASED_RUNS):
        rng = np.random.default_rng(seed)

        def touch(array: Array) -> Array:
            if array.dtype.name not in ULP:
                return array
            units, ulp = NOISE[seed % len(NOISE)], ULP[array.dtype.name]
            step = ulp * units
            wide = array.astype(np.float64)
            floor = np.abs(wide[np.isfinite(wide)]).max(initial=0.0) * ulp if units > 1 else 0.0
            signs = [-1.0, 0.0, 1.0] if seed < PERTURBED_RUNS else [1.0 - 2 * (seed // len(NOISE) % 2)]
            noise = rng.choice(signs, array.shape)
            return np.asarray(wide + noise * (step * np.abs(wide) + floor)).astype(array.dtype)

        with np.errstate(all="ignore"):
            feeds = {key: touch(value) for key, value in case.feeds[run].items()} if seed % 3 else case.feeds[run]
            # Not always the weights: a factor of 1.5 that is a little less makes another shape of a Resize.
            weigh = touch if seed % 3 == 1 else np.asarray
            values = _attempt(lambda: [[interpret(case.model, feeds, touch, weigh=weigh)[name]]])
        if values is not None:
            found.append(values[0][0])
    return found


def _second_opinion(case: Case, run: int, name: str) -> Array | None:
    """The output by onnxruntime, node by node; by the evaluator where onnxruntime lacks the operator or its type."""
    order = (engines.by_runtime, engines.by_evaluator)
    values = _attempt(
        lambda: [[interpret(case.model, case.feeds[run], first=order[0], second=order[1])[name]]],
    )
    return None if values is None else values[0][0]


def _unstable(case: Case, run: int, name: str) -> bool:
    """Whether the shape of an output depends on roundings."""
    return len({array.shape for array in _moved(case, run, name)}) > 1


def _within_reach(case: Case, run: int, name: str, got: Array, wanted: Sequence[Array]) -> Array:
    """Which elements lie in the range, with a margin, that moved values give."""
    moved = [array for array in _moved(case, run, name) if array.shape == got.shape]
    if not moved:
        return np.zeros(got.shape, bool)
    values = np.stack([array.astype(np.float64) for array in (*moved, *wanted)])
    a = got.astype(np.float64)
    with np.errstate(all="ignore"):
        low, high = values.min(axis=0), values.max(axis=0)
        margin = 4 * (high - low)
        inside = (a >= low - margin) & (a <= high + margin) & (high > low)
        fickle = ~np.isfinite(values).all(axis=0) & np.isfinite(values).any(axis=0)
    return np.asarray(inside | fickle)
