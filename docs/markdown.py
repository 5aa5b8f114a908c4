"""What the generated pages are put together from."""

from __future__ import annotations

from collections.abc import Sequence

NOTE = "<!-- Written by `make docs` from the code: change the code, not this page. -->"


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [headers, ["---"] * len(headers), *[[cell.replace("|", "\\|") for cell in row] for row in rows]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
