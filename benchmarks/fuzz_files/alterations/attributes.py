"""Alterations of attributes."""

from __future__ import annotations

from onnx import AttributeProto

from benchmarks.fuzz_files import fields
from benchmarks.fuzz_files.fields import Random, pick
from benchmarks.fuzz_files.file import INDICES, File, some


def attribute_value(rng: Random, file: File) -> None:
    attribute = some(rng, list(fields.messages(file.model, "AttributeProto")))
    if attribute.type == AttributeProto.INT:
        attribute.i = pick(rng, INDICES)
    elif attribute.type == AttributeProto.FLOAT:
        attribute.f = pick(rng, fields.FLOATS)
    elif attribute.type == AttributeProto.INTS:
        if attribute.ints and rng.random() < 0.7:
            attribute.ints[int(rng.integers(len(attribute.ints)))] = pick(rng, INDICES)
        elif attribute.ints and rng.random() < 0.5:
            del attribute.ints[-1]
        else:
            attribute.ints.append(pick(rng, INDICES))
    elif attribute.type == AttributeProto.STRING:
        words = (b"", b"\xff", b"linear", b"SAME_LOWER", b"VALID", b"reflect", b"wrap", b"ij,jk->", b"...->")
        attribute.s = pick(rng, words) if rng.random() < 0.7 else fields.altered(rng, attribute.s)
    else:
        fields.change(rng, fields.within(rng, attribute))


def attribute_type(rng: Random, file: File) -> None:
    attribute = some(rng, list(fields.messages(file.model, "AttributeProto")))
    attribute.type = int(rng.integers(0, 15))


def attribute_list(rng: Random, file: File) -> None:
    """An attribute is taken away, doubled, comes from another node, or refers to one of a function."""
    node = some(rng, file.nodes())
    choice = rng.integers(4)
    if choice == 0 and node.attribute:
        del node.attribute[int(rng.integers(len(node.attribute)))]
    elif choice == 1 and node.attribute:
        node.attribute.append(pick(rng, node.attribute))
    elif choice == 2:
        node.attribute.append(some(rng, list(fields.messages(file.model, "AttributeProto"))))
    else:
        name = pick(rng, [a.name for a in node.attribute] or ["axis"])
        node.attribute.add(name=name, type=AttributeProto.INT, ref_attr_name=pick(rng, ("alpha", "nothing", name)))
