"""How commands print: tables, sizes and durations.

Plain text where the output is not a terminal, so that it can be searched.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from dscc.artifact import Artifact


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], title: str = "", file: TextIO | None = None) -> None:
    """Print a table: aligned columns, wrapped only on a terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    file = file or sys.stdout
    console = Console(file=file, width=None if file.isatty() else 1000, highlight=False, soft_wrap=not file.isatty())
    if title:
        console.print(Text(title, style="bold"))
    shown = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for header in headers:
        shown.add_column(header, overflow="fold")
    for row in rows:
        shown.add_row(*(Text(cell) for cell in row))
    with console.capture() as captured:
        console.print(shown)
    file.write("\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n")


def size(count_bytes: float) -> str:
    """`4.7 MB`, in powers of ten as file managers and package indexes count."""
    for unit in ("B", "kB", "MB"):
        if count_bytes < 1000:
            return f"{count_bytes:.0f} {unit}" if unit == "B" else f"{count_bytes:.1f} {unit}"
        count_bytes /= 1000
    return f"{count_bytes:.2f} GB"


def number(value: float) -> str:
    """`46.7 billion`, `12.9 million`, `4096`."""
    for least, word in ((1e9, "billion"), (1e6, "million")):
        if value >= least:
            return f"{value / least:.3g} {word}"
    return f"{value:.0f}"


def milliseconds(value_ms: float) -> str:
    """Three significant digits: `0.123 ms`, `12.3 ms`, `1.23 s`."""
    if value_ms >= 1000:
        return f"{value_ms / 1000:.2f} s"
    digits = 3 if value_ms < 1 else 2 if value_ms < 10 else 1
    return f"{value_ms:.{digits}f} ms"


def shape(dims: Sequence[int | str]) -> str:
    """`1x3xHxW`, `batch x 4` where a name is longer than a letter, and `scalar` for no dimensions."""
    words = [str(dim) for dim in dims]
    plain = all(word.isdecimal() or len(word) == 1 for word in words)
    return ("x" if plain else " x ").join(words) or "scalar"


def count(number: int, noun: str) -> str:
    """`1 kernel`, `12 kernels`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def summary(artifact: Artifact, written: Path, seconds: float) -> None:
    """What a compilation ends with: what was fused, how many kernels, bytes of weights, what fell back, how long."""
    manifest = artifact.manifest
    found = manifest.summary
    lines = [f"{written}: {size(written.stat().st_size)} for {manifest.target}"]
    applied: Mapping[str, int] = found.get("fused", {})
    fused = {name: number for name, number in applied.items() if name.startswith(("fuse-", "fold-"))}
    lines.append("fused: " + (", ".join(f"{name} {number}" for name, number in fused.items()) or "nothing"))
    if others := sum(applied.values()) - sum(fused.values()):
        lines.append(f"simplified: {count(others, 'place')}")
    lines.append(f"{count(found.get('kernels', 0), 'kernel')}, {size(found.get('weight_bytes', 0))} of weights")
    if parameters := found.get("parameters"):
        total, per_token = (number(parameters[key]) for key in ("total", "per_token"))
        lines.append(f"{total} parameters, {per_token} of them for a token")
    fallback: Sequence[str] = found.get("fallback", ())
    lines.append(f"fell back: {', '.join(fallback)}" if fallback else "nothing fell back")
    lines.append(f"compiled in {seconds:.1f} s")
    print("\n".join(lines))
