"""Flags that are made from the fields of `CompileOptions`, and the texts that they take."""

import dataclasses
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner

from dscc.cli import flags
from dscc.errors import InputError
from dscc.options import CompileOptions


@click.command()
@flags.compile_flags()
def show(**values: object) -> None:
    click.echo(repr(flags.compile_options(values)))


def parsed(*args: str) -> CompileOptions:
    seen: list[CompileOptions] = []

    @click.command()
    @flags.compile_flags()
    def command(**values: object) -> None:
        seen.append(flags.compile_options(values))

    command.main(list(args), standalone_mode=False)
    return seen[0]


def test_no_flags_are_the_defaults() -> None:
    assert parsed() == CompileOptions()


@pytest.mark.parametrize("level", range(4))
def test_optimization_level(level: int) -> None:
    assert parsed(f"-O{level}").opt_level == level


def test_every_field_with_a_help_text_has_a_flag() -> None:
    text = CliRunner().invoke(show, ["--help"]).output
    for entry in dataclasses.fields(CompileOptions):
        if "help" in entry.metadata and entry.name != "opt_level":
            assert f"--{entry.name.replace('_', '-')}" in text
    assert "-O LEVEL" in text


def test_shapes() -> None:
    options = parsed("--input", "x=1x3xHxW", "--input", "a=b=2,max_len", "--input", "s=", "--target", "x86:znver3")
    assert options.input_shapes == {"x": (1, 3, "H", "W"), "a=b": (2, "max_len"), "s": ()}
    assert options.target == "x86:znver3"


@pytest.mark.parametrize("text", ["x", "=1x2", "x=1x-2", "x=1xx2", "x=1x2.5", "x=1,,2"])
def test_shapes_refuse(text: str) -> None:
    with pytest.raises(click.BadParameter):
        flags.parse_shapes([text])


def test_one_shape_per_input() -> None:
    with pytest.raises(click.BadParameter, match="the shape of 'x' is given twice"):
        flags.parse_shapes(["x=1", "x=2"])


def test_dims() -> None:
    assert flags.parse_dims(["H=640", "W=8"]) == {"H": 640, "W": 8}
    for text in ("H", "H=x", "=3", "H=-1"):
        with pytest.raises(click.BadParameter):
            flags.parse_dims([text])


def test_sizes_that_nobody_gave_are_named_where_a_model_refuses_them() -> None:
    inputs = [SimpleNamespace(name="x", shape=("batch", 3, "height")), SimpleNamespace(name="y", shape=("batch", "n"))]
    said = r"^no; nobody gave the size of 'height', 'n': .* --dim NAME=N$"
    with pytest.raises(InputError, match=said), flags.guessed(inputs, {"batch": 2}):
        raise InputError("no") from RuntimeError("of the run")
    with pytest.raises(InputError, match=r"^no$"), flags.guessed(inputs, {"batch": 2}):
        raise InputError("no")
    with pytest.raises(InputError, match=r"^no$"), flags.guessed(inputs, {"batch": 2, "height": 1, "n": 3}):
        raise InputError("no") from RuntimeError("of the run")
