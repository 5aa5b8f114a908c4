"""Stages, presets, and the pipeline text: `fuse-attention,quantize-weights{bits=4,group=128}`.

    pipeline := pass ("," pass)*            option := name "=" value
    pass     := name ["{" option ("," option)* "}"]    value  := true | false | number | word | "quoted"

Spaces are allowed between the parts. An option is a field of the pass's dataclass, and the field's type says what the
value may be.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from dscc.errors import PipelineError, unknown

if TYPE_CHECKING:
    import tvm

    from dscc.passes.base import Pass, PassContext

STAGES = ("graph", "layout", "lower", "schedule")  # in this order they run; a pass says which one it belongs to

O0: tuple[str, ...] = ()
O1 = (
    "fold-constants",
    "simplify-shapes",
    "simplify-arithmetic",
    "fold-padding",
    "eliminate-common-subexpressions",
    "eliminate-dead-code",
)
_CLEAN = ("integer-products", *O1)  # products before the folding of constants, which makes reals of small weights
_FUSE = (
    "fuse-softmax",
    "fuse-layer-norm",
    "fuse-rms-norm",
    "fuse-group-norm",
    "fuse-gelu",
    "fuse-gelu-tanh",
    "fuse-silu",
    "fuse-attention",
    "gather-stored",
    "sink-scale",
    "fold-batch-norm",  # after the fusions: it would move their factors into weights
    "simplify-shapes",
    "eliminate-dead-code",
    "channels-last",
    "group-queries",  # where permutations are at their simplest
)
# Experts before the fusions, which would join parts of several of them; dead code is what they were made of.
O2 = (*_CLEAN, "fuse-experts", "eliminate-dead-code", "code-products", *_FUSE)
O3 = O2  # for passes that take long or change results: there is none
PRESETS = (O0, O1, O2, O3)


@dataclass(frozen=True)
class Pipeline:
    """Passes in the order in which they run: by stage, and within a stage as the text lists them."""

    passes: tuple[Pass, ...]

    def run(
        self,
        mod: tvm.IRModule,
        ctx: PassContext,
        *,
        dump: Path | None = None,
        progress: Callable[[str], None] = lambda stage: None,
    ) -> tvm.IRModule:
        """`mod` after every pass.

        Args:
            mod: left as it was.
            ctx: receives the passes' remarks.
            dump: folder for the module's text before the first pass and after each one, `00-input.py`, `01-NAME.py`.
            progress: called with the name of every stage as it begins.

        Raises:
            PipelineError: the folder for dumps cannot be written to.
        """
        if dump is not None:
            _make_folder(dump)
            _dump(mod, dump / "00-input.py")
        for index, each in enumerate(self.passes, start=1):
            if index == 1 or each.stage != self.passes[index - 2].stage:
                progress(each.stage)
            try:
                new = each.run(mod, ctx)
            except Exception as err:
                err.add_note(f"while running pass '{each.name}'")
                raise
            if dump is not None:
                _dump(new, dump / f"{index:02d}-{each.name}.py")
            mod = new
        return mod

    def __str__(self) -> str:
        """The text that parses to this pipeline; options that have their default value are left out."""
        return ",".join(_text(each) for each in self.passes)


def parse(text: str, known: Mapping[str, type[Pass]]) -> Pipeline:
    """The pipeline that `text` describes, out of the passes in `known` (name to class).

    Raises:
        PipelineError: syntax, unknown pass or option, or a value that the option does not take; with a caret under
        the place.
    """
    passes = _Parser(text, known).pipeline()
    return Pipeline(tuple(sorted(passes, key=lambda each: STAGES.index(each.stage))))


def preset(level: int, known: Mapping[str, type[Pass]]) -> Pipeline:
    """The pipeline of `-O<level>`."""
    if not 0 <= level < len(PRESETS):
        raise PipelineError(f"optimization level must be 0 to {len(PRESETS) - 1}, got {level}")
    return parse(",".join(PRESETS[level]), known)


_TOKEN = re.compile(r'\s*(?:(?P<word>[A-Za-z0-9_.+-]+)|(?P<quoted>"[^"]*")|(?P<mark>[{},=]))')


class _Parser:
    def __init__(self, text: str, known: Mapping[str, type[Pass]]) -> None:
        self.text, self.known = text, known
        self.at = 0  # where the next token is looked for
        self.start = 0  # where the latest token began

    def pipeline(self) -> list[Pass]:
        passes: list[Pass] = []
        if not self.text.strip():
            return passes
        while True:
            passes.append(self.one_pass())
            if not self.skip(","):
                break
        if self.peek() is not None:
            self.fail(f"expected ',' or '{{' or the end, found '{self.peek()}'")
        return passes

    def one_pass(self) -> Pass:
        name = self.word("a pass name")
        begin = self.start
        if name not in self.known:
            self.fail(unknown("pass", name, self.known), begin, len(name))
        cls = self.known[name]
        options: dict[str, Any] = {}
        if self.skip("{"):
            while not self.skip("}"):
                if options and not self.skip(","):
                    self.fail("expected ',' or '}'", self.next_start())
                self.option(cls, options)
        try:
            return cls(**options)
        except (ValueError, PipelineError) as err:
            self.fail(f"pass '{name}': {err}", begin, len(name), err)

    def option(self, cls: type[Pass], options: dict[str, Any]) -> None:
        name = self.word("an option name")
        begin = self.start
        fields = option_types(cls)
        field = name.replace("-", "_")
        if field not in fields:
            self.fail(f"pass '{cls.name}': {unknown('option', name, fields)}", begin, len(name))
        if field in options:
            self.fail(f"pass '{cls.name}': option '{name}' is given twice", begin, len(name))
        if not self.skip("="):
            self.fail(f"expected '=' after option '{name}'", self.next_start())
        raw = self.word("a value")
        try:
            options[field] = _value(raw, fields[field])
        except ValueError:
            allowed = _describe(fields[field])
            self.fail(f"pass '{cls.name}': {name} must be {allowed}, got '{raw}'", self.start, self.at - self.start)

    def peek(self) -> str | None:
        rest = self.text[self.at :]
        return rest.strip()[:1] or None

    def next_start(self) -> int:
        return self.at + len(self.text[self.at :]) - len(self.text[self.at :].lstrip())

    def skip(self, mark: str) -> bool:
        found = _TOKEN.match(self.text, self.at)
        if found is None or found["mark"] != mark:
            return False
        self.start, self.at = found.start("mark"), found.end()
        return True

    def word(self, what: str) -> str:
        found = _TOKEN.match(self.text, self.at)
        if found is None or found["mark"]:
            self.fail(f"expected {what}, found {repr(self.peek()) if self.peek() else 'the end'}", self.next_start())
        kind = "word" if found["word"] is not None else "quoted"
        self.start, self.at = found.start(kind), found.end()
        return found[kind] if kind == "word" else found[kind][1:-1]

    def fail(self, what: str, start: int | None = None, length: int = 1, cause: Exception | None = None) -> NoReturn:
        start = self.next_start() if start is None else start
        line = self.text.replace("\n", " ").replace("\t", " ")
        raise PipelineError(f"{what}\n  {line}\n  {' ' * start}^{'~' * (length - 1)}") from cause


def option_types(cls: type[Pass]) -> dict[str, Any]:
    """The options of a pass, name to type, in the order in which its dataclass lists them."""
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.init}


def _value(raw: str, kind: Any) -> Any:
    """`raw` as a value of type `kind`; ValueError if it is none."""
    origin = typing.get_origin(kind)
    if origin is Literal:
        for choice in typing.get_args(kind):
            if str(choice) == raw:
                return choice
        raise ValueError(raw)
    if origin in (typing.Union, types.UnionType):
        for each in typing.get_args(kind):
            try:
                return _value(raw, each)
            except ValueError:
                continue
        raise ValueError(raw)
    if kind is types.NoneType:
        if raw == "none":
            return None
        raise ValueError(raw)
    if kind is bool:
        if raw in ("true", "false"):
            return raw == "true"
        raise ValueError(raw)
    if kind in (int, float, str):
        return kind(raw)
    raise ValueError(raw)


def _describe(kind: Any) -> str:
    origin = typing.get_origin(kind)
    if origin is Literal:
        return " or ".join(str(choice) for choice in typing.get_args(kind))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_describe(each) for each in typing.get_args(kind))
    words = {bool: "true or false", int: "an integer", float: "a number", str: "a word", types.NoneType: "none"}
    return words.get(kind, "set from Python")


def _text(each: Pass) -> str:
    options = []
    for field in dataclasses.fields(each):
        value = getattr(each, field.name)
        if field.init and value != field.default:
            options.append(f"{field.name}={_value_text(value)}")
    return each.name + (f"{{{','.join(options)}}}" if options else "")


def _value_text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    text = "none" if value is None else str(value)
    return text if re.fullmatch(r"[A-Za-z0-9_.+-]+", text) else f'"{text}"'


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise _not_written(folder, err) from err


def _dump(mod: tvm.IRModule, path: Path) -> None:
    try:
        path.write_text(mod.script(), encoding="utf-8")
    except OSError as err:
        raise _not_written(path, err) from err


def _not_written(path: Path, err: OSError) -> PipelineError:
    reason = (err.strerror or str(err)).lower()
    return PipelineError(f"cannot write '{path}': {reason}; choose another folder for the dumps")
