"""A random graph from a seed: inputs, then nodes of random families, then outputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from benchmarks.fuzz.engines import Array
from benchmarks.fuzz.families import Generator, generators
from benchmarks.fuzz.graph import Graph, Rejected, Undone

OPSETS = (11, 13, 15, 17, 18, 19, 20, 21, 22, 23, 24, 25)
_DTYPES = (
    *("float32",) * 10,
    *("float64", "float16", "int64", "int32", "uint8", "bool") * 2,
    *("bfloat16", "int8", "int16", "uint16", "uint32", "uint64"),
)


@dataclass(frozen=True)
class Case:
    """A model and inputs for several runs of one artifact; `expected` are the outputs, where building computed them."""

    model: onnx.ModelProto
    feeds: list[dict[str, Array]]
    expected: list[dict[str, Array]] | None = None


def case(seed: int, index: int) -> Case:
    """The graph number `index` of a seed; the same numbers give the same graph."""
    rng = np.random.default_rng([seed, index])
    for _ in range(20):
        g = Graph(rng, opset=int(OPSETS[int(rng.integers(len(OPSETS)))]))
        add_inputs(g)
        add_nodes(g)
        outputs = [v for v in g.values if not v.users and not v.fixed and v not in [i.value for i in g.inputs]]
        outputs = [v for v in outputs if g.chance(0.9)] or outputs
        outputs += [v for v in g.values if v.users and g.chance(0.07)]
        made = {name for node in g.nodes for name in node.output}
        outputs = [v for v in outputs if v.name in made and not v.fixed]
        if outputs:
            expected = [{v.name: v.arrays[b] for v in outputs} for b in range(g.bindings)]
            return Case(g.model(outputs), g.feeds(), expected)
    raise RuntimeError(f"no graph for seed {seed}, index {index}")


def add_inputs(g: Graph) -> None:
    """One to three inputs, of which one at least is floating."""
    symbolic = g.choose([0.0, 0.3, 0.6, 0.9])
    for _ in range(g.integer(1, 3)):
        rank = g.choose([0, 1, 2, 2, 3, 3, 4, 4])
        dims = [g.symbol() if g.chance(symbolic) else int(g.choose([1, 2, 3, 4, 8, 16, 17])) for _ in range(rank)]
        try:
            g.input(g.choose(_DTYPES), dims)
        except Rejected:
            continue
    if not any(i.value.kind == "f" for i in g.inputs):
        g.input("float32", [g.symbol() if g.chance(symbolic) else 8, 8])


def add_nodes(g: Graph) -> None:
    """Up to a dozen nodes of random families."""
    table = generators()
    # Half of the graphs draw from a few generators only: mixtures of everything rarely repeat one thing.
    keep = 1.0 if g.chance(0.5) else 0.3
    chosen: dict[Generator, float] = {f: w for f, w in table.items() if g.chance(keep)} or dict(table)
    functions, weights = list(chosen), np.array(list(chosen.values()))
    goal = g.integer(1, 12)
    for _ in range(6 * goal):
        if len(g.nodes) >= goal:
            return
        mark = g.mark()
        try:
            functions[int(g.rng.choice(len(functions), p=weights / weights.sum()))](g)
        except Undone:
            g.rewind(mark)
        except Rejected:
            continue
