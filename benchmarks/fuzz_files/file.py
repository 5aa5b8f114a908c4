"""A model that is being altered, the files beside it, and what there is in it to alter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx

from benchmarks.fuzz_files import fields
from benchmarks.fuzz_files.fields import Random, pick

EXTENTS = (0, 1, 2, 3, 5, 17, -1, -2, 2**16, 2**31 - 1, 2**31, 2**32, 2**40, 2**62, 2**63 - 1, -(2**63))
INDICES = (0, 1, -1, 2, -2, 3, 5, 100, 2**31 - 1, -(2**31), 2**31, 2**40, 2**62, 2**63 - 1, -(2**63), -(2**63) + 1)


@dataclass
class File:
    """A model that is being altered, and the files beside it."""

    model: onnx.ModelProto
    files: dict[str, bytes] = field(default_factory=dict)
    content: bytes | None = None  # what is written instead of the model, once its bytes are altered

    def written(self) -> bytes:
        """The content of the model's file."""
        return self.model.SerializeToString() if self.content is None else self.content

    def graphs(self) -> list[onnx.GraphProto]:
        """Those that have nodes."""
        return [graph for graph in fields.messages(self.model, "GraphProto") if graph.node]

    def nodes(self) -> list[onnx.NodeProto]:
        return list(fields.messages(self.model, "NodeProto"))

    def weights(self) -> list[onnx.TensorProto]:
        return list(fields.messages(self.model, "TensorProto"))

    def names(self) -> list[str]:
        """Those of all edges, none, and one that nothing has."""
        found = {name for node in self.nodes() for name in (*node.input, *node.output)}
        return [*sorted(found), "", "nothing"]

    def write(self, folder: Path) -> Path:
        """Put all of it into an empty folder; the path of the model."""
        path = folder / "m.onnx"
        path.write_bytes(self.written())
        for name, data in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        if self.files:
            (folder / "link.bin").symlink_to("a.bin")
            (folder / "away.bin").symlink_to("/etc/hostname")
            (folder / "loop.bin").symlink_to("loop.bin")
            (folder / "hard.bin").hardlink_to(path)
        return path


Alteration = Callable[[Random, File], None]


class Nothing(Exception):
    """The file has nothing that could be altered so."""


def some(rng: Random, items: Sequence[Any]) -> Any:
    """One of the items; raises Nothing if there is none."""
    if not items:
        raise Nothing
    return pick(rng, items)


def copied(node: onnx.NodeProto) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy
