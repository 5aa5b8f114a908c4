"""Options that several commands share, and the flags that are made from the fields of `CompileOptions`."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import click

from dscc.options import CompileOptions, Dim

Command = Callable[..., Any]


def compile_flags(shapes: bool = True) -> Callable[[Command], Command]:
    """One flag for every field of `CompileOptions` that has a help text, and with `shapes` `--input`."""

    def decorate(function: Command) -> Command:
        if shapes:
            function = _shapes(function)
        hints = typing.get_type_hints(CompileOptions)
        for entry in reversed(dataclasses.fields(CompileOptions)):
            if "help" in entry.metadata:
                function = _option(entry, hints[entry.name])(function)
        return function

    return decorate


_shapes = click.option(
    "--input",
    "input_shapes",
    metavar="NAME=1x3xHxW",
    multiple=True,
    callback=lambda ctx, param, texts: parse_shapes(texts),
    help="Shape of an input; a word is a symbolic dimension. May be repeated.",
)


def _option(entry: dataclasses.Field[Any], hint: Any) -> Callable[[Command], Command]:
    """The click option for one field: its name with dashes, its type, its default and its help."""
    names = ["-O"] if entry.name == "opt_level" else [f"--{entry.name.replace('_', '-')}"]
    kind = _plain(hint)
    text: str = entry.metadata["help"]
    settings: dict[str, Any] = {"help": f"{text[:1].upper()}{text[1:]}.", "default": entry.default}
    if kind is bool:
        names = [f"{names[0]}/--no-{names[0].removeprefix('--')}"]
    elif "choices" in entry.metadata:
        settings["type"] = click.Choice(list(entry.metadata["choices"]))
    elif kind is Path:
        settings["type"] = click.Path(path_type=Path)
    elif entry.name == "opt_level":
        settings |= {"type": click.IntRange(0, 3), "metavar": "LEVEL"}
    else:
        settings["type"] = kind
    if entry.default is not None and kind is not bool:
        settings["show_default"] = True
    return click.option(*names, entry.name, **settings)


def _plain(hint: Any) -> Any:
    """`str` for `str | None`."""
    if isinstance(hint, types.UnionType):
        return next(arg for arg in typing.get_args(hint) if arg is not type(None))
    return hint


def compile_options(values: Mapping[str, Any]) -> CompileOptions:
    """The options among a command's parameters."""
    names = {entry.name for entry in dataclasses.fields(CompileOptions)}
    return CompileOptions(**{name: value for name, value in values.items() if name in names})


def parse_shapes(texts: Iterable[str]) -> Mapping[str, tuple[Dim, ...]]:
    """`x=1x3xHxW` to `{"x": (1, 3, "H", "W")}`; `x=` is a scalar, and commas may separate where names contain an x."""
    shapes: dict[str, tuple[Dim, ...]] = {}
    for text in texts:
        name, equals, dims = text.rpartition("=")
        if not (equals and name):
            raise click.BadParameter(f"expected NAME=DIMS such as x=1x3xHxW, got '{text}'")
        if name in shapes:
            raise click.BadParameter(f"the shape of '{name}' is given twice")
        shapes[name] = tuple(_dim(word, text) for word in re.split("," if "," in dims else "x", dims)) if dims else ()
    return MappingProxyType(shapes)


def _dim(word: str, text: str) -> Dim:
    if word.isdecimal():
        return int(word)
    if re.fullmatch(r"[A-Za-z_][\w.]*", word):
        return word
    raise click.BadParameter(f"a dimension is a number or a name, got '{word}' in '{text}'")


def parse_dims(texts: Iterable[str]) -> Mapping[str, int]:
    """`H=640` to `{"H": 640}`."""
    dims: dict[str, int] = {}
    for text in texts:
        name, equals, value = text.rpartition("=")
        if not (equals and name and value.isdecimal()):
            raise click.BadParameter(f"expected NAME=NUMBER such as H=640, got '{text}'")
        dims[name] = int(value)
    return MappingProxyType(dims)


def feed_flags(function: Command) -> Command:
    """`--dim`, `--seed` and `--threads`: what random inputs are made of and how they are run."""
    function = click.option(
        "--threads", type=click.IntRange(min=1), help="Processor cores to run on; all when left out."
    )(function)
    function = click.option(
        "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of random inputs."
    )(function)
    return click.option(
        "--dim",
        "dims",
        metavar="NAME=N",
        multiple=True,
        callback=lambda ctx, param, texts: parse_dims(texts),
        help="Size of a symbolic dimension of random inputs. May be repeated.",
    )(function)


@contextmanager
def guessed(inputs: Iterable[Any], dims: Mapping[str, int]) -> Iterator[None]:
    """Says which sizes of random inputs nobody gave, where the model refuses them.

    Args:
        inputs: what was made at random, as `get_inputs()` lists it.
        dims: the sizes that were given.
    """
    from dscc.errors import InputError

    open_sizes = dict.fromkeys(dim for info in inputs for dim in info.shape if isinstance(dim, str) and dim not in dims)
    try:
        yield
    except InputError as err:
        # What is refused before the run, as an unknown name, has no error of the run behind it.
        if not open_sizes or err.__cause__ is None:
            raise
        names = ", ".join(f"'{name}'" for name in open_sizes)
        said = str(err).rstrip(".")
        raise InputError(f"{said}; nobody gave the size of {names}: it may take others, as --dim NAME=N") from err
