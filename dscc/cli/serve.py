"""`dscc serve`: lend this machine, and the device in it, to `dscc tune --rpc`."""

from __future__ import annotations

import signal
import sys
import threading

import click


@click.command("serve", short_help="Lend this machine to 'dscc tune --rpc'.")
@click.option("--key", default="default", show_default=True, help="What this machine is called at the tracker.")
@click.option("--tracker", metavar="HOST:PORT", help="A tracker that runs already; one is started otherwise.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option("--port", type=click.IntRange(1, 65535), default=9091, show_default=True, help="The port to listen at.")
def command(key: str, tracker: str | None, host: str, port: int) -> None:
    """Measure candidates of kernels for 'dscc tune --rpc' on this machine, until Ctrl-C.

    Whoever reaches the port runs what he likes on this machine: it listens on loopback unless --host says otherwise.
    Reach it from elsewhere through 'ssh -L', of this port and of the tracker's.
    """
    from dscc.errors import TuneError
    from dscc.tune.serve import serving

    where: tuple[str, int] | None = None
    if tracker is not None:
        name, _, number = tracker.rpartition(":")
        if not (name and number.isdecimal()):
            raise TuneError(f"tracker '{tracker}': expected HOST:PORT, as in 127.0.0.1:9190")
        where = name, int(number)
    with serving(host, port, key, where) as (name, at):
        click.echo(f"serving at {host}:{port}; use it: dscc tune MODEL --rpc {name}:{at} --key {key}")
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # not without ending the processes that serve
        threading.Event().wait()
