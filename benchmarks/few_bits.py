"""Weights of few bits against onnxruntime: `python -m benchmarks.few_bits`.

One product in every way that such weights are written, and a small decoder as onnxruntime-genai's builder writes it,
with a cache. onnxruntime rounds rows to 8 bits, of its own accord for DequantizeLinear, and for MatMulNBits where
`accuracy_level` is 4, where dscc keeps 16 bits; there both also run with rows in float32. With --save the page is
written.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import helper, numpy_helper

from benchmarks import report
from benchmarks.contest import ratio
from benchmarks.decoder import Decoder
from benchmarks.race import entry, thread_counts
from dscc.bench import Contestant, race
from dscc.verify import reference

SIZE, BLOCK = 4096, 32
node = helper.make_node
Array = np.ndarray[Any, Any]
EXACT, ROUNDED = "rows in float32", "rows in 8 bits"
KINDS = {  # to the accuracy levels that onnxruntime is to have, and what it makes of them
    "MatMulNBits": {1: EXACT, 4: ROUNDED},
    "int4": {4: ROUNDED},
    "int8": {4: ROUNDED},
    "float16": {1: EXACT},
}


def weighted(kind: str, level: int) -> onnx.ModelProto:
    """x (m, 4096) times a weight (4096, 4096) that is kept as `kind` says."""
    rng = np.random.default_rng(0)
    constants = {"s": (rng.random((SIZE // BLOCK, SIZE)) + 0.5).astype(np.float32)}
    attributes: dict[str, Any] = {"axis": 0, "block_size": BLOCK}
    if kind == "MatMulNBits":
        constants["s"] = np.ascontiguousarray(constants["s"].T)
        constants["w"] = rng.integers(0, 256, (SIZE, SIZE // BLOCK, BLOCK // 2)).astype(np.uint8)
        attributes = {"K": SIZE, "N": SIZE, "bits": 4, "block_size": BLOCK, "accuracy_level": level}
        nodes = [node("MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", **attributes)]
    elif kind == "float16":
        constants = {"w": rng.standard_normal((SIZE, SIZE)).astype(np.float16)}
        nodes = [node("Cast", ["w"], ["d"], to=1), node("MatMul", ["x", "d"], ["y"])]
    else:
        if kind == "int8":
            constants, attributes = {"s": constants["s"][0]}, {"axis": 1}
        low, high = (-8, 8) if kind == "int4" else (-127, 128)
        element = ml_dtypes.int4 if kind == "int4" else np.int8
        constants["w"] = rng.integers(low, high, (SIZE, SIZE)).astype(element)
        nodes = [node("DequantizeLinear", ["w", "s"], ["d"], **attributes), node("MatMul", ["x", "d"], ["y"])]
    x, y = (helper.make_tensor_value_info(name, 1, ["m", SIZE]) for name in "xy")
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(
        helper.make_graph(nodes, "product", [x], [y], tensors), opset_imports=opsets, ir_version=10
    )


@dataclass(frozen=True)
class Row:
    """One model on one input: milliseconds of dscc and of onnxruntime.

    Attributes:
        peer: how onnxruntime runs.
        speed: times as fast as onnxruntime, the median of neighbouring turns.
        error, peer_error: from onnxruntime with rows in float32.
    """

    what: str
    tokens: str
    threads: int
    ours_ms: float
    peer: str
    peer_ms: float
    speed: float
    error: float
    peer_error: float


def measure(
    what: str,
    make: Callable[[int], onnx.ModelProto],
    feeds: Mapping[str, dict[str, Array]],
    levels: Mapping[int, str],
    args: argparse.Namespace,
) -> list[Row]:
    """A model on several inputs, by what they are called, against onnxruntime at some accuracy levels."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="dscc-few-bits-") as folder:
        files = {level: Path(folder) / f"{level}.onnx" for level in levels}
        for level, file in files.items():
            onnx.save(make(level), file)
            command = [sys.executable, "-m", "dscc.cli", "compile", str(file), "-o", str(file.with_suffix(".dscc"))]
            subprocess.run(command, check=True, capture_output=True)
        exact = reference(next(iter(files.values())), "onnxruntime")
        for threads, (tokens, feed) in product(args.threads, feeds.items()):
            print(f"  {what}, {tokens} tokens, {threads} threads", file=sys.stderr, flush=True)
            ours = [Contestant("dscc", file.with_suffix(".dscc"), threads) for file in files.values()]
            peers = [Contestant("onnxruntime", file, threads) for file in files.values()]
            found = race([*ours, *peers], feed, args.rounds, turn_ms=args.turn_ms)
            for result in found:
                if result.error:
                    raise SystemExit(f"{what}: {result.contestant.engine}: {result.error}")
            want = exact.run(None, feed)
            entries = [entry(result, want) for result in found]
            for own, peer, name in zip(entries[: len(levels)], entries[len(levels) :], levels.values(), strict=True):
                speed = 1 / ratio(own, peer, 0).median
                errors = own.error or 0.0, peer.error or 0.0
                rows.append(Row(what, tokens, threads, own.wall_ms, name, peer.wall_ms, speed, *errors))
    return rows


def page(rows: Sequence[Row]) -> str:
    """The body of the section."""
    heads = ["model", "tokens", "threads", "dscc ms", "error", "onnxruntime", "ms", "error", "times as fast"]
    cells = [
        [
            *(row.what, row.tokens, str(row.threads), f"{row.ours_ms:.3f}", f"{row.error:.0e}"),
            *(row.peer, f"{row.peer_ms:.3f}", f"{row.peer_error:.0e}", f"{row.speed:.2f}"),
        ]
        for row in rows
    ]
    return "\n\n".join([_INTRODUCTION, report.table(heads, cells)])


_INTRODUCTION = f"""\
Products with a weight of {SIZE} x {SIZE}: in 4 bits with a scale for every {BLOCK} of a column, as MatMulNBits and as
DequantizeLinear (int4), in 8 bits with a scale for every column, and in float16. The decoder has {Decoder().layers}
layers of {Decoder().hidden} units, MatMulNBits in 4 bits and GroupQueryAttention; "1 + 128" is one token with 128 in
the cache. Medians of turns of processes; errors are relative to the largest output of onnxruntime with rows in float32,
and the greatest of all outputs."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Weights of few bits against onnxruntime.")
    parser.add_argument("--threads", type=thread_counts, default=thread_counts("1,all"), help="as in 1,all")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--turn-ms", type=float, default=60.0)
    parser.add_argument("--save", action="store_true", help="write RESULTS.md and results.json")
    args = parser.parse_args(argv)
    started, place = time.time(), report.machine()
    rng = np.random.default_rng(1)
    inputs = {str(m): {"x": rng.standard_normal((m, SIZE)).astype(np.float32)} for m in (1, 4, 16, 128)}
    rows: list[Row] = []
    for kind in KINDS:
        rows += measure(kind, partial(weighted, kind), inputs, KINDS[kind], args)
    decoder = Decoder()
    feeds = {f"{new} + {old}": decoder.feed(new, old) for new, old in ((1, 128), (1, 1000), (16, 0), (128, 0))}
    rows += measure("decoder", decoder.model, feeds, KINDS["MatMulNBits"], args)
    report.conclude(
        "few_bits", "Weights of few bits", started, place, page(rows), {"rows": list(map(asdict, rows))}, args.save
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
