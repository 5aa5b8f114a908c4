"""A seed, and what the model made of it where it was compiled: `dscc verify` compares without the model file.

Of every output the manifest keeps its SHA-256 and a few of its values. The same code gives the same bits whatever the
number of threads; where a library of the system computes in another way (its exponential, say), the values still agree.
"""

from __future__ import annotations

import hashlib
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dscc.artifact import Artifact, host
from dscc.errors import InputError
from dscc.feeds import random_feeds
from dscc.runtime import Module, device
from dscc.runtime.containers import flatten
from dscc.verify import TOLERANCE

SEED = 0
SAMPLES = 16  # values of each output, evenly spread over it


LIMIT_CPU_S = 12  # of processor time, for a model that may run for as long as it likes
LIMIT_BYTES = 8 << 30


def record(artifact: Artifact, isolated: bool = False) -> Artifact:
    """The artifact with a check in its manifest.

    It is as it was where this machine cannot run it, or the model does not take inputs of the usual sizes.

    Args:
        isolated: run it in a process of its own, with limits: it may take any time and memory. What does not stay
            within them has no check.
    """
    if host.unfit(artifact.manifest) or (artifact.manifest.device and device.missing(artifact.manifest)):
        return artifact
    found = _outputs_elsewhere(artifact) if isolated else _outputs(artifact, None)
    return artifact if found is None else artifact.with_check({"seed": SEED, "outputs": found})


def _outputs(artifact: Artifact, threads: int | None) -> dict[str, Any] | None:
    try:
        outputs = _run(artifact.load(threads), SEED)
    except (InputError, MemoryError):
        return None
    return {name: _digest(out) for name, out in outputs.items()}


def _outputs_elsewhere(artifact: Artifact) -> dict[str, Any] | None:
    with tempfile.TemporaryDirectory(prefix="dscc-") as folder:
        path = Path(folder) / "model.dscc"
        artifact.save(path)
        command = [sys.executable, "-c", "from dscc import selfcheck; selfcheck.serve()", str(path)]
        try:
            done = subprocess.run(command, capture_output=True, timeout=30 * LIMIT_CPU_S)
        except subprocess.TimeoutExpired:  # it waits for something
            return None
    if done.returncode != 0:
        return None
    found: dict[str, Any] | None = json.loads(done.stdout)
    return found


def serve() -> None:
    """In a process of its own: print the outputs of the artifact that the first argument names."""
    # On one thread, so that the time does not depend on how many there are; the bits do not.
    resource.setrlimit(resource.RLIMIT_CPU, (LIMIT_CPU_S, LIMIT_CPU_S))
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    limit = LIMIT_BYTES if most == resource.RLIM_INFINITY else min(most, LIMIT_BYTES)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, most))
    print(json.dumps(_outputs(Artifact.open(sys.argv[1]), 1)))


def failures(module: Module) -> dict[str, str]:
    """What is wrong with each output that is not as it was where the model was compiled, by name.

    Raises:
        InputError: the artifact has no check.
    """
    check = module.manifest.check
    if not check:
        raise InputError("the artifact holds no check of itself; give --against MODEL.onnx")
    found = _run(module, check["seed"])
    reasons = {name: _reason(found.get(name), want) for name, want in check["outputs"].items()}
    return {name: reason for name, reason in reasons.items() if reason}


def _run(module: Module, seed: int) -> dict[str, np.ndarray[Any, Any]]:
    """The tensors of all outputs, for inputs made from the seed."""
    names = [info.name for info in module.get_outputs()]
    outputs = zip(names, module.run(names, random_feeds(module.get_inputs(), {}, seed)), strict=True)
    return {key: array for name, held in outputs for key, array in flatten(name, held).items()}


def _digest(output: np.ndarray[Any, Any]) -> dict[str, Any]:
    """What is recorded of an output; its samples as text: JSON knows no infinity."""
    if _is_text(output):
        content, samples = "\0".join(map(str, output.reshape(-1))).encode(), [str(text) for text in _samples(output)]
    else:
        numbers = np.stack([output.real, output.imag]) if output.dtype.kind == "c" else output
        content, samples = np.ascontiguousarray(output).tobytes(), [f"{float(n):.9g}" for n in _samples(numbers)]
    return {"shape": list(output.shape), "sha256": hashlib.sha256(content).hexdigest(), "samples": samples}


def _is_text(output: np.ndarray[Any, Any]) -> bool:
    """Whether these are strings, which another engine computed."""
    return output.dtype.kind in "OSU"


def _samples(output: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    positions = np.linspace(0, output.size - 1, min(SAMPLES, output.size)).astype(np.int64)
    return output.reshape(-1)[positions]


def _reason(output: np.ndarray[Any, Any] | None, want: Mapping[str, Any]) -> str:
    if output is None:
        return "it is missing from a sequence"
    got = _digest(output)
    if got["sha256"] == want["sha256"]:
        return ""
    if got["shape"] != want["shape"]:
        return f"shape {tuple(got['shape'])}, expected {tuple(want['shape'])}"
    if _is_text(output):
        close = np.array(got["samples"]) == np.array(want["samples"])
        if close.all():
            return "a text differs"
    else:
        now, then = (np.array([float(text) for text in samples]) for samples in (got["samples"], want["samples"]))
        close = np.isclose(
            now, then, rtol=0, atol=TOLERANCE * np.abs(then[np.isfinite(then)]).max(initial=0), equal_nan=True
        )
        if close.all():
            return ""
    worst = int(np.argmin(close))
    return f"value {got['samples'][worst]}, expected {want['samples'][worst]}"
