"""`python -m benchmarks.device build|run|report FOLDER`; see the package."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.device.build import build
from benchmarks.device.run import run

RESULTS = "results.json"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.device", description=__doc__)
    parser.add_argument("step", choices=("build", "run", "report"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--target", default="cuda:sm_90", help="what is compiled for [cuda:sm_90]")
    parser.add_argument("--only", default="", help="run the cases with this in their names")
    parser.add_argument("--out", type=Path, help=f"the file of results [FOLDER/{RESULTS}]")
    given = parser.parse_args(argv)
    results: Path = given.out or given.folder / RESULTS
    if given.step == "build":
        build(given.folder, given.target)
    elif given.step == "run":
        run(given.folder, results, given.only)
    else:
        save(json.loads(results.read_text()))
    return 0


def save(found: dict[str, Any]) -> None:
    """Write the section of RESULTS.md."""
    place, rows = found["place"], found["rows"]
    products = [row for row in rows if "of_cublas" in row]
    networks = [row for row in rows if "compiled_ms" in row]
    body = [
        f"On an {place['device']}, with torch {place['torch']} and CUDA {place['cuda']}. Milliseconds on the device by"
        " CUDA events, the median of seven turns; inputs and weights are random, in halves, and stay on the device.",
        "Products of square matrices, each way as a CUDA graph; the error is that of the whole result:",
        report.table(
            ["size", "dscc ms", "cuBLAS ms", "dscc TFLOP/s", "cuBLAS TFLOP/s", "of cuBLAS", "error"],
            [
                [
                    row["case"].split()[-1],
                    *(f"{row[key]:.4f}" for key in ("dscc_ms", "cublas_ms")),
                    *(f"{row[key]:.0f}" for key in ("tflops", "cublas_tflops")),
                    f"{row['of_cublas']:.2f}",
                    f"{row['error']:.1e}",
                ]
                for row in products
            ],
        ),
        "Networks with `--precision fp16`; torch's run in halves, eager, by torch.compile, and that as a CUDA graph."
        " dscc replays a graph from the third run on the same shapes. The error is against onnxruntime in float32,"
        " of the largest element.",
        report.table(
            ["network", "inputs", "dscc ms", "as launches", "eager", "compiled", "compiled, graph", "error"],
            [
                [row["case"], row["inputs"]]
                + [f"{row[key]:.3f}" if key in row else "-" for key in _COLUMNS]
                + [f"{row['error']:.1e}"]
                for row in networks
            ],
        ),
        *(f"`{row['case']}` failed: {row['failed']}" for row in rows if "failed" in row),
    ]
    when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(found["began"]))
    head = [
        "## CUDA",
        "    make device-bench",
        f"- when: {when} UTC; dscc {report.revision()}; apache-tvm {report.version('apache-tvm')},"
        f" NVRTC {report.version('nvidia-cuda-nvrtc')}, torch {place['torch']}\n"
        f"- where: {place['device']}",
    ]
    report.save("device", {"place": place, "rows": rows}, "\n\n".join([*head, *body]))


_COLUMNS = ("dscc_graph_ms", "dscc_launched_ms", "eager_ms", "compiled_ms", "compiled_graph_ms")


if __name__ == "__main__":
    raise SystemExit(main())
