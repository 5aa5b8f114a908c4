"""How commands print numbers and tables."""

import io

import pytest

from dscc.cli import output


@pytest.mark.parametrize(
    ("count_bytes", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (4.75e6, "4.8 MB"), (2.5e9, "2.50 GB")]
)
def test_size(count_bytes: float, text: str) -> None:
    assert output.size(count_bytes) == text


@pytest.mark.parametrize(
    ("value_ms", "text"), [(0.1234, "0.123 ms"), (1.234, "1.23 ms"), (12.34, "12.3 ms"), (1234, "1.23 s")]
)
def test_milliseconds(value_ms: float, text: str) -> None:
    assert output.milliseconds(value_ms) == text


def test_shape_and_count() -> None:
    assert output.shape([1, "H"]) == "1xH"
    assert output.shape(["batch", 4]) == "batch x 4"
    assert output.shape([]) == "scalar"
    assert output.count(1, "kernel") == "1 kernel"
    assert output.count(2, "kernel") == "2 kernels"


def test_table_is_aligned_and_taken_literally() -> None:
    file = io.StringIO()
    output.table(["name", "value"], [["a", "[red]x[/red]"], ["longer", "y" * 200]], file=file)
    lines = file.getvalue().splitlines()
    assert lines == ["name    value", "a       [red]x[/red]", "longer  " + "y" * 200]
