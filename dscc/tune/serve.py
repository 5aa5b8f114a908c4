"""Lend this machine to a search: TVM's RPC server and a tracker that knows it.

    with serving("127.0.0.1", 9091, "board", None) as tracker: ...

The server runs what it is sent: it listens where it is told, and on loopback unless told otherwise. Every session is a
process of its own, in which the device is opened when a client asks for it.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

from dscc.errors import ArtifactError, TuneError

OPEN = "dscc.tune.open"
"""The server's function that opens a device. It takes what the device has to be and answers, both in JSON: `name`, or
the `reason` why it cannot be used."""
TRACKER_PORT = 9190


@contextlib.contextmanager
def serving(host: str, port: int, key: str, tracker: tuple[str, int] | None) -> Iterator[tuple[str, int]]:
    """While this lasts, the machine can be had from the tracker, whose address it gives.

    Args:
        host, port: where the server listens.
        key: what the machine is called at the tracker.
        tracker: a tracker that runs already; one on this host and `TRACKER_PORT`, or the next free port, if None.

    Raises:
        TuneError: nothing can listen there, or no tracker answers.
    """
    from tvm.rpc.server import Server

    with contextlib.ExitStack() as stack:
        try:
            if tracker is None:
                tracker = _start_tracker(stack, host)
            socket.create_connection(tracker, 5).close()
            address = None if host in ("0.0.0.0", "::") else host
            server = Server(
                host, port, port + 1, tracker_addr=tracker, key=key, custom_addr=address, silent=True,
                server_init_callback=_prepare,
            )  # fmt: skip
        except ImportError as err:
            raise TuneError(f"serving needs the package '{err.name}'; run 'pip install dscc[rpc]'") from err
        except (OSError, RuntimeError, ValueError) as err:
            raise TuneError(f"this machine cannot be served at {host}:{port}: {err}") from err
        stack.callback(server.terminate)
        yield tracker


def _start_tracker(stack: contextlib.ExitStack, host: str) -> tuple[str, int]:
    from tvm.rpc.tracker import Tracker

    tracker = Tracker(host, TRACKER_PORT, TRACKER_PORT + 100, silent=True)

    def end() -> None:
        # Its own `terminate`, which its destructor calls, connects to 127.0.0.1 wherever it listens.
        tracker.proc.kill()
        tracker.proc = None

    stack.callback(end)
    return ("127.0.0.1" if host == "0.0.0.0" else host), tracker.port


def _prepare() -> None:
    """What the server's process does first."""
    import tvm_ffi
    from tvm.rpc import server

    tvm_ffi.register_global_func(OPEN, _open)
    server._serving = _surviving(server._serving)


def _open(needs: str) -> str:
    from dscc.artifact import host
    from dscc.runtime import device

    wanted: dict[str, Any] = json.loads(needs)
    try:
        return json.dumps({"name": device.opened(wanted).name if wanted else host.processor()})
    except ArtifactError as err:
        return json.dumps({"reason": str(err)})


def _surviving(serve: Callable[..., None]) -> Callable[..., None]:
    """In TVM 0.27 a session whose process ends by a signal, as a candidate may make it, ends the whole server: its
    `_serving` raises RuntimeError, which nothing catches.
    """

    def survive(sock: socket.socket, *arguments: Any) -> None:
        folder = os.getcwd()
        try:
            serve(sock, *arguments)
        except RuntimeError:
            os.chdir(folder)
            sock.close()

    return survive
