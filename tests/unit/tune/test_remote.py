"""Tuning for a machine of another family behind TVM's RPC: here a program for ARM under qemu serves it."""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
import struct
import subprocess
import threading
from pathlib import Path

import click.testing
import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser
from tvm.rpc import base

import dscc
from benchmarks import cross
from dscc.cli.entry import cli

MACHINE = "aarch64"
needs_qemu = pytest.mark.skipif(bool(cross.missing(MACHINE)), reason="qemu-user and g++-aarch64-linux-gnu are needed")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The server, built for ARM against TVM's wheels."""
    folder, path = cross.runtime(MACHINE), tmp_path_factory.mktemp("serve") / "serve"
    command = [f"{MACHINE}-linux-gnu-g++", "-std=c++17", "-O0", "-isystem", folder / "tvm_ffi" / "include"]
    command += [Path(__file__).with_name("serve.cc"), "-o", path, "-Wl,--no-as-needed"]
    for package, names in (("tvm_ffi", ["tvm_ffi"]), ("tvm", ["tvm_runtime", "tvm_runtime_extra"])):
        libraries = folder / package / "lib"
        command += [f"-L{libraries}", f"-Wl,-rpath,{libraries}", *(f"-l{name}" for name in names)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture
def tracker(program: Path, tmp_path: Path):
    """`HOST:PORT` of a tracker that has one machine with the key `board`."""
    with socket.create_server(("127.0.0.1", 0)) as ask, socket.create_server(("127.0.0.1", 0)) as serve:
        threading.Thread(target=_track, args=(ask, serve.getsockname()[1]), daemon=True).start()
        threading.Thread(target=_serve, args=(serve, program, tmp_path), daemon=True).start()
        yield f"127.0.0.1:{ask.getsockname()[1]}"


def _track(listening: socket.socket, port: int) -> None:
    """A tracker's side of its protocol, for one client, who may have looked before whether there is one."""
    client, _ = listening.accept()
    while not client.recv(1, socket.MSG_PEEK):
        client.close()
        client, _ = listening.accept()
    with client:
        client.sendall(base.recvall(client, 4))  # the magic number
        code, key, *_ = base.recvjson(client)
        assert (code, key) == (base.TrackerCode.REQUEST, "board")
        base.sendjson(client, [base.TrackerCode.SUCCESS, ["127.0.0.1", port, "board:1"]])


def _serve(listening: socket.socket, program: Path, folder: Path) -> None:
    """A server's greeting; the program does the rest."""
    client, _ = listening.accept()
    with client:
        assert struct.unpack("<i", base.recvall(client, 4))[0] == base.RPC_MAGIC
        assert base.recvall(client, struct.unpack("<i", base.recvall(client, 4))[0]).startswith(b"client:board:1")
        client.sendall(struct.pack("<ii", base.RPC_CODE_SUCCESS, 12) + b"server:board")
        environment = {**os.environ, "QEMU_LD_PREFIX": f"/usr/{MACHINE}-linux-gnu"}
        command = [f"qemu-{MACHINE}", "-cpu", "cortex-a76", program, str(client.fileno())]
        subprocess.run(command, cwd=folder, env=environment, pass_fds=[client.fileno()], check=False)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    text = "g (float[n, 24] x) => (float[n, 40] y) { a = MatMul (x, w) y = Relu (a) }"
    made = parser.parse_model(f'<ir_version: 10, opset_import: ["": 17]> {text}')
    w = np.random.default_rng(0).standard_normal((24, 40)).astype("float32")
    made.graph.initializer.append(numpy_helper.from_array(w, "w"))
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    onnx.save(made, path)
    return path


def tune(model: Path, database: Path, *options: str) -> click.testing.Result:
    command = ["tune", str(model), "--target", "arm:cortex-a76", "--db", str(database), "--trials", "3", *options]
    return click.testing.CliRunner().invoke(cli, [*command, "--dim", "n=5"])


@needs_qemu
def test_candidates_are_measured_there(tracker: str, model: Path, tmp_path: Path) -> None:
    done = tune(model, tmp_path / "found.db", "--rpc", tracker, "--key", "board")
    assert done.exit_code == 0, done.output
    assert "3 trials" in done.output
    with contextlib.closing(sqlite3.connect(tmp_path / "found.db")) as kept:
        assert kept.execute("SELECT DISTINCT state FROM trial").fetchall() == [("right",)]
        assert kept.execute("SELECT target, machine FROM kernel").fetchall() == [("arm:cortex-a76", "rpc board")]
    dscc.compile(model, target="arm:cortex-a76", db=tmp_path / "found.db")


def test_without_a_machine_it_says_so(model: Path, tmp_path: Path) -> None:
    done = tune(model, tmp_path / "found.db")
    assert done.exit_code != 0
    assert "kernels for 'arm:cortex-a76' cannot be measured here" in str(done.exception or done.output)
