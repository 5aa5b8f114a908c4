"""Alterations of any field, and of bytes."""

from __future__ import annotations

from benchmarks.fuzz_files import fields
from benchmarks.fuzz_files.fields import Random, pick
from benchmarks.fuzz_files.file import File, some


def any_field(rng: Random, file: File) -> None:
    fields.change(rng, fields.within(rng, file.model))


def field_of_node(rng: Random, file: File) -> None:
    fields.change(rng, fields.within(rng, some(rng, file.nodes())))


def some_bytes(rng: Random, file: File) -> None:
    content = file.written()
    for _ in range(int(pick(rng, (1, 1, 2, 5)))):
        content = fields.altered(rng, content)
    file.content = content


def name_in_bytes(rng: Random, file: File) -> None:
    """A name that is no UTF-8."""
    names = [name for name in file.names() if len(name.encode()) > 1]
    old = some(rng, names).encode()
    file.content = file.written().replace(old, b"\xff\xfe" + old[2:], int(pick(rng, (1, 2, 1000))))
