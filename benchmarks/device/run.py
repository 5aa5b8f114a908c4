"""Measure what `build` made, beside torch on the same device: eager, compiled, and both replayed as CUDA graphs.

Case by case ours come first, then torch's. Inputs and weights are random, on the device, and in halves for torch; a
case that fails says so and lets the others go on.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.device import seeds
from benchmarks.device.build import PRODUCTS
from benchmarks.device.clock import Resident, graph_of, median_ms

Row = dict[str, Any]
Feeds = dict[str, np.ndarray[Any, Any]]
_TOLERANCE = 2e-2  # of the largest element: halves against float32 through a whole network


def run(folder: Path, out: Path, only: str = "") -> None:
    """Measure everything in `folder`, or the cases with `only` in their names; `out` is rewritten after every case."""
    import torch

    began, rows = time.time(), list[Row]()
    place = {"device": torch.cuda.get_device_name(0), "torch": torch.__version__, "cuda": torch.version.cuda}
    for name, measure in cases(folder):
        if only not in name:
            continue
        try:
            with torch.inference_mode():
                for row in measure():
                    rows.append({"case": name, **row})
                    print(f"{time.time() - began:6.1f} s  {json.dumps(rows[-1])}", flush=True)
                    out.write_text(json.dumps({"place": place, "began": began, "rows": rows}, indent=1) + "\n")
        except Exception as err:  # noqa: BLE001  one case that fails is a result
            traceback.print_exc(file=sys.stdout)
            rows.append({"case": name, "failed": f"{type(err).__name__}: {err}"[:300]})
        torch.cuda.empty_cache()


def cases(folder: Path) -> Iterator[tuple[str, Callable[[], Iterator[Row]]]]:
    """Every case: its name, and what measures it."""
    for size in PRODUCTS:
        yield f"product {size}", lambda size=size: products(folder, size)  # type: ignore[misc]
    yield "resnet50", lambda: network(folder, "resnet50", images(), resnet)
    yield "bert_base", lambda: network(folder, "bert_base", texts(), bert)
    yield "llama_8x1024", lambda: network(folder, "llama_8x1024", prompts(), llama)


def products(folder: Path, size: int) -> Iterator[Row]:
    """A product of halves against torch.matmul, which is cuBLAS."""
    import torch

    ours = Resident(folder / f"product_{size}.dscc")
    a, b = (torch.randn(size, size, device="cuda").half() for _ in range(2))
    got = ours.module.run(None, {"a": a.cpu().numpy(), "b": b.cpu().numpy()})[0]
    want = (a.float() @ b.float()).cpu().numpy()
    error = float(np.linalg.norm(got.astype(np.float64) - want) / np.linalg.norm(want))
    out = torch.empty_like(a)
    repeats = max(5, min(100, int(2e-3 / (2 * size**3 / 6e14))))
    ways = ours.bind({"a": a.cpu().numpy(), "b": b.cpu().numpy()})
    cublas = median_ms(graph_of(lambda: torch.matmul(a, b, out=out)), repeats)
    mine = median_ms(ways.get("graph", ways["launched"]), repeats)
    rates = {"tflops": 2e-9 * size**3 / mine, "cublas_tflops": 2e-9 * size**3 / cublas}
    yield {"error": error, "dscc_ms": mine, "cublas_ms": cublas, **rates, "of_cublas": cublas / mine}


def network(
    folder: Path, name: str, inputs: Iterator[tuple[str, Feeds]], peer: Callable[[], tuple[Any, Any]]
) -> Iterator[Row]:
    """A network on several inputs, ours and torch's."""
    import torch

    artifact = Path(f"/tmp/{name}.dscc")
    seeds.restore(folder / f"{name}.light", artifact)
    ours = Resident(artifact)
    error = ours.check(dict(np.load(folder / f"{name}.npz")))
    if not error < _TOLERANCE:
        yield {"error": error, "failed": "the error is too large"}
    module, convert = peer()
    for what, feeds in inputs:
        row: Row = {"inputs": what, "error": error}
        for way, call in ours.bind(feeds).items():
            row[f"dscc_{way}_ms"] = median_ms(call, 10)
        given = [convert(torch.from_numpy(array).cuda()) for array in feeds.values()]
        row["eager_ms"] = median_ms(lambda given=given: module(*given), 5)  # type: ignore[misc]
        torch._dynamo.reset()
        compiled = torch.compile(module, dynamic=False)
        row["compiled_ms"] = median_ms(lambda given=given: compiled(*given), 10)  # type: ignore[misc]
        row["compiled_graph_ms"] = median_ms(graph_of(lambda given=given: compiled(*given)), 10)  # type: ignore[misc]
        yield row


def images() -> Iterator[tuple[str, Feeds]]:
    for batch in (1, 32):
        yield f"{batch}x3x224x224", {"input": _normal(batch, 3, 224, 224)}


def texts() -> Iterator[tuple[str, Feeds]]:
    for batch, length in ((1, 128), (32, 128)):
        ids = np.random.default_rng(0).integers(0, 30522, (batch, length))
        yield (
            f"{batch}x{length}",
            {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)},
        )


def prompts() -> Iterator[tuple[str, Feeds]]:
    for what, batch, new, past in (("prefill", 1, 1024, 0), ("decode", 1, 1, 512)):
        ids = np.random.default_rng(0).integers(0, 32000, (batch, new))
        feeds: Feeds = {"input_ids": ids, "attention_mask": np.ones((batch, new + past), np.int64)}
        for layer in range(8):
            feeds |= {f"past_{kind}_{layer}": _normal(batch, 4, past, 64) for kind in ("key", "value")}
        yield f"{what} {batch}x{new}, {past} before", feeds


def _normal(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def _half(tensor: Any) -> Any:
    return tensor.half() if tensor.is_floating_point() else tensor


def resnet() -> tuple[Any, Any]:
    """ResNet-50 in halves, channels last; and how its inputs are made."""
    import torch

    from benchmarks.networks import ResNet50

    layout = torch.channels_last
    return ResNet50().eval().cuda().half().to(memory_format=layout), lambda x: x.half().to(memory_format=layout)


def bert() -> tuple[Any, Any]:
    """BERT-base in halves."""
    from benchmarks.networks import BertBase

    return BertBase().eval().cuda().half(), _half


def llama() -> tuple[Any, Any]:
    """The Llama of 8 layers of 1024 in halves."""
    from benchmarks.architectures.published import llama_8x1024

    return llama_8x1024()[0].eval().cuda().half(), _half
