"""Models on the device, and the time that they take there: events around many runs, the median of several turns."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import dscc
from dscc.runtime.session import Session

ROUNDS = 7


def median_ms(run: Callable[[], object], repeats: int) -> float:
    """Milliseconds of one run, of `repeats` between two events; the median of seven turns after a warm-up."""
    import torch

    for _ in range(3):
        run()
    torch.cuda.synchronize()
    times = []
    for _ in range(ROUNDS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(repeats):
            run()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / repeats)
    return statistics.median(times)


def graph_of(run: Callable[[], object]) -> Callable[[], None]:
    """A run of torch's as a CUDA graph."""
    import torch

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


class Resident:
    """An artifact whose inputs stay on the device: runs are launched, and nothing is copied."""

    def __init__(self, path: Path):
        self.module = dscc.load(path)

    def check(self, expected: Mapping[str, np.ndarray[Any, Any]]) -> float:
        """The largest error of any output, in parts of the largest element, over runs until a graph is replayed."""
        feeds = {key[3:]: value for key, value in expected.items() if key.startswith("in_")}
        names = [info.name for info in self.module.get_outputs()]
        worst = 0.0
        for _ in range(4):
            for name, got in zip(names, self.module.run(None, feeds), strict=True):
                if (want := expected.get(f"out_{name}")) is not None:
                    there = np.asarray(got, np.float64)[..., : want.shape[-1]]
                    error = float(np.abs(there - want).max() / np.abs(want).max())
                    worst = max(worst, error) if error == error else float("nan")
        return worst

    def bind(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, Callable[[], None]]:
        """Ways to run the model on these inputs: `launched` kernel by kernel, and as a `graph` if it can be one."""
        session = Session(self.module._program)
        for port, info in zip(session._ports, self.module.get_inputs(), strict=True):
            port.bind(np.ascontiguousarray(feeds[info.name]))
        library, result = session._library, session._result
        inputs = [session._arguments[i].bits for i in range(len(session._ports))]

        def launched() -> None:
            library.check(session._launch(result))
            library.decref(result.bits)

        def graph() -> None:
            assert session._graphs is not None
            library.check(session._graphs.run(inputs, result))
            library.decref(result.bits)

        return {"launched": launched} if session._graphs is None else {"launched": launched, "graph": graph}
