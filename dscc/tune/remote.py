"""Candidates built on other machines through Ray, and measured on another machine through TVM's RPC."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dscc.errors import TuneError, first_line
from dscc.tune import serve
from dscc.tune.kernel import ENTRY, Built, Kernel
from dscc.tune.measure import Measured, arrays, largest_difference
from dscc.tune.workers import BUILD_S, RUN_S, Builder, Candidate, Failed, Runner, attempt

_CONNECT_S = 5.0
_SESSION_S = 2 * RUN_S  # after which the server ends a session: that is how one ends whose candidate hangs
_TVMS_OWN = frozenset({"cuda"})  # kinds of devices that TVM's wheel has a runtime for


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
        needs: the device that kernels are for, as `DeviceTarget.device` says it; nothing for a processor.

    Attributes:
        machine: what measures: the processor or the device, as its system or driver names it.

    Raises:
        TuneError: the address is none, no machine can be had, or it has not the device.
    """

    def __init__(self, address: str, key: str, needs: Mapping[str, Any] | None = None):
        host, _, port = address.rpartition(":")
        if not (host and port.isdecimal()):
            raise TuneError(f"tracker '{address}': expected HOST:PORT, as in 127.0.0.1:9190")
        self._host, self._port, self._key, self._needs = host, int(port), key, dict(needs or {})
        self._count = 0
        self._base: tuple[Built, _Remote] | None = None
        self._remote: Any = None
        self._connect()

    def _connect(self) -> None:
        """Begin a session: the server ends one after a time, and a candidate may have ended it."""
        from tvm import rpc

        self.close()
        try:
            # TVM's own connection is tried for a minute before it gives up.
            socket.create_connection((self._host, self._port), _CONNECT_S).close()
            tracker = rpc.connect_tracker(self._host, self._port)
            self._remote = tracker.request(self._key, session_timeout=int(_SESSION_S))
        except (RuntimeError, OSError, OverflowError) as err:
            where = f"'{self._key}' can be had from the tracker at '{self._host}:{self._port}'"
            raise TuneError(f"no machine with key {where}: {err}") from err
        self._until = time.monotonic() + _SESSION_S - RUN_S
        self.machine = self._opened()

    def _opened(self) -> str:
        try:
            open_there = self._remote.get_function(serve.OPEN)
        except (AttributeError, RuntimeError):  # a server of TVM's own, which has the runtimes that TVM's wheel has
            kind = self._needs.get("kind")
            if kind is None:
                return f"rpc {self._key}"
            device = self._remote.device(kind)
            if kind in _TVMS_OWN and device.exist:
                return str(device.device_name)
            raise TuneError(
                f"the machine with key '{self._key}' has no runtime for '{kind}' devices; run 'dscc serve' on it"
            ) from None
        answer = json.loads(open_there(json.dumps(self._needs)))
        if "reason" in answer:
            raise TuneError(f"the machine with key '{self._key}' cannot measure: {answer['reason']}")
        return str(answer["name"])

    def measure(self, kernel: Kernel, default: Built, candidate: Built, pairs: int, limit: float) -> Measured:
        if self._remote is None or time.monotonic() > self._until:
            self._connect()
        try:
            if self._base is None or self._base[0] is not default:
                self._base = None  # its memory is free before the next one's is taken
                self._base = default, self._load(kernel, default)
            base, tried = self._base[1], self._load(kernel, candidate)
            theirs = mine = float("inf")
            for turn in range(pairs):
                theirs, mine = min(theirs, base.time()), min(mine, tried.time())
                if turn >= 4 and mine > limit * theirs:
                    break
            return Measured(largest_difference(tried.outputs(), base.outputs()), mine / theirs, mine * 1e9)
        except Exception as err:  # the candidate or the connection: either way there is no measurement
            self.close()
            raise Failed(first_line(err)[:200]) from err

    def _load(self, kernel: Kernel, built: Built) -> _Remote:
        self._count += 1
        name = f"candidate{self._count}.so"
        self._remote.upload(bytearray(built.library), name)
        module = self._remote.load_module(name)
        return _Remote(self._remote, module, kernel, built)

    def close(self) -> None:
        """End the session, which the server has one of at a time: what is left of it here, as an error's frames may
        keep it, does not keep it open.
        """
        self._base, remote, self._remote = None, self._remote, None
        if remote is not None:
            with contextlib.suppress(Exception):  # it may have ended already
                remote.get_function("CloseRPCConnection")()


class _Remote:
    """A candidate on the other machine, with its arguments where it runs."""

    def __init__(self, remote: Any, module: Any, kernel: Kernel, built: Built):
        import tvm

        device = remote.device(built.device["kind"]) if built.device else remote.cpu()
        self._arguments: list[Any] = [
            item if isinstance(item, int) else tvm.runtime.tensor(item, device) for item in arrays(kernel, built)
        ]
        self._outputs = [i for i, argument in enumerate(kernel.arguments) if argument.role == "output"]
        self._evaluate = module.time_evaluator(ENTRY, device, number=1, repeat=1, min_repeat_ms=2)

    def time(self) -> float:
        return float(self._evaluate(*self._arguments).mean)

    def outputs(self) -> list[np.ndarray]:
        return [self._arguments[i].numpy() for i in self._outputs]
