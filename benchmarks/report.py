"""Results for people and for programs: `results.json`, and `RESULTS.md` that is rendered from it.

Each script owns one section of both and replaces it as a whole, so that a section is always the outcome of one command.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
PACKAGES = ("apache-tvm", "numpy", "onnx", "onnxruntime", "openvino", "iree-base-compiler", "torch")
INSTRUCTIONS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "avx_vnni")


def machine() -> dict[str, Any]:
    """What the figures were taken on; the load average says whether it had anything else to do."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in info if ":" in line)
    found = {key.strip(): value.strip() for key, value in fields.items()}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": f"{found.get('model name', platform.machine())}, family {found.get('cpu family', '?')}"
        f" model {found.get('model', '?')}",
        "instructions": " ".join(i for i in INSTRUCTIONS if i in found.get("flags", "").split()),
        "cores": len(os.sched_getaffinity(0)),
        "memory": f"{memory / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "versions": {name: version(name) for name in PACKAGES},
        "dscc": revision(),
        "load average": f"{os.getloadavg()[0]:.1f}",
    }


def version(package: str) -> str:
    """Of an installed package, or `not installed`."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def revision() -> str:
    """The commit that is measured, with a mark when the tree has changes."""
    command = ["git", "-C", str(FOLDER.parent), "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def command_line(module: str) -> str:
    """The running command as one would type it."""
    return shlex.join(["python", "-m", module, *sys.argv[1:]])


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, aligned so that it can also be read as it is; figures to the right."""
    cells = [list(headers), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headers))]
    right = [all(row[i][:1].isdigit() or row[i] in ("", "-") for row in cells[1:]) for i in range(len(headers))]

    def line(row: Sequence[str]) -> str:
        aligned = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)]
        return f"| {' | '.join(aligned)} |"

    rule = "|".join(f"{'-' * (w + 1)}{':' if r else '-'}" for w, r in zip(widths, right, strict=True))
    return "\n".join([line(cells[0]), f"|{rule}|", *(line(row) for row in cells[1:])])


def section(title: str, command: str, started: float, place: Mapping[str, Any], body: str) -> str:
    """One section of the page: what was measured, by which command, where and when."""
    versions = ", ".join(f"{name} {number}" for name, number in place["versions"].items())
    when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(started))
    return "\n".join(
        [
            f"## {title}",
            "",
            f"    {command}",
            "",
            f"- when: {when} UTC, {(time.time() - started) / 60:.0f} minutes; dscc {place['dscc']}; {versions}",
            f"- where: {place['processor']} ({place['instructions']}), {place['cores']} cores, {place['memory']},"
            f" {place['system']}; load average before the start {place['load average']}",
            "",
            body,
        ]
    )


def conclude(
    key: str, title: str, started: float, place: Mapping[str, Any], body: str, data: Mapping[str, Any], keep: bool
) -> None:
    """Print the section of the script `benchmarks.KEY`, and save it if that is wanted."""
    text = section(title, command_line(f"benchmarks.{key}"), started, place, body)
    print(text)
    if keep:
        save(key, {**data, "machine": place}, text)


def save(key: str, data: Mapping[str, Any], text: str) -> None:
    """Replace the section `key` of the results, and write the page anew."""
    path = FOLDER / "results.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    results[key] = {**data, "text": text}
    path.write_text(json.dumps(results, indent=1) + "\n")
    head = "# Results\n\nWritten by the commands below; each section says how its figures are taken.\n\n"
    (FOLDER / "RESULTS.md").write_text(head + "\n\n".join(results[k]["text"] for k in sorted(results)) + "\n")
