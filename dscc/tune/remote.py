"""Candidates built on other machines through Ray, and measured on another machine through TVM's RPC."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dscc.errors import TuneError, first_line
from dscc.tune.kernel import ENTRY, Built, Kernel
from dscc.tune.measure import Measured, arrays, difference
from dscc.tune.workers import BUILD_S, RUN_S, Builder, Candidate, Failed, Runner, attempt

_CONNECT_S = 5.0


class RayBuilder(Builder):
    """Builds on a Ray cluster, whose machines have dscc installed.

    Raises:
        TuneError: Ray is not installed, or nothing answers at the address.
    """

    def __init__(self, address: str):
        try:
            import ray
        except ImportError as err:
            raise TuneError("building through Ray needs the package 'ray'; run 'pip install dscc[ray]'") from err
        try:
            host, _, port = address.rpartition(":")
            if host and port.isdecimal():  # Ray itself tries for many minutes
                socket.create_connection((host, int(port)), _CONNECT_S).close()
            ray.init(address, ignore_reinit_error=True, logging_level="error", log_to_driver=False)
        except (OSError, OverflowError, ValueError, RuntimeError) as err:
            raise TuneError(f"no Ray cluster answers at '{address}': {str(err).splitlines()[0]}") from err
        self._ray: Any = ray
        self._attempt = ray.remote(max_retries=0)(attempt)

    def build(self, kernel: Kernel, candidates: Sequence[Candidate]) -> list[Built | Failed]:
        references = [self._attempt.remote(kernel, candidate) for candidate in candidates]
        done: list[Built | Failed] = []
        for reference in references:
            try:
                done.append(self._ray.get(reference, timeout=BUILD_S))
            except (self._ray.exceptions.RayError, TimeoutError) as err:
                self._ray.cancel(reference, force=True)
                done.append(Failed(f"the remote builder ended: {type(err).__name__}"))
        return done

    def close(self) -> None:
        self._ray.shutdown()


class RpcRunner(Runner):
    """Measures on a machine that serves TVM's RPC, found through its tracker.

    Args:
        address: `HOST:PORT` of the tracker.
        key: under which the machine is known there.

    Raises:
        TuneError: the address is none, or no machine can be had.
    """

    def __init__(self, address: str, key: str):
        from tvm import rpc

        host, _, port = address.rpartition(":")
        if not (host and port.isdecimal()):
            raise TuneError(f"tracker '{address}': expected HOST:PORT, as in 127.0.0.1:9190")
        try:
            # TVM's own connection is tried for a minute before it gives up.
            socket.create_connection((host, int(port)), _CONNECT_S).close()
            self._remote: Any = rpc.connect_tracker(host, int(port)).request(key, session_timeout=int(RUN_S))
        except (RuntimeError, OSError, OverflowError) as err:
            raise TuneError(f"no machine with key '{key}' can be had from the tracker at '{address}': {err}") from err
        self._count = 0

    def measure(self, kernel: Kernel, default: Built, candidate: Built, pairs: int, limit: float) -> Measured:
        try:
            base, tried = self._load(kernel, default), self._load(kernel, candidate)
            theirs = mine = float("inf")
            for turn in range(pairs):
                theirs, mine = min(theirs, base.time()), min(mine, tried.time())
                if turn >= 4 and mine > limit * theirs:
                    break
            error = max((difference(a, b) for a, b in zip(tried.outputs(), base.outputs(), strict=True)), default=0.0)
            return Measured(error, mine / theirs, mine * 1e9)
        except Exception as err:  # the candidate or the connection: either way there is no measurement
            raise Failed(first_line(err)[:200]) from err

    def _load(self, kernel: Kernel, built: Built) -> _Remote:
        self._count += 1
        with tempfile.TemporaryDirectory(prefix="dscc-") as folder:
            path = Path(folder) / f"candidate{self._count}.so"
            path.write_bytes(built.library)
            self._remote.upload(str(path))
        module = self._remote.load_module(path.name)
        return _Remote(self._remote, module, kernel, arrays(kernel, built))

    def close(self) -> None:
        self._remote = None


class _Remote:
    """A candidate on the other machine, with its arguments."""

    def __init__(self, remote: Any, module: Any, kernel: Kernel, made: Sequence[Any]):
        import tvm

        device = remote.cpu()
        self._arguments: list[Any] = [
            item if isinstance(item, int) else tvm.runtime.tensor(item, device) for item in made
        ]
        self._outputs = [i for i, argument in enumerate(kernel.arguments) if argument.role == "output"]
        self._evaluate = module.time_evaluator(ENTRY, device, number=1, repeat=1, min_repeat_ms=2)

    def time(self) -> float:
        return float(self._evaluate(*self._arguments).mean)

    def outputs(self) -> list[np.ndarray]:
        return [self._arguments[i].numpy() for i in self._outputs]
